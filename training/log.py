"""What the loop says while it runs: device values buffered until fetched, metrics, samples, progress, heartbeat.

May import `hub`. Writing a step costs microseconds: values stay on the device until `flush`, and a line of the
terminal is redrawn a few times a second at most.
"""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from tqdm import tqdm

from hub.measures import SPIKE
from hub.metrics import Metrics, append_sample, read_metrics
from hub.runs import Run
from training.noise_scale import NoiseScale
from training.spikes import WINDOW, Spike, Spikes
from training.trackers import open_mirror


@dataclass(frozen=True)
class Taken:
    """What one optimizer step leaves to be logged; tensors stay on the device."""

    loss: torch.Tensor
    grad_norm: torch.Tensor
    micro_batch: torch.Tensor | None  # see `noise_scale.first_micro_batch`
    waited: float  # seconds until its batch was there


class Log:
    """The record of one run from `step` on, until it is closed.

    Processes other than the main one write and show nothing, and know the same figures.

    Args:
        utilisation: MFU at one token a second, where that is known.
        noise: the gradient noise scale so far, where the micro-batches of each step tell it.
    """

    def __init__(
        self,
        run: Run,
        recipe,
        step: int,
        accelerator: Accelerator,
        tokens_per_step: int,
        utilisation: float | None = None,
        noise: NoiseScale | None = None,
    ):
        self.run, self.recipe, self.accelerator, self.enabled = run, recipe, accelerator, accelerator.is_main_process
        self.utilisation, self.noise = utilisation, noise
        self.tokens_per_step = tokens_per_step
        self.pending: list[tuple[int, Taken, float]] = []
        self.notes: dict[int, dict] = {}
        self.spikes = Spikes(recent_losses(run, step))
        self.metrics = Metrics(run.path) if self.enabled else None
        self.mirror = open_mirror(run, recipe.trackers, step) if self.enabled else None
        self.progress = tqdm(
            total=recipe.steps, initial=step, desc=run.id, unit="step", disable=not self.enabled,
            mininterval=0.5 if sys.stderr.isatty() else 10.0,  # a file keeps every line that is drawn
        )  # fmt: skip
        self.lap_step, self.lap_start, self.paused = step, time.perf_counter(), 0.0
        self.started = self.lap_start
        self.val_loss: float | None = None
        self.standing: dict = {}
        self._doing("compiling" if recipe.compile else "training")

    def close(self) -> None:
        self.progress.close()
        if self.metrics is not None:
            self.metrics.close()
            self.mirror.close()
            self.run.update(progress=self.standing)  # the last heartbeat may have been a second ago

    def buffer(self, step: int, taken: Taken, rate: float) -> None:
        """Keep the step's values where they are: reading them would make the device wait."""
        if not self.pending:
            self._doing("training")
        self.pending.append((step, taken, rate))

    def note(self, step: int, **values: float | None) -> None:
        """Values measured at a cadence of their own; they join the step's row at the next flush."""
        self.notes.setdefault(step, {}).update(values)
        self.val_loss = values.get("val_loss", self.val_loss)

    def flush(self) -> list[Spike]:
        """Fetch, write and show what is buffered. Returns the spikes among those steps, the same on every process."""
        spikes = []
        if self.pending:
            rows = self._fetch()
            spikes = [spike for step, row in rows.items() if (spike := self.spikes.judge(step, row["train_loss"]))]
            for spike in spikes:
                if spike.limit is not None:
                    rows[spike.step][SPIKE] = spike.limit
                self.say(str(spike))
            if self.enabled:
                self._write(rows)
        if self.enabled and self.notes:
            self._write_notes()
        return spikes

    def _fetch(self) -> dict[int, dict]:
        """Rows of the buffered steps: the one place that waits for the device. Collective."""
        taken = [taken for _, taken, _ in self.pending]
        figures = torch.stack([torch.stack((t.loss, t.grad_norm.float())) for t in taken])  # (steps, 2)
        if self.noise is not None:
            figures = torch.cat((figures, torch.stack([t.micro_batch for t in taken])), dim=1)  # (steps, 5)
        figures = self.accelerator.reduce(figures, "mean").tolist()  # each process's loss is of its own rows
        waited, before = sum(t.waited for t in taken), self.lap_start
        speed = self._lap(self.pending[-1][0])
        lap = {"tokens_sec": speed, "data_wait": waited / max(self.lap_start - before, 1e-9)}
        if self.utilisation is not None:
            lap["mfu"] = speed * self.utilisation
        rows = {}
        for (step, _, rate), (loss, norm, *micro_batch) in zip(self.pending, figures, strict=True):
            row = {"train_loss": loss, "grad_norm": norm, "learning_rate": rate, "tokens": step * self.tokens_per_step}
            row["clipped"] = int(norm > (self.recipe.max_grad_norm or math.inf))
            if self.noise is not None:
                small, tokens_small, tokens_big = micro_batch
                self.noise.add(small, norm**2, tokens_small, tokens_big)
                if self.noise.tokens is not None:
                    row["noise_scale"] = self.noise.tokens
            rows[step] = lap | row
        self.pending.clear()
        return rows

    def _write(self, rows: dict[int, dict]) -> None:
        seconds = time.perf_counter() - self.started - self.paused
        for step, row in rows.items():
            values = {"seconds": seconds, **row, **self.notes.pop(step, {})}
            self.metrics.add(step, **values)
            self.mirror.log(step, values)
        step, row = list(rows.items())[-1]
        speed = row["tokens_sec"]
        self.metrics.flush()
        shown = {"loss": f"{row['train_loss']:.3f}", "tok/s": f"{speed:,.0f}"}
        if self.val_loss is not None:
            shown["val"] = f"{self.val_loss:.3f}"
        self.progress.set_postfix(shown, refresh=False)
        self.progress.update(step - self.progress.n)
        left = (self.recipe.steps - step) * self.tokens_per_step
        self.standing = {
            "step": step,
            "steps": self.recipe.steps,
            "tokens": step * self.tokens_per_step,
            "tokens_per_second": round(speed, 1),
            "eta_seconds": round(left / speed, 1) if speed else None,
        }
        self.run.heartbeat(progress=self.standing)

    def _write_notes(self) -> None:
        """Values of a step whose row is already written: a line of their own in the JSONL."""
        for step, values in self.notes.items():
            self.metrics.note(step, **values)
            self.mirror.log(step, values)
        self.notes.clear()
        self.metrics.flush()

    def say(self, line: str) -> None:
        """One line for train.log."""
        if self.enabled:
            self.run.log(line)

    def alarm(self, line: str) -> None:
        """One line for train.log and for whoever looks at the terminal."""
        self.say(line)
        if self.enabled:
            self.progress.write(f"warning: {line}", file=sys.stderr)

    def sample(self, step: int, text: str, **settings) -> None:
        if self.enabled:
            append_sample(self.run.path, step=step, text=text, **settings)

    @contextmanager
    def pause(self, phase: str) -> Iterator[None]:
        """Time spent inside (evaluating, sampling, saving) is no training time: it stays out of tokens/s."""
        outer, before = self.phase, self.paused
        if self.accelerator.device.type != "cpu":
            torch.accelerator.synchronize()  # the steps before are training time
        start = time.perf_counter()
        self._doing(phase)
        yield
        self._doing(outer)
        inside = self.paused - before  # by a pause within this one, as when a paused run saves
        elapsed = time.perf_counter() - start - inside
        self.paused += elapsed
        self.lap_start += elapsed

    def go_back(self, step: int) -> None:
        """The record ends at `step` again; what was behind it has been cut off the files."""
        self.pending.clear()
        self.notes.clear()
        self.spikes = Spikes(recent_losses(self.run, step))
        if self.enabled:
            self.metrics.close()
            self.metrics = Metrics(self.run.path)
            self.mirror.close()
            self.mirror = open_mirror(self.run, self.recipe.trackers, step)
            self.progress.update(step - self.progress.n)
        self.lap_step = step

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


def recent_losses(run: Run, step: int) -> list[float]:
    """Training losses of the last steps up to `step`, as a run that goes on compares with."""
    columns = read_metrics(run.path) if step else {}
    pairs = zip(columns.get("step", []), columns.get("train_loss", []), strict=False)
    return [loss for at, loss in pairs if at <= step and loss is not None][-WINDOW:]
