"""What is said of a run: two lines before it trains, and at its end its figures, its texts, and what is wrong with it.

May import `hub` and `data`.
"""

import dataclasses
import sys

from data.console import one_line
from hub.metrics import append_sample, read_samples
from hub.models import open_model
from hub.runs import Run
from training import preflight
from training.diagnose import conclude
from training.evaluate import grammar_of, sample_texts
from training.loop import Job
from training.sharding import is_sharded

SAMPLES = 3  # texts kept and printed at the end of a run
STORIES = 100  # sampled where the corpus has a grammar that can judge them
SAMPLING = {"temperature": 1.0}  # the model's own distribution, nothing cut off


def announce(job: Job) -> None:
    """Two lines on what is about to be trained, on what and how."""
    recipe, info = job.recipe, job.run.info()
    floor = job.evaluator.floor
    print(
        f"run {job.run.id}: {job.model.config.model_type} of {info['model']['parameters']:,} parameters on "
        f"{info['inputs']['corpus']['name']}, {job.batches.steps_per_epoch:,.0f} steps an epoch"
        + ("" if floor is None else f", entropy {floor:.3f} nats per token")
        + f"\n{recipe.steps:,} steps of {recipe.batch_size} x {recipe.context} tokens with {recipe.optimizer}, "
        f"{recipe.precision} on {recipe.device}, {recipe.threads} threads"
        + (", compiled (the first step takes up to a minute)" if recipe.compile else "")
    )


def judge(job: Job) -> dict:
    """The figures of a finished run; texts of its own are kept with it, and read by the grammar if there is one."""
    job.run.heartbeat({"phase": "evaluating"})
    if is_sharded(job.model):  # the other processes, which hold parts of it, have ended: take what was saved
        model, _ = open_model(job.run.path)
        job = dataclasses.replace(job, model=model.to(job.accelerator.device))
    result = job.evaluator.report(job.model)
    accepts = grammar_of(job.evaluator.corpus)
    count = STORIES if accepts else SAMPLES
    with job.accelerator.autocast():
        texts = sample_texts(job.model, job.tokenizer, count, job.recipe.context, job.recipe.seed, **SAMPLING)
    if accepts:
        accepted = [text for text in texts if accepts(text)]
        result |= {"accepted": len(accepted), "accepted_of": count}
        texts = accepted or texts  # what is shown is what counted
    for text in texts[:SAMPLES]:
        append_sample(job.run.path, step=job.recipe.steps, text=text, seed=job.recipe.seed, **SAMPLING)
    if result.get("leak"):
        print("warning: the loss is below the corpus's own entropy: validation text was trained on", file=sys.stderr)
    return result


def diagnosis(job: Job) -> None:
    """What the rules of `training.diagnose` find in the finished run, told and kept beside it."""
    run = job.run
    try:
        found = conclude(run, None if is_sharded(job.model) else job.model)
    except Exception as error:  # the run is whole: nothing that is said about it may make it a failure
        run.log(f"it could not be diagnosed: {one_line(error)}")
        return
    for one in found:
        run.log(f"{one.severity}: {one.title}: {one.seen}")
        print(f"{one.severity}: {one.title}: {one.seen}", file=sys.stderr)
    if found:
        print(f"more, and what to change: python -m training.diagnose {run.id}{run.workspace_flag()}", file=sys.stderr)


def summary(run: Run, job: Job) -> str:
    """What came out, in a few lines: stories, figures, where the model is and how to open it."""
    result = run.info()["result"]
    texts = [sample["text"] for sample in read_samples(run.path)][-SAMPLES:]
    lines = [f"\n{text.strip()}" for text in texts]
    lines.append(
        f"\ntrained in {result['seconds']:.0f} s: loss {result['train_loss']:.4f} on training text, "
        f"{result['val_loss']:.4f} on validation text (perplexity {result['perplexity']:.2f}, "
        f"{result['bits_per_byte']:.3f} bits per byte)"
    )
    if "excess" in result:
        low, high = result["excess_interval"]
        lines.append(
            f"excess over the corpus's entropy ({result['floor']:.4f}): {result['excess']:.4f} nats per token "
            f"(95 % interval {low:.4f} to {high:.4f}, {result['documents']:,} whole documents)"
        )
    if "accepted" in result:
        lines.append(f"{result['accepted']} of {result['accepted_of']} sampled stories are whole by the grammar")
    lines += filter(None, [preflight.judged(run.info())])
    lines.append(
        f"\nthe model is in {run.path}; its card is README.md there. Open it anywhere:\n"
        "  from transformers import AutoModelForCausalLM\n"
        f'  model = AutoModelForCausalLM.from_pretrained("{run.path}", trust_remote_code=True)\n'
        f"or let it write:\n  python -m interpret.generate {run.id} --prompt 'One sunny day,'{run.workspace_flag()}"
    )
    return "\n".join(lines)
