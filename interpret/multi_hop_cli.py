"""The command of `python -m interpret.multi_hop`: train the worked example, probe it, and draw what came of it.

May import `data` and `hub`; of ours here `interpret.multi_hop`, `probe_cli` and `figures`.
"""

import json
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from data.console import Parser
from data.workspace import Workspace
from hub.registry import table
from interpret.figures import command_line, default_path, figure_path, save
from interpret.multi_hop import LAND, LANDS, PLACES, STEPS, TOWN, TOWNS, World, accuracy, exchanged, look, train
from interpret.probe import Probes
from interpret.probe_cli import by_layer


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    torch.set_num_threads(1)  # the model is so small that a second thread only gets in the way
    world = World.draw(given.seed)
    with tqdm(total=given.steps, desc="training", unit="step", leave=False, disable=None) as bar:

        def say(step: int, loss: float) -> None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update(step - bar.n)

        trained = train(world, given.seed, given.steps, say)
    if given.keep:
        trained.model.save_pretrained(given.keep)
        trained.tokenizer.save_pretrained(given.keep)
    right = accuracy(trained.model, world)
    probes = look(trained, world, lambda places: tqdm(places, "probing", leave=False, disable=None))
    moved = exchanged(trained.model, world, given.seed)
    found = {
        "parameters": trained.model.num_parameters(),
        "steps": given.steps,
        "right": {name: round(float(share), 4) for name, share in right.items()},
        "probes": {place: by_layer(one) for place, one in probes.items()},
        "exchanged": np.round(moved, 4).tolist(),
    }
    saved = save(
        draw(probes, moved), numbers_of(probes, moved), command_line("interpret.multi_hop", arguments),
        given.out or default_path(Workspace(given.workspace), "multi-hop", f"seed-{given.seed}"),
    )  # fmt: skip
    found |= saved.record
    print(json.dumps(found, indent=2) if given.json else f"{show(found)}\n\n{saved.lines}")
    return 0


def parse(arguments: list[str] | None):
    parser = Parser(
        prog="python -m interpret.multi_hop",
        description="Train a small model to answer in two steps (a person's town, the town's land), and probe where it "
        "holds the town that nobody names.",
        epilog="examples:\n  python -m interpret.multi_hop --out multi-hop.png --keep multi-hop\n"
        "  python -m interpret.attention ./multi-hop --prompt 'p017 town land'",
    )
    add = parser.add_argument
    add("--seed", metavar="N", type=int, default=0, help="of the world, the weights and the order (default: 0)")
    add("--steps", metavar="N", type=int, default=STEPS, help=f"of training (default: {STEPS:,})")
    add("--keep", metavar="FOLDER", type=Path, help="save the model there; every other view opens it")
    add("--out", metavar="FIGURE", type=figure_path, help="default: figures/multi-hop-seed-N.png in the workspace")
    add("--json", action="store_true", help="print the result for programs")
    add("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    return parser.parse_args(arguments)


def draw(probes: dict[str, Probes], moved: np.ndarray) -> Figure:
    """Left: how well the town is read at each word and layer. Right: how often an exchanged stream moves the answer."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    layers = [one.layer for one in probes[LAND].layers]
    for colour, place in enumerate(PLACES):
        scores = [one.real for one in probes[place].layers]
        around = np.array([[one.accuracy - one.low, one.high - one.accuracy] for one in scores]).T.clip(0)
        means = [one.accuracy for one in scores]
        left.errorbar(layers, means, around, color=f"C{colour}", marker="o", capsize=2, label=f"at “{place}”")
    shuffled = [one.shuffled.accuracy for one in probes[TOWN].layers]
    left.plot(layers, shuffled, "k:", label="shuffled labels")
    left.axhline(LANDS / TOWNS, color="0.6", linestyle="--", label="who knows the land alone")
    left.set(xlabel="behind layer (−1: what enters)", ylabel="held-out accuracy", ylim=(-0.03, 1.03), xticks=layers)
    left.set_title("a probe for the town that is not named", fontsize=10)
    left.legend(fontsize=8)
    image = right.imshow(moved.T, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (layer, place), share in np.ndenumerate(moved):
        right.text(layer, place, f"{share:.0%}", ha="center", va="center", color="white" if share > 0.6 else "black")
    right.set_yticks(range(len(PLACES)), [f"“{place}”" for place in PLACES])
    right.set_xticks(range(len(moved)))
    right.set_xlabel("behind layer")
    right.set_title("answers that go over to another person's land with the stream of that word", fontsize=10)
    figure.colorbar(image, ax=right, shrink=0.8)
    return figure


def numbers_of(probes: dict[str, Probes], moved: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that the figure shows: probes as (places, layers), exchanges as (layers, places)."""
    columns = {"places": np.array(PLACES), "exchanged": moved}
    columns["layers"] = np.array([one.layer for one in probes[LAND].layers])
    for kind in ("real", "shuffled"):
        for field in ("accuracy", "low", "high"):
            rows = [[getattr(getattr(p, kind), field) for p in found.layers] for found in probes.values()]
            columns[f"{kind}_{field}"] = np.array(rows)
    return columns


def show(found: dict) -> str:
    """What it answers, then a line a word and a column a layer."""
    layers = [one["layer"] for one in found["probes"][LAND]]
    rows = [["the town is probed at", *("enters" if layer < 0 else f"layer {layer}" for layer in layers)]]
    rows += [[place, *(f"{one['accuracy']:.1%}" for one in probed)] for place, probed in found["probes"].items()]
    rows.append(["shuffled labels", *(f"{one['shuffled']:.1%}" for one in found["probes"][LAND])])
    moved = [["answers that go over", *(f"layer {i}" for i in range(len(found["exchanged"])))]]
    moved += [[place, *(f"{row[i]:.1%}" for row in found["exchanged"])] for i, place in enumerate(PLACES)]
    right = "; ".join(f"{name} {share:.1%}" for name, share in found["right"].items())
    return f"answered rightly: {right}\n\n{table(rows)}\n\n{table(moved)}"
