"""Adapt a model to examples: `python -m finetune.qlora --base MODEL --data FILE`.

May import `training`, `hub` and `data`. QLoRA (arXiv:2305.14314): the base's weights are kept in 4 bits and never
change; what is learnt is a low-rank adapter. The loop, the run's folder and its control are those of any training.
"""

from pathlib import Path

from accelerate import Accelerator

from data.console import Parser, cli
from data.workspace import Workspace
from finetune import setup
from finetune.launch import command_words, default_name
from finetune.launch import start as start_detached
from finetune.outcome import announce, judge, summary
from finetune.preview import check_before
from finetune.recipe import PARTS, FinetuneRecipe, build_recipe, find_recipe
from hub.card import write_card
from hub.checkpoints import newest_complete, publish, rewind
from hub.launch import how_to_reach, launch
from hub.runs import Run
from training import preflight
from training.listener import attend
from training.loop import Job, train
from training.pretrain import STOPPED
from training.recipe import fields_help, merge, parse_flags, read_recipe
from training.setup import alone, once, set_machine

TOLD = """examples:
  python -m finetune.qlora --base latest --data stories
  python -m finetune.qlora --base Qwen/Qwen2.5-7B-Instruct --data alpaca --train.precision bf16
  python -m finetune.qlora --base Qwen/Qwen3-0.6B --data chats.jsonl --preview
  python -m finetune.qlora --resume latest"""


def main() -> int:
    parser = Parser(
        prog="python -m finetune.qlora",
        description="Adapt a model to examples with QLoRA: a low-rank adapter on a base in 4 bits.",
        epilog="recipe flags, each also a key of a recipe file:\n"
        + "\n".join(fields_help(cls, name) for name, cls in PARTS.items())
        + f"\n\n{TOLD}",
    )
    parser.add_argument("--base", metavar="MODEL", help="the model to adapt: a run, a folder, a Hub id")
    parser.add_argument("--data", metavar="SOURCE", help="examples: a file of JSON lines, a Hub id, a built-in set")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--recipe", metavar="NAME|FILE", help="a shipped or saved recipe, or a YAML file")
    begin.add_argument("--resume", metavar="RUN", help="go on with a run from its newest complete checkpoint")
    parser.add_argument("--preview", action="store_true", help="look at examples, lengths and memory; train nothing")
    parser.add_argument("--json", action="store_true", help="with --preview: print it for programs")
    parser.add_argument("--run-name", metavar="NAME", help="what to call the run (default: its examples)")
    parser.add_argument("--detach", action="store_true", help="leave it to a process of its own, and return at once")
    parser.add_argument("--force", action="store_true", help="resume although libraries changed")
    parser.add_argument("--workspace", metavar="DIR", help="where everything made is kept (default: ./workspace)")
    arguments, flags = parser.parse_known_args()
    workspace, given = Workspace(arguments.workspace), parse_flags(flags)
    given = merge(given, named(arguments.base, arguments.data))
    if arguments.resume:
        if arguments.base or arguments.data or arguments.preview:
            raise ValueError("--resume goes on with a run's own base and data: leave --base, --data and --preview out")
        run = Run.open(workspace, arguments.resume)
        if arguments.detach:
            launch(run, workspace)
            print(how_to_reach(run))
            return 0
        return resume(run, workspace, given, arguments.force)
    layers = [read_recipe(find_recipe(arguments.recipe, workspace))] if arguments.recipe else []
    parts = merge(*layers, given)
    if arguments.preview:
        from finetune.preview_cli import show  # nothing else of it is needed here

        return show(parts, workspace, as_json=arguments.json)
    if arguments.detach:
        print(how_to_reach(start_detached(parts, workspace, arguments.run_name)))
        return 0
    return start(parts, workspace, arguments.run_name)


def named(base: str | None, data: str | None) -> dict:
    """What `--base` and `--data` stand for among a recipe's parts."""
    return {"model": {"base": base} if base else {}, "data": {"source": data} if data else {}}


def start(parts: dict, workspace: Workspace, name: str | None) -> int:
    """A new run from a recipe's parts, in this process; a mistake in them leaves nothing behind."""
    job = begin(parts, workspace, name)
    with attend(job.run), alone(job.run, workspace):
        return told(job)


