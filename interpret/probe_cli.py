"""The command of `python -m interpret.probe`: accuracy by layer with its interval, and what it is measured against.

May import `hub` and `data`; of ours here `interpret.probe`, `probe_sets` and `figures`.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from data.workspace import Workspace
from hub.models import open_model
from hub.registry import table
from interpret.figures import command_line, default_path, save, view_parser
from interpret.probe import SITES, Probes, Score, probe
from interpret.probe_sets import ProbeSet, open_set
from interpret.probe_templates import TEMPLATES

KINDS = {  # what is drawn: its name, and its line
    "real": ("the labels", {"color": "C0", "marker": "o"}),
    "control": ("control task", {"color": "C1", "marker": "s"}),
    "shuffled": ("shuffled labels", {"color": "C7", "marker": "."}),
}
SETS = "\n".join(f"  {name:<12} {question}" for name, (question, _) in TEMPLATES.items())


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    labelled = open_set(given.set, given.seed)
    model, tokenizer = open_model(given.run, workspace)
    found = probe(model, tokenizer, labelled, given.site, given.layers, given.seed, bar)
    saved = save(
        draw(found, labelled, given.site), numbers_of(found), command_line("interpret.probe", arguments),
        given.out or default_path(workspace, "probe", given.run, f"{labelled.name}-{given.site}"),
    )  # fmt: skip
    if given.json:
        print(json.dumps(record_of(given, found, *saved), indent=2, ensure_ascii=False))
        return 0
    print(f"{labelled.name}: {labelled.question}")
    print(show(found))
    if found.note:
        print(found.note)
    print(f"\n{saved.lines}")
    return 0


def parse(arguments: list[str] | None):
    parser = view_parser(
        "probe",
        "Read labels off a model's activations, layer by layer, by linear probes that are judged on texts they have "
        "not seen, beside a control task and shuffled labels.\n\nlabelled sets that come with the lab:\n" + SETS,
        "  python -m interpret.probe latest --set number\n"
        "  python -m interpret.probe Qwen/Qwen3-0.6B --set sentiment --site mlp_out --layers 0,7,14,21\n"
        "  python -m interpret.probe latest@best --set my_labels.csv --json   # text,label or text,start,end,label",
        prompt=False,
    )
    add = parser.add_argument
    add("--set", metavar="NAME|FILE", required=True, help="a set from the list above, or a .csv or .jsonl file")
    add("--site", metavar="SITE", default="resid_post", help=f"{', '.join(SITES)} (default: resid_post)")
    add("--layers", metavar="0,1,…", type=numbers_from, help="only these layers (default: all)")
    add("--seed", metavar="N", type=int, default=0, help="of the texts, the split and the random labels (default: 0)")
    return parser.parse_args(arguments)


def numbers_from(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def bar(names: list[str]) -> tqdm:
    return tqdm(names, "probing", unit="site", leave=False, disable=None)


def draw(found: Probes, labelled: ProbeSet, site: str) -> Figure:
    """Accuracy by layer, each with its interval."""
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axis = figure.subplots()
    for kind, (name, line) in KINDS.items():
        at = [(probed.layer, score) for probed in found.layers if (score := getattr(probed, kind)) is not None]
        if at:
            layers, scores = zip(*at, strict=True)
            around = [[max(score.accuracy - score.low, 0), max(score.high - score.accuracy, 0)] for score in scores]
            axis.errorbar(
                layers, [score.accuracy for score in scores], np.array(around).T, label=name, capsize=2, **line
            )
    axis.axhline(found.layers[0].real.majority, color="C7", linestyle=":", label="always the commonest label")
    axis.set(xlabel=f"layer ({site}; −1: what enters the first)", ylabel="held-out accuracy", ylim=(0, 1.03))
    axis.set_xticks([probed.layer for probed in found.layers] if len(found.layers) <= 32 else axis.get_xticks())
    axis.set_title(labelled.question, fontsize=9)
    axis.legend(fontsize=8, loc="lower right")
    return figure


def numbers_of(found: Probes) -> dict[str, np.ndarray]:
    """Everything that the figure shows; where there is no control task, NaN."""
    columns = {"layers": np.array([probed.layer for probed in found.layers])}
    columns |= {"sites": np.array([probed.site for probed in found.layers]), "labels": np.array(found.labels)}
    for kind in KINDS:
        for field in ("accuracy", "low", "high", "majority", "penalty"):
            values = [getattr(getattr(probed, kind), field, np.nan) for probed in found.layers]
            columns[f"{kind}_{field}"] = np.array(values)
    return columns


def show(found: Probes) -> str:
    """A line a layer."""
    rows = [["layer", "accuracy", "95 % interval", "control", "selectivity", "shuffled", "commonest"]]
    for probed in found.layers:
        rows.append(cells(probed))
    counts = f"{found.fitted} examples to fit, {found.held_out} held out; labels: {', '.join(found.labels)}"
    return f"{table(rows)}\n\n{counts}"


def cells(probed) -> list[str]:
    """One layer's numbers as words; selectivity is in points of percent."""
    real, control = probed.real, probed.control
    return [
        "enters" if probed.layer < 0 else str(probed.layer),
        f"{real.accuracy:.1%}",
        f"{real.low:.1%} to {real.high:.1%}",
        "" if control is None else f"{control.accuracy:.1%}",
        "" if control is None else f"{100 * probed.selectivity:+.1f}",
        f"{probed.shuffled.accuracy:.1%}",
        f"{real.majority:.1%}",
    ]


def record_of(given, found: Probes, figure: Path, numbers: Path) -> dict:
    """What was measured, for programs."""
    return {
        "model": given.run,
        "set": given.set,
        "site": given.site,
        "labels": found.labels,
        "fitted": found.fitted,
        "held_out": found.held_out,
        "layers": by_layer(found),
        "note": found.note,
        "figure": str(figure),
        "numbers": str(numbers),
    }


def by_layer(found: Probes) -> list[dict]:
    return [
        {
            "layer": probed.layer,
            "site": probed.site,
            "accuracy": round(probed.real.accuracy, 4),
            "interval": interval(probed.real),
            "control": None if probed.control is None else round(probed.control.accuracy, 4),
            "selectivity": None if probed.control is None else round(probed.selectivity, 4),
            "shuffled": round(probed.shuffled.accuracy, 4),
            "majority": round(probed.real.majority, 4),
        }
        for probed in found.layers
    ]


def interval(score: Score) -> list[float]:
    return [round(score.low, 4), round(score.high, 4)]
