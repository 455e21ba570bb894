"""Train a model from nothing: `accelerate launch training/pretrain.py`, or `python -m training.pretrain`.

May import `hub` and `data`. Reads the command line, starts or resumes a run, and says what came out.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__" and not __package__:  # run as a script, Python puts training/ first on the path
    sys.path[0] = str(Path(__file__).resolve().parents[1])


from data.console import Parser, cli
from data.prepare import DataRecipe
from data.workspace import Workspace
from hub.card import write_card
from hub.checkpoints import newest_complete, publish, rewind, verify
from hub.launch import how_to_reach, launch
from hub.runs import Run
from training import preflight, setup
from training.fork import beginning, check_steps, forked_recipe, open_checkpoint
from training.launch import create
from training.launch import start as start_detached
from training.listener import attend
from training.loop import Job, train
from training.outcome import announce, diagnosis, judge, summary
from training.recipe import TrainRecipe, build_recipe, fields_help, find_recipe, merge, parse_flags, read_recipe

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
    parser.add_argument(
        "--init-from", metavar="MODEL[@REVISION]", help="a new run with the weights of a run, a folder or a Hub model"
    )
    parser.add_argument("--check", action="store_true", help="do the checks of a new run and nothing else")
    parser.add_argument("--json", action="store_true", help="with --check: print the result for programs")
    parser.add_argument("--run-name", metavar="NAME", help="what to call the run (default: its corpus)")
    parser.add_argument("--detach", action="store_true", help="leave it to a process of its own, and return at once")
    parser.add_argument("--force", action="store_true", help="resume although model code or libraries changed")
    parser.add_argument("--workspace", metavar="DIR", help="where everything made is kept (default: ./workspace)")
    arguments, flags = parser.parse_known_args()
    if arguments.init_from and (arguments.resume or arguments.fork):
        raise ValueError("--init-from begins a new run: it goes with neither --resume nor --fork, which have weights")
    workspace, given = Workspace(arguments.workspace), parse_flags(flags)
    if arguments.check:
        return check(arguments, given, workspace)
    if arguments.detach:
        return detach(arguments, given, workspace)
    if arguments.resume:
        return resume(Run.open(workspace, arguments.resume), workspace, given, arguments.force)
    if arguments.fork:
        return fork(arguments.fork, given, workspace, arguments.run_name)
    parts = recipe_parts(arguments, given, workspace)
    if arguments.init_from:
        return initialise(arguments.init_from, parts, workspace, arguments.run_name)
    return start(parts, workspace, arguments.run_name)


def recipe_parts(arguments, given: dict, workspace: Workspace) -> dict:
    """The recipe file's parts, if one is named, and the flags over them."""
    layers = [read_recipe(find_recipe(arguments.recipe, workspace))] if arguments.recipe else []
    return merge(*layers, given)


def check(arguments, given: dict, workspace: Workspace) -> int:
    """The checks alone, of a new run or a fork."""
    if arguments.resume or arguments.init_from or arguments.detach:
        raise ValueError("--check looks at a new run or a fork: leave --resume, --init-from and --detach out")
    parts = given if arguments.fork else recipe_parts(arguments, given, workspace)
    return preflight.check_alone(parts, workspace, arguments.fork, arguments.json)


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
        parts = recipe_parts(arguments, given, workspace)
        run = start_detached(parts, workspace, arguments.run_name, base=arguments.init_from)
    print(how_to_reach(run))
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


def initialise(ref: str, parts: dict, workspace: Workspace, name: str | None) -> int:
    """A new run with another model's weights, in this process."""
    _, accelerator = setup.set_machine(build_recipe(parts).train)
    run = setup.once(lambda: create(parts, workspace, name, base=ref), workspace, accelerator)
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
    begun, inputs = beginning(run), run.info()["inputs"]
    if checkpoint is None and begun is not None:
        verify(begun)
        passed_over.pop()  # the oldest one, where the run began: the optimizer of those weights was left behind
    for reason in passed_over:
        say(f"passed over: {reason}")
    if begun is not None and checkpoint in (None, begun):
        fresh = "" if checkpoint else "; the optimizer starts afresh"
        say(f"{run.id} {origin(inputs)}{fresh}")
    elif "corpus" in inputs:  # a launched run that begins has nothing to resume
        say(f"resuming {run.id} from {checkpoint.name if checkpoint else 'its beginning'}")
    return checkpoint or begun


def origin(inputs: dict) -> str:
    """Where a run's first weights are from, in words."""
    if parent := inputs.get("parent"):
        return f"goes on from {parent['run']}@{parent['revision']}"
    base = inputs["base"]
    return f"begins with the weights of {'@'.join(filter(None, (base['id'], base['revision'])))}"


def finish(job: Job, checkpoint: Path | None = None) -> int:
    """Train to the end, judge the result, write the card, and say what there is now."""
    run, main_process = job.run, job.accelerator.is_main_process
    if main_process:
        run.start_process()
        run.update(model=setup.count_parameters(job.model))
        announce(job)
    preflight.begin(job, checkpoint)
    spending = preflight.Spent(job.recipe.device)
    status = train(job, checkpoint)
    spent = spending.so_far()
    seconds = spent["seconds"]
    if main_process:
        result = judge(job) if status == "completed" else {}
        run.finish(status, result={**result, "seconds": round(seconds, 1)})
        run.log(f"{status} after {seconds:.0f} s")
        if status == "completed" and checkpoint in (None, beginning(run)):
            preflight.conclude(run, spent)
        write_card(run)
        print(summary(run, job) if status == "completed" else f"stopped and saved; go on with: {run.resume_command()}")
        if status == "completed":
            diagnosis(job)
    return 0 if status == "completed" else STOPPED


if __name__ == "__main__":
    cli(main)