def run_here(parts: dict, workspace: Workspace, name: str | None = None) -> Run:
    """Make a run and train it to its end in this process, printing nothing; for experiments. Returns it."""
    job = begin(parts, workspace, name)
    with attend(job.run), alone(job.run, workspace):
        finish(job)
    return job.run


def resume(run: Run, workspace: Workspace, given: dict, force: bool) -> int:
    """Train a run that was made, or go on from its newest complete checkpoint to the same bits as if never stopped."""
    with attend(run), alone(run, workspace):
        return told(*go_on(run, workspace, given, force))


def begin(parts: dict, workspace: Workspace, name: str | None) -> Job:
    """What the loop needs of a new run; its folder is made last."""
    recipe = build_recipe(parts)
    workspace.room("runs")  # a workspace that cannot be written is said before anything is computed
    recipe.train, accelerator = set_machine(recipe.train)
    check(recipe, workspace, accelerator)
    material = setup.gather(recipe, workspace, accelerator)
    name = name or default_name(recipe)
    recipe = setup.resolve(recipe, material)
    model = setup.make_model(recipe, material)
    command, written = command_words(parts, name), recipe.to_yaml()
    run = once(
        lambda: Run.create(workspace, name, "finetune", command, written, recipe.train.seed, material.inputs),
        workspace,
        accelerator,
    )
    return setup.make_job(recipe, material, run, model, accelerator)


def check(recipe: FinetuneRecipe, workspace: Workspace, accelerator: Accelerator) -> None:
    """Whether the base can be adapted so in this memory, before a weight of it is fetched; `train.checks` decides."""
    if recipe.train.checks == preflight.SKIP:
        return
    try:
        with accelerator.main_process_first():
            check_before(recipe, workspace, accelerator.num_processes)
    except ValueError as error:
        if recipe.train.checks == preflight.STOP:
            raise
        accelerator.print(f"warning: {error}")


def go_on(run: Run, workspace: Workspace, given: dict, force: bool) -> tuple[Job, Path | None]:
    """What the loop needs of a run that is there, and the checkpoint to go on from, None for the beginning."""
    if (kind := run.info()["kind"]) != "finetune":
        raise ValueError(f"run {run.id} is of the kind {kind}: go on with {run.resume_command()}")
    if run.is_mine():  # it was launched, and its turn has come
        run.start_process()
        run.heartbeat({"phase": "preparing data"})
    recipe = build_recipe(merge(read_recipe(run.path / "recipe.yaml"), given))
    recipe.train, accelerator = set_machine(recipe.train)
    checkpoint, passed_over = newest_complete(run)
    for reason in passed_over:
        accelerator.print(f"passed over: {reason}")
    began = run.info()["inputs"]
    if "examples" not in began:  # it was launched, and begins
        check(recipe, workspace, accelerator)
    else:
        accelerator.print(f"resuming {run.id} from {checkpoint.name if checkpoint else 'its beginning'}")
        run.check_code(force)
    material = setup.gather(recipe, workspace, accelerator, began)
    recipe = setup.resolve(recipe, material)
    model = setup.make_model(recipe, material, checkpoint)
    if accelerator.is_main_process:
        setup.complete_record(run, recipe, material)
        rewind(run, checkpoint)
        if checkpoint is not None:
            publish(run, checkpoint)  # the process may have died between the two
    return setup.make_job(recipe, material, run, model, accelerator), checkpoint


def told(job: Job, checkpoint: Path | None = None) -> int:
    """Train to the end, with a few words on what is trained and what came of it."""
    run, speaks = job.run, job.accelerator.is_main_process
    if speaks:
        announce(job)
    status = finish(job, checkpoint)
    if speaks:
        print(summary(job) if status == "completed" else f"stopped and saved; go on with: {run.resume_command()}")
    return 0 if status == "completed" else STOPPED


def finish(job: Job, checkpoint: Path | None = None) -> str:
    """Train to the end, judge the result and write the card. Returns the run's status."""
    run, main_process = job.run, job.accelerator.is_main_process
    if main_process:
        run.start_process()
        run.update(model=setup.count_parameters(job.model))
    spending = preflight.Spent(job.recipe.device)
    status = train(job, checkpoint)
    seconds = spending.so_far()["seconds"]
    if main_process:
        result = judge(job) if status == "completed" else {}
        run.finish(status, result={**result, "seconds": round(seconds, 1)})
        run.log(f"{status} after {seconds:.0f} s")
        write_card(run)
    return status


if __name__ == "__main__":
    cli(main)
