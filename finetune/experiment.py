"""What the four experiments on fine-tuning share: what one is, its folder, how it is carried out, and its command.

May import `training`, `hub` and `data`. An experiment is a folder `experiments/<name>-<6 hex>/` of the workspace, the
digits being those of its plan. Killed at any moment and started again it repeats no finished run.
"""

import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from matplotlib.figure import Figure

from data.console import Parser
from data.workspace import Workspace, one_maker, write_atomic
from finetune.experiment_plan import SEEDS, Plan, Setting, check_plan, shared_parts
from finetune.experiment_results import REPORT, RESULTS, collect
from finetune.experiment_runs import Measure, Work
from hub.launch import OUTPUT, launch
from hub.runs import Run
from training.jobs import STOPPED, make_job, open_job
from training.listener import attend
from training.recipe import parse_flags

ROOM, FILE = "experiments", "plan.yaml"
NAMES = ("loss_curve", "learning_rate", "lora_rank", "forgetting")


@dataclass(frozen=True)
class Experiment:
    """One of the four.

    Args:
        name: its module's.
        question: what is asked, in a sentence.
        settings: from the recipe parts that all share, and the options.
        findings: from the results so far, what follows: `conclusion`, one sentence with its numbers; `tables`, as
            `finetune.experiment_report.table` makes them; and numbers for the figures.
        figures: from the results, name to (figure, caption).
        limits: what it does not show, sentences.
        options: flags of its own, each with its help; their values are texts, None where not given.
        adjust: from what all settings share, further recipe parts, under those that the user gave.
        measure: what is looked at in each finished run besides its losses.
    """

    name: str
    title: str
    question: str
    settings: Callable[[dict, dict], list[Setting]]
    findings: Callable[[dict], dict]
    figures: Callable[[dict], dict[str, tuple[Figure, str]]]
    limits: tuple[str, ...]
    options: Mapping[str, str] | None = None
    adjust: Callable[[dict], dict] = lambda parts: {}
    measure: Measure | None = None

    def plan(
        self,
        base: str | None = None,
        data: str | None = None,
        seeds: int = SEEDS,
        given: dict | None = None,
        **options: str | None,
    ) -> Plan:
        """What is to be trained. Raises ValueError for what cannot be.

        Args:
            base: None: the lab's own small Qwen3; it is trained first where the workspace has none.
            data: a source of examples; None: the default one.
            given: recipe parts that hold for all settings.
        """
        options = {flag: options.get(flag) for flag in self.options or ()}
        parts = shared_parts(base, data, given or {}, self.adjust)
        settings = tuple(self.settings(parts, options | {"base": base}))
        return check_plan(Plan(self.name, base, data, given or {}, options, tuple(range(seeds)), parts, settings))


def experiment_of(name: str) -> Experiment:
    """One of NAMES, whose modules import this one."""
    return import_module(f"finetune.{name}").EXPERIMENT


@one_maker(lambda plan, **_: plan.id)
def find_or_make(plan: Plan, workspace: Workspace) -> Run:
    """The experiment's folder."""
    path = workspace.room(ROOM) / plan.id
    if (path / "run.json").is_file():
        return Run(path)
    return make_job(path, "experiment", plan.command, lambda folder: write_atomic(folder / FILE, plan.to_yaml()))


def plan_of(job: Run) -> Plan:
    """What an experiment's folder was made for."""
    return Plan.from_yaml((job.path / FILE).read_text(encoding="utf-8"))


def start(plan: Plan, workspace: Workspace) -> Run:
    """Leave the experiment to a process of its own; one that was interrupted goes on."""
    job = find_or_make(plan, workspace)
    launch(job, workspace)
    return job


def carry_out(job: Run, workspace: Workspace) -> dict:
    """Train what is not finished, one run after another; returns the results. Ctrl-C saves and stops."""
    with job.lock(), attend(job):
        job.start_process()
        plan = plan_of(job)
        experiment = experiment_of(plan.experiment)
        work = Work(job, plan, workspace, experiment.measure, lambda: collect(job, experiment, plan, work.runs))
        work.carry_out()
        found = collect(job, experiment, plan, work.runs)
        job.finish("completed", {"finished": found["finished"], "conclusion": found["conclusion"]})
    return found


def publish(job: Run, out: Path) -> None:
    """The report with its figures and numbers in a folder of their own."""
    out.mkdir(parents=True, exist_ok=True)
    for path in (job.path / REPORT, job.path / RESULTS, *job.path.glob("*.png")):
        shutil.copy(path, out / path.name)


def parser_of(experiment: Experiment) -> Parser:
    """The command's arguments."""
    parser = Parser(
        prog=f"python -m finetune.{experiment.name}",
        description=f"{experiment.question} Trains several settings, each with several seeds, and writes a report. "
        "Started again, it goes on: what is finished is not repeated. Recipe flags (--data.… --model.… --train.…) hold "
        "for all settings.",
        epilog=f"examples:\n  python -m finetune.{experiment.name}\n"
        f"  python -m finetune.{experiment.name} --base Qwen/Qwen2.5-7B-Instruct --data alpaca --train.steps 500",
    )
    add = parser.add_argument
    add("--base", metavar="MODEL", help="a run, a folder, a Hub id (default: the lab's own small Qwen3, trained first)")
    add("--data", metavar="SOURCE", help="examples: a built-in set, a file, a Hub id (default: stories)")
    add("--seeds", metavar="N", type=int, default=SEEDS, help=f"runs of each setting (default: {SEEDS})")
    for flag, help_text in (experiment.options or {}).items():
        add(f"--{flag}", metavar=flag.upper(), help=help_text)
    add("--out", metavar="DIR", type=Path, help="put the report, its figures and numbers there as well")
    add("--resume", metavar="ID", help="go on with one, by its id, its name or `latest`")
    add("--detach", action="store_true", help="leave it to a process of its own, and return at once")
    add("--json", action="store_true", help="print the results for programs")
    add("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    return parser


def run_command(experiment: Experiment, parser: Parser) -> int:
    """The command of one of the four."""
    given, flags = parser.parse_known_args()
    workspace = Workspace(given.workspace)
    if given.resume:
        job = open_job(workspace, ROOM, given.resume)
        if plan_of(job).experiment != experiment.name:
            raise ValueError(f"{job.id} is another experiment; go on with: {job.resume_command()}")
    else:
        options = {flag: getattr(given, flag) for flag in experiment.options or ()}
        plan = experiment.plan(given.base, given.data, given.seeds, parse_flags(flags), **options)
        job = find_or_make(plan, workspace)
    if given.detach:
        launch(job, workspace)
        print(f"experiment {job.id} is in a process of its own; follow: tail -f {shlex.quote(str(job.path / OUTPUT))}")
        return 0
    print(f"experiment {job.id} in {job.path}", file=sys.stderr)
    try:
        found = carry_out(job, workspace)
    except KeyboardInterrupt:
        print(f"stopped and saved; go on with: {job.resume_command()}", file=sys.stderr)
        return STOPPED
    if given.out:
        publish(job, given.out)
    report = (job.path / REPORT).read_text(encoding="utf-8")
    print(json.dumps(found, indent=2, ensure_ascii=False) if given.json else report)
    return 0
