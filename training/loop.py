"""The training loop, from any complete state to the last step; everything produced lands in the run folder.

May import `hub` and `data`, never `modeling`: all it asks of a model is
`model(**batch, num_items_in_batch=n).loss`, n being the scored tokens of the whole optimizer step over all processes
and micro-batches.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from data.tokens import Batches
from hub.checkpoints import STATE, step_of
from hub.runs import Run
from training import state
from training.evaluate import Evaluator
from training.keeper import Keeper, write_model
from training.listener import Listener
from training.log import Taken
from training.machine import compile_options
from training.noise_scale import first_micro_batch
from training.optimizers import build_optimizer
from training.recipe import TrainRecipe
from training.rewind import load_weights
from training.schedule import rate_at
from training.sharding import is_sharded, whole

Batch = dict[str, torch.Tensor]  # `input_ids` and `labels`, the next tokens; (b, T) each


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
    write_model: Callable = write_model
    """Puts (model, its whole weights, tokenizer) into a folder."""
    load_weights: Callable = load_weights
    """Puts a checkpoint's weights back into the live model."""

    @property
    def tells_noise(self) -> bool:
        """Whether each step's micro-batches tell the noise scale: there are several, gradients whole and unscaled."""
        return self.recipe.accumulate > 1 and self.accelerator.scaler is None and not is_sharded(self.model)


def train(job: Job, checkpoint=None, until: int | None = None) -> str:
    """Take the recipe's steps, from `checkpoint` (a complete one's folder) or from the start.

    Args:
        until: the step to stop after, as if told to; None: the recipe's last.

    Returns `completed`, or `interrupted` when it was told to stop; the state is saved either way. Raises Diverged where
    the loss is no longer a number.
    """
    recipe, accelerator = job.recipe, job.accelerator
    model, optimizer = accelerator.prepare(job.model, build_optimizer(job.model, recipe))
    step, position, end = 0, {}, min(recipe.steps, until or recipe.steps)
    if checkpoint is not None:
        step = step_of(checkpoint)
        if (checkpoint / STATE).is_dir():  # a fork may begin with another optimizer
            position = state.restore(checkpoint / STATE, accelerator, model, optimizer)
    options = compile_options(recipe.device, recipe.deterministic)
    compiled = torch.compile(model, dynamic=False, options=options) if recipe.compile else model
    with Keeper(job, model, optimizer, step, position) as keep, Listener(job.run, accelerator) as listener:
        log = keep.log
        model.train()
        while step < end and listener.go_on(step, keep):
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * rate_at(step, recipe)
            looking = due(step + 1, recipe.diagnose_every, recipe.steps)
            measures = keep.diagnostics.before_step() if looking else None
            taken = optimizer_step(job, compiled, optimizer, step, step + keep.skipped, measures)
            step += 1

            log.buffer(step, taken, optimizer.param_groups[0]["lr"])  # stays on the device
            if looking:
                keep.diagnose(step, measures, loss_of)
            if due(step, recipe.eval_every, recipe.steps):
                keep.evaluate(step)
            if due(step, recipe.log_every, recipe.steps):
                keep.flush(step)  # the one place that waits for the device
            if due(step, recipe.sample_every, recipe.steps):
                keep.sample(step)
            if due(step, recipe.save_every, recipe.steps):
                keep.save(step)
            if keep.way_back is not None:
                step = keep.go_back()
        if step < recipe.steps:
            keep.save(step)
    return "completed" if step == recipe.steps else "interrupted"


def optimizer_step(job: Job, model, optimizer, step: int, data_step: int, measures=None) -> Taken:
    """One step on this rank's slices of the global batch.

    Args:
        step: the steps taken before; `data_step` which batch it is, later by those that were skipped.
        measures: a `StepMeasures` to be told of the gradients, where this step is looked at.
    """
    recipe, accelerator, start = job.recipe, job.accelerator, time.perf_counter()
    micro_batches = list(slices(job.batches.batch(data_step), recipe.accumulate, accelerator))
    waited = time.perf_counter() - start
    counts = [(batch["labels"] != -100).sum() for batch in micro_batches]
    scored = accelerator.reduce(sum(counts), "sum")
    total, first = torch.zeros((), device=accelerator.device), None
    for i, batch in enumerate(micro_batches):
        last = i == len(micro_batches) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            # a sum of token losses over all scored tokens; DDP averages over ranks, hence the factor
            loss, plain = losses_of(model, batch, scored, recipe)
            accelerator.backward(loss * accelerator.num_processes)
        total += plain.detach() * accelerator.num_processes
        if i == 0 and job.tells_noise:
            first = first_micro_batch(list(job.model.parameters()), scored, counts[0], accelerator.num_processes)
    parameters = job.model.parameters()
    # an infinite limit still measures the norm
    grad_norm = whole(accelerator.clip_grad_norm_(parameters, recipe.max_grad_norm or float("inf")))
    if measures is not None:
        # as torch clips
        limit = recipe.max_grad_norm or math.inf
        measures.gradients((limit / (grad_norm + 1e-6)).clamp(max=1.0))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return Taken(total, grad_norm, first, waited)


def losses_of(model, batch: Batch, scored, recipe: TrainRecipe) -> tuple[torch.Tensor, torch.Tensor]:
    """(what is minimised, the loss that is recorded): they differ by the z-loss (arXiv:2204.02311, 5).

    z = logsumexp(logits) of each scored token; its square is summed over `scored` as the loss is, so that micro-batches
    and processes add up to the mean.
    """
    if not recipe.z_loss:
        loss = loss_of(model, batch, scored, recipe.label_smoothing)
        return loss, loss
    logits = logits_of(model, batch)
    loss = cross_entropy(logits, batch["labels"], scored, recipe.label_smoothing)
    z = logits.logsumexp(-1)[batch["labels"] != -100]
    return loss + recipe.z_loss * z.square().sum() / scored, loss


def loss_of(model, batch: Batch, scored, smoothing: float) -> torch.Tensor:
    """Sum of the token losses over `scored`. The model's own loss cannot smooth labels, so that one is taken here."""
    if not smoothing:
        return model(**batch, shift_labels=batch["labels"], num_items_in_batch=scored, use_cache=False).loss
    return cross_entropy(logits_of(model, batch), batch["labels"], scored, smoothing)


def logits_of(model, batch: Batch) -> torch.Tensor:
    """(B, T, V), float32."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return model(**inputs, use_cache=False).logits.float()


def cross_entropy(logits, labels, scored, smoothing: float) -> torch.Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum", label_smoothing=smoothing) / scored


def slices(batch: dict[str, np.ndarray], accumulate: int, accelerator: Accelerator) -> Iterator[Batch]:
    """This rank's micro-batches, (b, T) each, of the global batch's (B, T)."""
    parts = {name: split(rows, accumulate, accelerator) for name, rows in batch.items()}
    for i in range(accumulate):
        # the library flattens labels by a view
        yield {
            name: torch.from_numpy(np.ascontiguousarray(part[i])).to(accelerator.device, non_blocking=True)
            for name, part in parts.items()
        }


def split(rows: np.ndarray, accumulate: int, accelerator: Accelerator) -> list[np.ndarray]:
    mine = np.array_split(rows, accelerator.num_processes)[accelerator.process_index]
    return np.array_split(mine, accumulate)


def due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last
