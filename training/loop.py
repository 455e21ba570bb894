"""The training loop, from any complete state to the last step; everything produced lands in the run folder.

May import `hub` and `data`, never `modeling`: all it asks of a model is
`model(**batch, num_items_in_batch=n).loss`, n being the scored tokens of the whole optimizer step over all processes
and micro-batches.
"""

import dataclasses
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from data.tokens import Batches
from hub.checkpoints import STATE, prune_states, publish, save_checkpoint, step_of
from hub.runs import Run
from training import state
from training.diagnostics import UpdateRatio, dead_units
from training.evaluate import Evaluator, sample_texts
from training.listener import Listener
from training.log import Log
from training.machine import compile_options
from training.optimizers import build_optimizer
from training.recipe import TrainRecipe
from training.schedule import rate_at

PROBE_TOKENS = 4096  # dead units are judged on a fixed batch of at least so many tokens


class Diverged(ValueError):  # noqa: N818 - it names a state of the run
    """The loss is no longer a number; the message says at which step and what to try."""


@dataclasses.dataclass
class Job:
    """What a run is made of, all of it decided: the recipe's `steps`, `compile`, `start` and `threads` are resolved."""

    run: Run
    recipe: TrainRecipe
    model: torch.nn.Module
    tokenizer: object
    batches: Batches
    evaluator: Evaluator
    accelerator: Accelerator


def train(job: Job, checkpoint=None) -> str:
    """Take the recipe's steps, from `checkpoint` (a complete one's folder) or from the start.

    Returns `completed`, or `interrupted` when it was told to stop; the state is saved either way. Raises Diverged.
    """
    recipe, accelerator = job.recipe, job.accelerator
    model, optimizer = accelerator.prepare(job.model, build_optimizer(job.model, recipe))
    step = 0
    if checkpoint is not None:
        step = step_of(checkpoint)
        if (checkpoint / STATE).is_dir():  # a fork may begin with another optimizer
            state.restore(checkpoint / STATE, accelerator, model, optimizer)
    options = compile_options(recipe.device, recipe.deterministic)
    compiled = torch.compile(model, dynamic=False, options=options) if recipe.compile else model
    log = Log(job.run, recipe, step, enabled=accelerator.is_main_process)
    with log, Listener(job.run, accelerator) as listener:
        keep = Keeper(job, model, optimizer, log)
        model.train()
        while step < recipe.steps and listener.go_on(step, keep):
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * rate_at(step, recipe)
            ratio = UpdateRatio(job.model) if due(step + 1, recipe.diagnose_every, recipe.steps) else None
            loss, grad_norm = optimizer_step(job, compiled, optimizer, step)
            step += 1

            log.buffer(step, loss, grad_norm, optimizer.param_groups[0]["lr"])  # stays on the device
            if ratio is not None:
                log.note(step, update_ratio=ratio.measure(), **keep.dead_units())
            if due(step, recipe.log_every, recipe.steps):
                keep.flush(step)  # the one place that waits for the device
            if due(step, recipe.eval_every, recipe.steps):
                keep.evaluate(step)
            if due(step, recipe.sample_every, recipe.steps):
                keep.sample(step)
            if due(step, recipe.save_every, recipe.steps):
                keep.save(step)
        if step < recipe.steps:
            keep.save(step)
    return "completed" if step == recipe.steps else "interrupted"


def optimizer_step(job: Job, model, optimizer, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One step on this rank's slices of the global batch; returns the loss and the gradient norm, on the device."""
    recipe, accelerator = job.recipe, job.accelerator
    micro_batches = list(slices(job.batches.at(step), recipe.accumulate, accelerator))
    scored = accelerator.reduce(sum((labels != -100).sum() for _, labels in micro_batches), "sum")
    total = torch.zeros((), device=accelerator.device)
    for i, (inputs, labels) in enumerate(micro_batches):
        last = i == len(micro_batches) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            # a sum of token losses over all scored tokens; DDP averages over ranks, hence the factor
            loss = loss_of(model, inputs, labels, scored, recipe.label_smoothing) * accelerator.num_processes
            accelerator.backward(loss)
        total += loss.detach()
    parameters = job.model.parameters()
    # an infinite limit still measures the norm
    grad_norm = accelerator.clip_grad_norm_(parameters, recipe.max_grad_norm or float("inf"))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total, grad_norm


def loss_of(model, inputs, labels, scored, smoothing: float) -> torch.Tensor:
    """Sum of the token losses over `scored`. The model's own loss cannot smooth labels, so that one is taken here."""
    if not smoothing:
        return model(
            input_ids=inputs, labels=labels, shift_labels=labels, num_items_in_batch=scored, use_cache=False
        ).loss
    logits = model(input_ids=inputs, use_cache=False).logits.float()
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=smoothing) / scored


