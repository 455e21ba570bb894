"""What a run leaves behind while it trains: measurements, samples, checkpoints; and the way back from a loss spike.

May import `hub` and `data`. The loop says when; what is done then is here.
"""

import math
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hub.checkpoints import STATE, prune_states, publish, save_checkpoint, step_of
from training import rewind, state, utilisation
from training.diagnostics import Diagnostics
from training.log import Log
from training.noise_scale import NoiseScale
from training.sharding import ordinary, whole_model
from training.spikes import Spike

if TYPE_CHECKING:
    from training.loop import Job

# Decay of the noise scale's means, a measurement: of each step where micro-batches tell it, else a look in hundreds.
DECAY_OF_STEPS, DECAY_OF_LOOKS = 0.98, 0.8


class Diverged(ValueError):  # noqa: N818 - it names a state of the run
    """The loss is no longer a number; the message says at which step and what to try."""


class Keeper(AbstractContextManager):
    """What a run leaves behind while it trains: measurements, samples and checkpoints; and the way back from a spike.

    Args:
        position: of the state that the run goes on from, empty for one that begins: see `position`.
    """

    def __init__(self, job: "Job", model, optimizer, step: int, position: dict):
        self.job, self.model, self.optimizer = job, model, optimizer
        self.each_step = job.tells_noise
        self.noise = NoiseScale(DECAY_OF_STEPS if self.each_step else DECAY_OF_LOOKS, position.get("noise"))
        self.skipped = position.get("data_step", step) - step  # batches left out so far
        self.rewinds = list(position.get("rewinds", []))
        self.way_back: tuple[Spike, Path] | None = None
        self.diagnostics = Diagnostics(job, optimizer, None if self.each_step else self.noise)
        main, processes = job.accelerator.is_main_process, job.accelerator.num_processes
        speed = utilisation.per_token(job.model, job.recipe, processes) if main else None
        tokens, noise = job.batches.tokens_per_step, self.noise if self.each_step else None
        self.log = Log(job.run, job.recipe, step, job.accelerator, tokens, speed, noise)

    def __exit__(self, *error) -> None:
        self.log.close()

    def diagnose(self, step: int, measures, loss_of) -> None:
        with self.log.pause("measuring"):
            batch = next_rows(self.job, step + self.skipped)
            self.log.note(step, **self.diagnostics.after_step(measures, batch, loss_of))

    def flush(self, step: int) -> None:
        """Fetch what is buffered. Raises Diverged before anything spoilt could be saved."""
        spikes, recipe = self.log.flush(), self.job.recipe
        if self.way_back is None and spikes and recipe.spike_action == "rewind":
            place = rewind.place(self.job.run, spikes[0], recipe.spike_rewind_steps, self.rewinds)
            if place is not None:
                self.way_back = spikes[0], place
            else:
                self.log.say(f"step {spikes[0].step}: there is no checkpoint to go back to")
        bad = next((spike.step for spike in spikes if not math.isfinite(spike.loss)), None)
        if bad is not None and self.way_back is None:
            newest = self.job.run.newest_checkpoint_name()
            kept = f"the last good checkpoint is {newest}" if newest else "no checkpoint had been saved yet"
            raise Diverged(
                f"the loss is not a number at step {bad}; {kept}. Try a lower --train.learning_rate, a longer "
                "--train.warmup_steps, --train.max_grad_norm 1.0, or --train.precision fp32"
            )

    def go_back(self) -> int:
        """To the checkpoint before a spike, past the batches around it; returns its step. Collective."""
        (spike, checkpoint), self.way_back = self.way_back, None
        job, step = self.job, step_of(checkpoint)
        job.accelerator.wait_for_everyone()  # all have found the same checkpoint before later ones go
        if job.accelerator.is_main_process:
            rewind.forget_after(job.run, checkpoint)
        job.accelerator.wait_for_everyone()  # the record that all go on from ends there
        job.load_weights(job.model, checkpoint)
        position = state.restore(checkpoint / STATE, job.accelerator, self.model, self.optimizer)
        skip = max(job.recipe.spike_skip_batches, spike.step + self.skipped - position["data_step"])
        self.skipped = position["data_step"] + skip - step
        self.rewinds.append({"spike": spike.step, "loss": spike.loss, "to": step, "batches_skipped": skip})
        self.noise.go_back(position.get("noise"))
        self.log.go_back(step)
        self.log.alarm(f"{spike}: gone back to step {step}, {skip} batches are left out")
        self.save(step)  # from here on a resumed run skips them too
        if job.accelerator.is_main_process:
            job.run.update(rewinds=self.rewinds)
        return step

    def evaluate(self, step: int) -> None:
        limit, model, evaluator = self.job.recipe.eval_sequences, self.job.model, self.job.evaluator
        with self.log.pause("evaluating"):
            losses = {name: evaluator.loss(model, name, limit) for name in ("train", "validation")}
            excess = evaluator.excess(model, limit=limit) or {}
        measured = {name: excess[name] for name in ("excess", "excess_se") if name in excess}
        measured |= {"leak": True} if excess.get("leak") else {}
        bits = evaluator.bits_per_byte(losses["validation"])
        self.log.note(
            step, eval_train_loss=losses["train"], val_loss=losses["validation"], bits_per_byte=bits, **measured
        )
        self.log.say(
            f"step {step}: loss {losses['train']:.4f} on training text, {losses['validation']:.4f} on validation"
        )
        if excess.get("leak"):
            self.log.alarm(
                f"step {step}: the validation loss is {-excess['excess']:.4f} nats per token below the corpus's own "
                f"entropy (standard error {excess['excess_se']:.4f}): validation text was trained on"
            )
            if self.job.accelerator.is_main_process:
                self.job.run.update(result={"leak": True})
        self.flush(step)

    def sample(self, step: int) -> None:
        job, accelerator = self.job, self.job.accelerator
        with self.log.pause("sampling"), accelerator.autocast():
            model = whole_model(accelerator, job.model)
            if model is None:  # sharded: the main process writes alone
                return
            sample = job.evaluator.sample(model, job.tokenizer, job.recipe.seed + step)
        self.log.sample(step, **sample)

    def position(self, step: int) -> dict:
        """Where the run stands, for its state: what the next steps depend on beside weights and random numbers."""
        return {
            "step": step, "data_step": step + self.skipped, "rewinds": self.rewinds, "noise": self.noise.state()
        }  # fmt: skip

    def save(self, step: int) -> None:
        """A complete checkpoint; the newest two keep their state. Collective."""
        job, accelerator = self.job, self.job.accelerator
        if not self.optimizer.state:  # torch would take a step of nothing to have a state, and that would be counted
            self.log.say(f"step {step}: nothing to save before the first step")
            return
        self.flush(step)
        if self.way_back is not None:
            return  # what a spike left is not kept
        with self.log.pause("saving"):
            captured = state.capture(accelerator, self.model, self.optimizer, self.position(step))
            weights = accelerator.get_state_dict(self.model)
            if accelerator.is_main_process:
                folder = save_checkpoint(
                    job.run,
                    step,
                    write_model=lambda folder: job.write_model(job.model, weights, job.tokenizer, folder),
                    write_state=lambda folder: state.write(captured, folder),
                )
                publish(job.run, folder)
                prune_states(job.run, keep=job.recipe.keep_states)
            self.log.say(f"step {step}: saved")
            accelerator.wait_for_everyone()


def write_model(model, weights: dict, tokenizer, folder) -> None:
    """A folder that `AutoModelForCausalLM` and `AutoTokenizer` open."""
    ordinary(model).save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)


def next_rows(job: "Job", data_step: int) -> dict[str, np.ndarray]:
    """This rank's rows of a batch to come."""
    processes, rank = job.accelerator.num_processes, job.accelerator.process_index
    return {name: np.array_split(rows, processes)[rank] for name, rows in job.batches.batch(data_step).items()}
