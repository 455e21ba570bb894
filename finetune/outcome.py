"""What is said of a fine-tuning: two lines before it trains, and at its end its figures and some answers.

May import `hub`.
"""

from hub.metrics import append_sample, read_samples
from training.loop import Job

ANSWERS = 3  # kept and printed at the end of a run


def announce(job: Job) -> None:
    """Two lines on what is about to be adapted, to what and how."""
    recipe, info = job.recipe, job.run.info()
    base, prepared = info["inputs"]["base"], job.evaluator.prepared
    trainable, total = job.model.get_nb_trainable_parameters()
    print(
        f"run {job.run.id}: an adapter of {trainable:,} parameters on {base['id']} ({total - trainable:,}), "
        f"{len(prepared.splits['train']):,} examples of {info['inputs']['examples']['name']}, "
        f"{job.batches.steps_per_epoch:,.1f} steps an epoch\n"
        f"{recipe.steps:,} steps of {recipe.batch_size} examples of {recipe.context} tokens at most with "
        f"{recipe.optimizer}, {recipe.precision} on {recipe.device}, {recipe.threads} threads"
    )


def judge(job: Job) -> dict:
    """The figures of a finished run; answers of its own are kept with it."""
    job.run.heartbeat({"phase": "evaluating"})
    with job.accelerator.autocast():
        result = job.evaluator.report(job.model)
        for example in job.evaluator.prompts[:ANSWERS]:
            answer = job.evaluator.answer(job.model, job.tokenizer, example)
            append_sample(job.run.path, step=job.recipe.steps, **answer)
    return result


def summary(job: Job) -> str:
    """What came out, in a few lines: answers, figures, where the adapter is and how to use it."""
    run, result = job.run, job.run.info()["result"]
    lines = [f"\n{one['prompt'].strip()}\n  {one['text'].strip()}" for one in read_samples(run.path)[-ANSWERS:]]
    lines.append(
        f"\ntrained in {result['seconds']:.0f} s: loss {result['train_loss']:.4f} on the answers of training examples, "
        f"{result['val_loss']:.4f} on held-out ones (perplexity {result['perplexity']:.2f})"
    )
    where = run.workspace_flag()
    lines.append(
        f"\nthe adapter is in {run.path}; its card is README.md there\n"
        f"  talk to it   python -m interpret.generate {run.id} --chat{where}\n"
        f"  one model    python -m finetune.merge {run.id}{where}"
    )
    return "\n".join(lines)
