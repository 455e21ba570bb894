"""`python -m training.pipeline --recipe R`: tokenizer, tokens, training, evaluation, card, in stages.

May import `hub` and `data`. A pipeline is a folder `pipelines/<name>-<6 hex>/` of the workspace with a folder for each
stage, whose run.json says how it stands, when it ran, and what it took and made, by name and content hash. The work is
done by the same functions as everywhere; what was made before is found, not made again.
"""

import json
import secrets
import sys
from pathlib import Path

from data.console import Parser, cli, nearest, one_line
from data.workspace import Workspace, check_name, write_json
from hub.process import now
from hub.runs import Run
from training.jobs import STOPPED, make_job, open_job
from training.launch import check, command_words, default_name_of, located
from training.listener import attend
from training.pipeline_stages import STAGES, Work
from training.recipe import build_recipe, find_recipe, merge, parse_flags, read_recipe

ROOM = "pipelines"
WAITING, SKIPPED = "waiting", "skipped"  # statuses of a stage besides those of a run


def make(
    parts: dict, workspace: Workspace, skip: tuple[str, ...] = (), run: str | None = None, name: str | None = None
) -> Run:
    """A new pipeline's folder, checked and not started.

    Args:
        parts: a recipe's.
        skip: stages to leave out; what they would make has to be there already.
        run: the run that is evaluated and described where training is skipped, by id, name or `latest`.

    Raises ValueError, with nothing left behind, for whatever can be known to be wrong without doing the work.
    """
    parts = located(parts, workspace)
    recipe = build_recipe(parts)
    check(recipe, workspace)
    for stage in skip:
        if stage not in STAGES:
            raise ValueError(f"there is no stage {stage!r}; {nearest(stage, STAGES)}")
    needed = [stage for stage in ("evaluation", "card") if stage not in skip]
    if ("training" in skip) == (run is None) and (run is not None or needed):
        raise ValueError("--skip training goes with --run RUN (or latest), the run that is evaluated in its place")
    given = Run.open(workspace, run).id if run else None  # `latest` is who it is now
    name = check_name(name or default_name_of(recipe.data.corpus, workspace), "pipeline name")
    command = command_words(parts, name)
    command[2] = "training.pipeline"

    def fill(folder: Path) -> None:
        (folder / "recipe.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
        for number, stage in enumerate(STAGES, 1):
            place = folder / f"{number}-{stage}"
            place.mkdir()
            write_json(place / "run.json", stage_record(stage, SKIPPED if stage in skip else WAITING, given))

    return make_job(workspace.room(ROOM) / f"{name}-{secrets.token_hex(3)}", "pipeline", command, fill)


def stage_record(stage: str, status: str, run: str | None) -> dict:
    """A stage's run.json before anything was done. `run` stands in for what a skipped training would have made."""
    return {
        "stage": stage, "status": status, "created_at": now(), "started_at": None, "ended_at": None,
        "inputs": {}, "outputs": {"run": {"id": run}} if run and stage == "training" else {}, "result": {},
        "process": {}, "progress": {}, "error": None,
    }  # fmt: skip


def stages_of(job: Run) -> dict[str, Run]:
    """Each stage's folder, in order; as with runs, `info` is its record and `status` how it stands."""
    return {path.name.partition("-")[2]: Run(path) for path in sorted(job.path.glob("[0-9]-*"))}


def report(job: Run) -> dict:
    """The pipeline and its stages as plain values."""
    stages = []
    for stage in stages_of(job).values():
        info = stage.info()
        kept = ("started_at", "ended_at", "inputs", "outputs", "result", "error")
        stages.append({"stage": info["stage"], "status": stage.status, **{name: info[name] for name in kept}})
    return {"pipeline": job.id, "status": job.status, "stages": stages}


def carry_out(job: Run, workspace: Workspace) -> None:
    """Do the stages that are not done, in order. Raises ValueError that names the one that failed."""
    with job.lock(), attend(job):
        job.start_process()
        recipe = build_recipe(read_recipe(job.path / "recipe.yaml"))
        stages = stages_of(job)
        work = Work(job.id, recipe, workspace, stages["training"])
        for number, (name, stage) in enumerate(stages.items(), 1):
            job.heartbeat({"step": number - 1, "steps": len(stages), "phase": name})
            if stage.info()["status"] not in ("completed", SKIPPED):
                carry_out_stage(name, stage, work, job)
            else:
                print(f"{number}/{len(stages)} {name}: {stage.info()['status']}", file=sys.stderr)
        job.finish("completed")


def carry_out_stage(name: str, stage: Run, work: Work, job: Run) -> None:
    """One stage, its record kept true whatever happens to it."""
    print(f"{list(STAGES).index(name) + 1}/{len(STAGES)} {name} …", file=sys.stderr)
    stage.update(status="running", started_at=now(), ended_at=None, error=None, process=job.info()["process"])
    try:
        inputs, outputs, result = STAGES[name](work)
    except KeyboardInterrupt:
        stage.update(status="interrupted", ended_at=now())
        raise
    except Exception as error:
        said = one_line(error)
        stage.update(status="failed", ended_at=now(), error=said)
        raise ValueError(f"stage {name} of pipeline {job.id} failed: {said}; {go_on(job)}") from error
    stage.update(status="completed", ended_at=now(), inputs=inputs, outputs=outputs, result=result)


def go_on(job: Run) -> str:
    return f"go on with: {job.resume_command()}"


def show(found: dict) -> str:
    """For the terminal: a line for each stage."""
    lines = [f"pipeline {found['pipeline']}: {found['status']}"]
    for one in found["stages"]:
        made = ", ".join(
            " ".join(filter(None, (kind, item.get("name") or item.get("id"), (item.get("sha256") or "")[:12])))
            for kind, item in one["outputs"].items()
        )
        figures = ", ".join(f"{name} {value:.4f}" for name, value in one["result"].items() if isinstance(value, float))
        lines.append(f"  {one['stage']:<11}{one['status']:<13}{one['error'] or figures or made}")
    return "\n".join(lines)


def main() -> int:
    parser = Parser(
        prog="python -m training.pipeline",
        description=f"Everything from a text to a described model, in stages: {', '.join(STAGES)}.",
        epilog="recipe flags (--data.… --model.… --train.…) are those of training.pretrain\n\nexamples:\n"
        "  python -m training.pipeline --recipe shakespeare --train.steps 500\n"
        "  python -m training.pipeline --skip tokenizer --skip tokens --skip training --run latest\n"
        "  python -m training.pipeline --resume latest",
    )
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--recipe", metavar="NAME|FILE", help="a shipped or saved recipe, or a YAML file")
    begin.add_argument("--resume", metavar="PIPELINE", help="go on with one, by its id, its name or `latest`")
    parser.add_argument("--skip", action="append", default=[], metavar="STAGE", help=f"leave out {' | '.join(STAGES)}")
    parser.add_argument("--run", metavar="RUN", help="with --skip training: the run to evaluate and describe")
    parser.add_argument("--run-name", metavar="NAME", help="what to call pipeline and run (default: the corpus)")
    parser.add_argument("--json", action="store_true", help="print the result for programs")
    parser.add_argument("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    given, flags = parser.parse_known_args()
    workspace, parts = Workspace(given.workspace), parse_flags(flags)
    if given.resume:
        if parts or given.skip or given.run or given.run_name:
            raise ValueError("--resume goes on with a pipeline as it is: leave the other flags out, or start a new one")
        job = open_job(workspace, ROOM, given.resume)
    else:
        layers = [read_recipe(find_recipe(given.recipe, workspace))] if given.recipe else []
        job = make(merge(*layers, parts), workspace, tuple(given.skip), given.run, given.run_name)
    try:
        carry_out(job, workspace)
    except KeyboardInterrupt:
        print(f"stopped and saved; {go_on(job)}", file=sys.stderr)
        return STOPPED
    print(json.dumps(report(job), indent=2, ensure_ascii=False) if given.json else show(report(job)))
    return 0


if __name__ == "__main__":
    cli(main)
