"""What the loop says while it runs: device values buffered until fetched, metrics, samples, progress, heartbeat.

May import `hub`. Writing a step costs microseconds: values stay on the device until `flush`, and a line of the
terminal is redrawn a few times a second at most.
"""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from tqdm import tqdm

from hub.metrics import Metrics, append_sample
from hub.runs import Run


class Log:
    """The record of one run from `step` on; a context manager that closes the progress bar.

    Args:
        enabled: false on every process but the main one: those write and show nothing.
    """

    def __init__(self, run: Run, recipe, step: int, enabled: bool = True):
        self.run, self.recipe, self.enabled = run, recipe, enabled
        self.tokens_per_step = recipe.batch_size * recipe.context
        self.pending: list[tuple[int, torch.Tensor, torch.Tensor, float]] = []
        self.notes: dict[int, dict] = {}
        self.metrics = Metrics(run.path) if enabled else None
        self.progress = tqdm(
            total=recipe.steps, initial=step, desc=run.id, unit="step", disable=not enabled,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,  # a file keeps every line that is drawn
        )  # fmt: skip
        self.lap_step, self.lap_start, self.paused = step, time.perf_counter(), 0.0
        self.started = self.lap_start
        self.val_loss: float | None = None
        self.standing: dict = {}
        self._doing("compiling" if recipe.compile else "training")

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self.progress.close()
        if self.metrics is not None:
            self.metrics.close()
            self.run.update(progress=self.standing)  # the last heartbeat may have been a second ago

    def buffer(self, step: int, loss: torch.Tensor, grad_norm: torch.Tensor, rate: float) -> None:
        """Keep the step's values where they are: reading them would make the device wait."""
        if not self.pending:
            self._doing("training")
        self.pending.append((step, loss, grad_norm, rate))

    def note(self, step: int, **values: float | None) -> None:
        """Values measured at a cadence of their own; they join the step's row at the next flush."""
        self.notes.setdefault(step, {}).update(values)
        self.val_loss = values.get("val_loss", self.val_loss)

    def flush(self) -> int | None:
        """Fetch, write and show what is buffered. Returns the first step whose loss was not finite, if any."""
        if self.pending:
            steps, losses, norms, rates = zip(*self.pending, strict=True)
            fetched = torch.stack([torch.stack(losses), torch.stack([norm.float() for norm in norms])]).tolist()
            speed = self._lap(steps[-1])
            self.pending.clear()
            if self.enabled:
                self._write(steps, *fetched, rates, speed)
            bad = [step for step, loss in zip(steps, fetched[0], strict=True) if not math.isfinite(loss)]
            if bad:
                return bad[0]
        if self.enabled and self.notes:
            self._write_notes()
        return None

    def _write(self, steps, losses, norms, rates, speed: float) -> None:
        for step, loss, norm, rate in zip(steps, losses, norms, rates, strict=True):
            self.metrics.add(
                step,
                tokens_sec=speed,
                grad_norm=norm,
                train_loss=loss,
                learning_rate=rate,
                tokens=step * self.tokens_per_step,
                seconds=time.perf_counter() - self.started - self.paused,
                **self.notes.pop(step, {}),
            )
        self.metrics.flush()
        shown = {"loss": f"{losses[-1]:.3f}", "tok/s": f"{speed:,.0f}"}
        if self.val_loss is not None:
            shown["val"] = f"{self.val_loss:.3f}"
        self.progress.set_postfix(shown, refresh=False)
        self.progress.update(steps[-1] - self.progress.n)
        left = (self.recipe.steps - steps[-1]) * self.tokens_per_step
        self.standing = {
            "step": steps[-1],
            "steps": self.recipe.steps,
            "tokens": steps[-1] * self.tokens_per_step,
            "tokens_per_second": round(speed, 1),
            "eta_seconds": round(left / speed, 1) if speed else None,
        }
        self.run.heartbeat(progress=self.standing)

    def _write_notes(self) -> None:
        """Values of a step whose row is already written: a line of their own in the JSONL."""
        for step, values in self.notes.items():
            self.metrics.note(step, **values)
        self.notes.clear()
        self.metrics.flush()

    def say(self, line: str) -> None:
        """One line for train.log."""
        if self.enabled:
            self.run.log(line)

    def sample(self, step: int, text: str, **settings) -> None:
        if self.enabled:
            append_sample(self.run.path, step=step, text=text, **settings)

    @contextmanager
    def pause(self, phase: str) -> Iterator[None]:
        """Time spent inside (evaluating, sampling, saving) is no training time: it stays out of tokens/s."""
        outer, before = self.phase, self.paused
        start = time.perf_counter()
        self._doing(phase)
        yield
        self._doing(outer)
        inside = self.paused - before  # by a pause within this one, as when a paused run saves
        elapsed = time.perf_counter() - start - inside
        self.paused += elapsed
        self.lap_start += elapsed

    def _doing(self, phase: str) -> None:
        self.phase = phase
        if self.enabled:
            self.run.heartbeat({"phase": phase})

    def _lap(self, step: int) -> float:
        """Tokens a second since the last call."""
        now = time.perf_counter()
        tokens, seconds = (step - self.lap_step) * self.tokens_per_step, now - self.lap_start
        self.lap_step, self.lap_start = step, now
        return tokens / seconds if seconds > 0 else 0.0
