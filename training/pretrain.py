"""Train a model from nothing: `accelerate launch training/pretrain.py`, or `python -m training.pretrain`.

May import `hub` and `data`. Reads the command line, starts or resumes a run, and says what came out.
"""

import sys
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a script, Python puts training/ first on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import time

from data.console import Parser, cli, one_line
from data.prepare import DataRecipe
from data.workspace import Workspace
from hub.card import write_card
from hub.checkpoints import newest_complete, publish, rewind
from hub.metrics import append_sample, read_samples
from hub.runs import Run
from training import setup
from training.evaluate import grammar_of, sample_texts
from training.loop import Job, train
from training.recipe import TrainRecipe, build_recipe, fields_help, find_recipe, merge, parse_flags, read_recipe

SAMPLES = 3  # texts kept and printed at the end of a run
STORIES = 100  # sampled where the corpus has a grammar that can judge them
SAMPLING = {"temperature": 1.0}  # the model's own distribution, nothing cut off
STOPPED = 130  # exit code after Ctrl-C, as shells have it


def main() -> int:
    parser = Parser(
        prog="accelerate launch training/pretrain.py",
        description="Train a language model from nothing. Without flags: a GPT of 1 M parameters that writes "
        "children's stories, in minutes on a laptop's CPU.",
        epilog="recipe flags, each also a key of a recipe file:\n"
        + fields_help(DataRecipe, "data")
        + "\n  --model.preset, any field of the model's configuration, or --model.model_type llama|qwen3|gpt2|...\n"
        + fields_help(TrainRecipe, "train")
        + "\n\nexample:\n  accelerate launch training/pretrain.py --data.corpus my_folder --train.steps 2000",
    )
    parser.add_argument("--recipe", metavar="NAME|FILE", help="a shipped or saved recipe, or a YAML file")
    parser.add_argument("--run-name", metavar="NAME", help="what to call the run (default: its corpus)")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run from its newest complete checkpoint")
    parser.add_argument("--force", action="store_true", help="resume although model code or libraries changed")
    parser.add_argument("--workspace", metavar="DIR", help="where everything made is kept (default: ./workspace)")
    arguments, flags = parser.parse_known_args()
    workspace, given = Workspace(arguments.workspace), parse_flags(flags)
    if arguments.resume:
        return resume(Run.open(workspace, arguments.resume), workspace, given, arguments.force)
    layers = [read_recipe(find_recipe(arguments.recipe, workspace))] if arguments.recipe else []
    return start(merge(*layers, given), workspace, arguments.run_name)


def start(parts: dict, workspace: Workspace, name: str | None) -> int:
    """A new run from a recipe's parts."""
    recipe = build_recipe(parts)
    workspace.room("runs")  # a workspace that cannot be written is said before anything is computed
    recipe.train, accelerator = setup.set_machine(recipe.train)
    data = setup.make_data(recipe, workspace, accelerator)
    recipe = setup.resolve(recipe, data)
    model = setup.make_model(recipe, data)
    run = setup.make_run(recipe, data, workspace, name or data.corpus.name, sys.argv, accelerator)
    with setup.lock(run, accelerator):
        return finish(setup.make_job(recipe, data, run, model, accelerator))


def resume(run: Run, workspace: Workspace, given: dict, force: bool) -> int:
    """Go on from the newest complete checkpoint, to the same bits as if never stopped."""
    parts = merge(read_recipe(run.path / "recipe.yaml"), given)
    recipe = build_recipe(parts)
    recipe.train, accelerator = setup.set_machine(recipe.train)
    with setup.lock(run, accelerator):
        checkpoint, passed_over = newest_complete(run)
        for reason in passed_over:
            accelerator.print(f"passed over: {reason}")
        data = setup.make_data(recipe, workspace, accelerator)
        recipe = setup.resolve(recipe, data)
        model = setup.make_model(recipe, data)
        if checkpoint is not None:
            setup.check_same(run, data, model, checkpoint, force)
            model = setup.load_weights(model, checkpoint)
        if accelerator.is_main_process:
            rewind(run, checkpoint)
            if checkpoint is not None:
                publish(run, checkpoint)  # the process may have died between the two
        accelerator.print(f"resuming {run.id} from {checkpoint.name if checkpoint else 'its beginning'}")
        return finish(setup.make_job(recipe, data, run, model, accelerator), checkpoint)


def finish(job: Job, checkpoint: Path | None = None) -> int:
    """Train to the end, judge the result, write the card, and say what there is now."""
    run, main_process = job.run, job.accelerator.is_main_process
    if main_process:
        run.start_process()
        run.update(model=setup.count_parameters(job.model))
        announce(job)
    started = time.perf_counter()
    try:
        status = train(job, checkpoint)
        seconds = time.perf_counter() - started
        result = judge(job) if status == "completed" and main_process else {}
    except BaseException as error:
        if main_process:
            run.finish("failed", error=one_line(error))
            run.log(f"failed: {one_line(error)}")
        raise
    if main_process:
        run.finish(status, result={**result, "seconds": round(seconds, 1)})
        run.log(f"{status} after {seconds:.0f} s")
        write_card(run)
        print(summary(run, job) if status == "completed" else f"stopped and saved; go on with: {run.resume_command()}")
    return 0 if status == "completed" else STOPPED


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
    result = job.evaluator.report(job.model)
    accepts = grammar_of(job.evaluator.corpus)
    count = STORIES if accepts else SAMPLES
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
            f"(95 % interval {low:.4f} to {high:.4f}, {result['documents']:,} whole stories)"
        )
    if "accepted" in result:
        lines.append(f"{result['accepted']} of {result['accepted_of']} sampled stories are whole by the grammar")
    lines.append(
        f"\nthe model is in {run.path}; its card is README.md there. Open it anywhere:\n"
        "  from transformers import AutoModelForCausalLM\n"
        f'  model = AutoModelForCausalLM.from_pretrained("{run.path}", trust_remote_code=True)\n'
        f"or let it write:\n  python -m interpret.generate {run.id} --prompt 'One sunny day,'"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    cli(main)
