"""The command of `python -m interpret.timeline`: points measured with an ETA, a figure, the numbers, and what happened.

May import `hub` and `data`; of ours here `interpret.timeline`, `timeline_figure` and `figures`.
"""

import json
import sys

from tqdm import tqdm

from data.workspace import Workspace
from hub.registry import table
from hub.runs import Run
from interpret.figures import command_line, default_path, save, view_parser
from interpret.timeline import Timeline, collect, compute, default_texts, formed, missing, revisions
from interpret.timeline_figure import draw, numbers_of
from interpret.timeline_measure import SINGLE, Settings

ROWS = 12  # of the table: the first and the last point, and as many between as fit


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    run = Run.open(workspace, given.run.partition("@")[0])  # all revisions, whichever is named
    texts = tuple(given.prompt) if given.prompt else default_texts(run, workspace)
    settings = Settings.of(texts, given.without, given.probe)
    paths = revisions(run, given.every)
    wanted = missing(run, settings, paths)
    measured = tqdm(compute(run, settings, paths), "measuring", len(wanted), unit="checkpoint", disable=not wanted)
    try:
        for path in measured:
            measured.set_postfix_str(path.name)
    except KeyboardInterrupt:
        measured.close()
        done = len(paths) - len(missing(run, settings, paths))
        print(f"{done} of {len(paths)} points are kept; the same command goes on from there", file=sys.stderr)
        raise
    timeline = collect(run, settings, paths)
    out = given.out or default_path(workspace, "timeline", run.id)
    saved = save(draw(timeline), numbers_of(timeline), command_line("interpret.timeline", arguments), out)
    if given.json:
        print(json.dumps(record(timeline, settings, *saved), indent=2, ensure_ascii=False))
        return 0
    print(show(timeline))
    print(f"\n{saved.lines}")
    return 0


def parse(arguments: list[str] | None):
    parser = view_parser(
        "timeline",
        "Follow what is inside a run's model over its checkpoints: what heads look like, how sharply they attend,\n"
        "what each layer would predict, how long the stream is, and the loss beneath. A checkpoint is measured once.",
        "  python -m interpret.timeline latest\n"
        "  python -m interpret.timeline induction --without L1H1 --out induction.png\n"
        "  python -m interpret.timeline latest --every 5 --prompt 'Tom had a red ball.' --json",
        prompt=False,
    )
    add = parser.add_argument
    add(
        "--prompt", metavar="TEXT", action="append",
        help="the text that is read at each checkpoint, once or several times (default: texts that the run held out)",
    )  # fmt: skip
    add(
        "--without", metavar="PART", nargs="+", default=[],
        help="parts such as L1H1 or L0.mlp: what repeated tokens cost when these are removed as well",
    )  # fmt: skip
    add(
        "--probe", metavar="SET", default="",
        help="fit a linear probe at each checkpoint, on a labelled set of `python -m interpret.probe` or a file",
    )  # fmt: skip
    add("--every", metavar="N", type=int, default=1, help="take each N-th checkpoint (default: 1)")
    return parser.parse_args(arguments)


def show(timeline: Timeline) -> str:
    """A few points as a table, and which heads became something."""
    steps = timeline.steps
    chosen = sorted({round(i * (len(steps) - 1) / (ROWS - 1)) for i in range(ROWS)})
    named = [name for name in SINGLE if name in timeline.values]
    rows = [["step", *(SINGLE[name][0] for name in named)]]
    rows += [[f"{steps[i]:,}", *(f"{timeline.values[name][i]:.3f}" for name in named)] for i in chosen]
    said = [
        f"{one['head']} is a{'n' if one['kind'][0] in 'aeiou' else ''} {one['kind']} head from step {one['step']:,} on "
        f"(score {one['score']:.2f} at the end)"
        for one in formed(timeline)
    ]
    heads = "\n".join(said or ["no head has become one of a known kind"])
    return f"{table(rows)}\n\nlosses in nats per token, on random tokens that are repeated once\n\n{heads}"


def record(timeline: Timeline, settings: Settings, figure, numbers) -> dict:
    """Everything that was measured, for a program."""
    return {
        "run": timeline.run,
        "texts": list(settings.texts),
        "without": list(settings.without),
        "probe": settings.probe,
        "layers": timeline.layers,
        "steps": timeline.steps,
        "formed": formed(timeline),
        "values": {name: values.round(6).tolist() for name, values in timeline.values.items()},
        "figure": str(figure),
        "numbers": str(numbers),
    }
