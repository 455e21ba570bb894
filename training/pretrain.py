"""Train a model from nothing: `accelerate launch training/pretrain.py`, or `python -m training.pretrain`.

May import `hub` and `data`. Reads the command line, starts or resumes a run, and says what came out.
"""

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a script, Python puts training/ first on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import time

from data.console import Parser, cli
from data.prepare import DataRecipe
from data.workspace import Workspace
from hub.card import write_card
from hub.checkpoints import newest_complete, publish, rewind, verify
from hub.launch import OUTPUT, launch
from hub.metrics import append_sample, read_samples
from hub.runs import Run
from training import setup
from training.evaluate import grammar_of, sample_texts
from training.fork import beginning, check_steps, forked_recipe, open_checkpoint
from training.launch import create
from training.launch import start as start_detached
from training.listener import attend
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
        + "\n\nexamples:\n  accelerate launch training/pretrain.py --data.corpus my_folder --train.steps 2000"
        "\n  python -m training.pretrain --fork latest@step-000400 --train.learning_rate 0.01 --detach",
    )
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--recipe", metavar="NAME|FILE", help="a shipped or saved recipe, or a YAML file")
    begin.add_argument("--resume", metavar="RUN", help="go on with a run from its newest complete checkpoint")
    begin.add_argument("--fork", metavar="RUN[@REVISION]", help="a new run from a checkpoint, with its recipe")
    parser.add_argument("--run-name", metavar="NAME", help="what to call the run (default: its corpus)")
    parser.add_argument("--detach", action="store_true", help="leave it to a process of its own, and return at once")
    parser.add_argument("--force", action="store_true", help="resume although model code or libraries changed")
    parser.add_argument("--workspace", metavar="DIR", help="where everything made is kept (default: ./workspace)")
    arguments, flags = parser.parse_known_args()
    workspace, given = Workspace(arguments.workspace), parse_flags(flags)
    if arguments.detach:
        return detach(arguments, given, workspace)
    if arguments.resume:
        return resume(Run.open(workspace, arguments.resume), workspace, given, arguments.force)
    if arguments.fork:
        return fork(arguments.fork, given, workspace, arguments.run_name)
    return start(recipe_parts(arguments, given, workspace), workspace, arguments.run_name)


def recipe_parts(arguments, given: dict, workspace: Workspace) -> dict:
    """The recipe file's parts, if one is named, and the flags over them."""
    layers = [read_recipe(find_recipe(arguments.recipe, workspace))] if arguments.recipe else []
    return merge(*layers, given)


def detach(arguments, given: dict, workspace: Workspace) -> int:
    """Start or resume in a process of its own, and say how to reach it."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("--detach starts one process: use `python -m training.pretrain`, not a launcher of several")
    if arguments.resume and (given or arguments.force):
        raise ValueError("--detach resumes a run as it is: leave recipe flags and --force out, or leave --detach out")
    if arguments.resume:
        run = Run.open(workspace, arguments.resume)
        launch(run, workspace)
    elif arguments.fork:
        run = start_detached(given, workspace, arguments.run_name, arguments.fork)
    else:
        run = start_detached(recipe_parts(arguments, given, workspace), workspace, arguments.run_name)
    where = run.workspace_flag()
    print(
        f"run {run.id} is in a process of its own; it goes on when this terminal is closed\n"
        f"  follow  tail -f {shlex.quote(str(run.path / OUTPUT))}\n"
        f"  status  python -m hub.runs show {run.id}{where}\n"
        f"  pause   python -m training.control pause {run.id}{where}\n"
        f"  stop    python -m training.control stop {run.id}{where}"
    )
    return 0


def start(parts: dict, workspace: Workspace, name: str | None) -> int:
    """A new run from a recipe's parts, in this process; a mistake in them leaves nothing behind."""
    recipe = build_recipe(parts)
    workspace.room("runs")  # a workspace that cannot be written is said before anything is computed
    recipe.train, accelerator = setup.set_machine(recipe.train)
    data = setup.make_data(recipe, workspace, accelerator)
    recipe = setup.resolve(recipe, data)
    model = setup.make_model(recipe, data)
    run = setup.make_run(recipe, data, workspace, name or data.corpus.name, sys.argv, accelerator)
    with attend(run), setup.alone(run, workspace):
        return finish(setup.make_job(recipe, data, run, model, accelerator))


def fork(ref: str, given: dict, workspace: Workspace, name: str | None) -> int:
    """A new run from another one's checkpoint, in this process."""
    parent, checkpoint = open_checkpoint(ref, workspace)
    _, accelerator = setup.set_machine(forked_recipe(parent, checkpoint, given, workspace).train)
    run = setup.once(lambda: create(given, workspace, name, ref), workspace, accelerator)
    return resume(run, workspace, {}, force=False)


def resume(run: Run, workspace: Workspace, given: dict, force: bool) -> int:
    """Go on from the newest complete checkpoint, to the same bits as if never stopped."""
    with attend(run), setup.alone(run, workspace):
        if run.is_mine():  # it was launched, and its turn has come
            run.start_process()
            run.heartbeat({"phase": "preparing data"})
        recipe = build_recipe(merge(read_recipe(run.path / "recipe.yaml"), given))
        recipe.train, accelerator = setup.set_machine(recipe.train)
        checkpoint = where_to_go_on(run, accelerator.print)
        data = setup.make_data(recipe, workspace, accelerator)
        recipe = setup.resolve(recipe, data)
        model = setup.make_model(recipe, data)
        if (begun := beginning(run)) is not None:
            check_steps(recipe.train, run.id, begun)
        if checkpoint is not None:
            setup.check_same(run, data, model, checkpoint, force)
            model = setup.load_weights(model, checkpoint)
        if accelerator.is_main_process:
            setup.complete_record(run, recipe, data)
            rewind(run, checkpoint)
            if checkpoint is not None:
                publish(run, checkpoint)  # the process may have died between the two
        return finish(setup.make_job(recipe, data, run, model, accelerator), checkpoint)


def where_to_go_on(run: Run, say: Callable[[str], object]) -> Path | None:
    """The checkpoint to train on from, None for the beginning; says which, and which ones cannot be had."""
    checkpoint, passed_over = newest_complete(run)
    begun = beginning(run)
    if checkpoint is None and begun is not None:
        verify(begun)
        passed_over.pop()  # the oldest one, where the fork began: its parent's optimizer was left behind
    for reason in passed_over:
        say(f"passed over: {reason}")
    if begun is not None and checkpoint in (None, begun):
        parent = run.info()["inputs"]["parent"]
        fresh = "" if checkpoint else "; the optimizer starts afresh"
        say(f"{run.id} goes on from {parent['run']}@{parent['revision']}{fresh}")
    elif "corpus" in run.info()["inputs"]:  # a launched run that begins has nothing to resume
        say(f"resuming {run.id} from {checkpoint.name if checkpoint else 'its beginning'}")
    return checkpoint or begun


def finish(job: Job, checkpoint: Path | None = None) -> int:
    """Train to the end, judge the result, write the card, and say what there is now."""
    run, main_process = job.run, job.accelerator.is_main_process
    if main_process:
        run.start_process()
        run.update(model=setup.count_parameters(job.model))
        announce(job)
    started = time.perf_counter()
    status = train(job, checkpoint)
    seconds = time.perf_counter() - started
    if main_process:
        result = judge(job) if status == "completed" else {}
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
    job.run.heartbeat({"phase": "evaluating"})
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
        f"or let it write:\n  python -m interpret.generate {run.id} --prompt 'One sunny day,'{run.workspace_flag()}"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    cli(main)