def slices(rows: np.ndarray, accumulate: int, accelerator: Accelerator):
    """(inputs, labels) of each of this rank's micro-batches, (b, T) each, of the global batch's (B, T+1) rows."""
    mine = np.array_split(rows, accelerator.num_processes)[accelerator.process_index]
    for part in np.array_split(mine, accumulate):
        ids = torch.from_numpy(part).to(accelerator.device, non_blocking=True)
        yield ids[:, :-1].contiguous(), ids[:, 1:].contiguous()  # the library flattens labels by a view


def due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last


class Keeper:
    """What a run leaves behind while it trains: measurements, samples and checkpoints."""

    def __init__(self, job: Job, model, optimizer, log: Log):
        self.job, self.model, self.optimizer, self.log = job, model, optimizer, log
        rows = -(-PROBE_TOKENS // job.recipe.context)
        probe = dataclasses.replace(job.batches, batch_size=rows).at(0)[:, :-1]
        self.probe = torch.from_numpy(probe).to(job.accelerator.device)

    def dead_units(self) -> dict:
        dead = dead_units(self.job.model, self.probe)
        return {"dead_perc": dead.pop("total", None), **{f"dead_perc/{name}": value for name, value in dead.items()}}

    def flush(self, step: int) -> None:
        """Fetch what is buffered. Raises Diverged before anything spoilt could be saved."""
        bad = self.log.flush()
        if bad is not None:
            newest = self.job.run.newest_checkpoint_name()
            kept = f"the last good checkpoint is {newest}" if newest else "no checkpoint had been saved yet"
            raise Diverged(
                f"the loss is not a number at step {bad}; {kept}. Try a lower --train.learning_rate, a longer "
                "--train.warmup_steps, --train.max_grad_norm 1.0, or --train.precision fp32"
            )

    def evaluate(self, step: int) -> None:
        limit, model = self.job.recipe.eval_sequences, self.job.model
        with self.log.pause("evaluating"):
            losses = {name: self.job.evaluator.loss(model, name, limit) for name in ("train", "validation")}
        self.log.note(step, eval_train_loss=losses["train"], val_loss=losses["validation"])
        self.log.say(
            f"step {step}: loss {losses['train']:.4f} on training text, {losses['validation']:.4f} on validation"
        )
        self.log.flush()

    def sample(self, step: int) -> None:
        recipe = self.job.recipe
        with self.log.pause("sampling"), self.job.accelerator.autocast():
            text = sample_texts(self.job.model, self.job.tokenizer, 1, recipe.context - 1, recipe.seed + step)[0]
        self.log.sample(step, text, temperature=1.0, seed=recipe.seed + step)

    def save(self, step: int) -> None:
        """A complete checkpoint; the newest two keep their state. Collective."""
        job, accelerator = self.job, self.job.accelerator
        if not self.optimizer.state:  # torch would take a step of nothing to have a state, and that would be counted
            self.log.say(f"step {step}: nothing to save before the first step")
            return
        self.flush(step)
        with self.log.pause("saving"):
            position = {"step": step, "data_step": step}
            captured = state.capture(accelerator, self.model, self.optimizer, position)
            weights = accelerator.get_state_dict(self.model)
            if accelerator.is_main_process:
                folder = save_checkpoint(
                    job.run,
                    step,
                    write_model=lambda folder: write_model(job.model, weights, job.tokenizer, folder),
                    write_state=lambda folder: state.write(captured, folder),
                )
                publish(job.run, folder)
                prune_states(job.run, keep=job.recipe.keep_states)
            self.log.say(f"step {step}: saved")
            accelerator.wait_for_everyone()


def write_model(model, weights: dict, tokenizer, folder) -> None:
    """A folder that `AutoModelForCausalLM` and `AutoTokenizer` open."""
    model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
