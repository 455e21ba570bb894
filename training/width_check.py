"""`python -m training.width_check`: do activations keep their size when the model gets wider?

May import `hub` and `data`. The coordinate check of arXiv:2203.03466 (appendix D): the same recipe and seed at several
widths, a few steps each, mean |activation| of every layer against width. Lines that rise with width say that a learning
rate found on a narrow model is too high for a wide one. Heads grow in number, their size stays.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from tqdm import tqdm
from transformers import PreTrainedConfig

from data.console import Parser, cli
from data.prepare import prepare
from data.workspace import Workspace
from hub.registry import table
from training.architecture import build_config
from training.loop import losses_of
from training.machine import choose_device, core_count
from training.optimizers import build_optimizer
from training.probe import layers
from training.recipe import Recipe, build_recipe, find_recipe, merge, parse_flags, read_recipe
from training.setup import Data, make_batches, make_model, special_tokens, typical_start

STEPS = 5
DOUBLINGS = 3
DEPTH = colormaps["viridis"]


@dataclass(frozen=True)
class Widths:
    """Mean |activation| of one recipe at several widths.

    Attributes:
        sizes: (steps + 1, widths, layers) after 0, 1, … steps, of the embeddings, each layer, and the logits.
    """

    widths: list[int]
    layers: list[str]
    sizes: np.ndarray

    def powers(self, step: int) -> np.ndarray:
        """(layers,) by least squares, the power of the width with which each layer's activations grow; 0: not at all.

        NaN where an activation is 0 throughout, or no number any more.
        """
        heights = np.log2(np.where(self.sizes[step] > 0, self.sizes[step], np.nan))  # (widths, layers)
        across = np.log2(self.widths) - np.log2(self.widths).mean()
        return (across[:, None] * (heights - heights.mean(0))).sum(0) / np.square(across).sum()


def main(arguments: list[str] | None = None) -> int:
    given, flags = parser().parse_known_args(arguments)
    if given.steps < 1:
        raise ValueError(f"--steps {given.steps} should be 1 or more")
    workspace = Workspace(given.workspace)
    parts = [read_recipe(find_recipe(given.recipe, workspace))] if given.recipe else []
    recipe = build_recipe(merge(*parts, parse_flags(flags)))
    torch.set_num_threads(recipe.train.threads or core_count())
    data = Data(*prepare(recipe.data, workspace))
    found = compare(settled(recipe, data, given.steps), data, given.width)
    out = given.out or workspace.room("figures") / f"width-{Path(given.recipe or 'default').stem}.png"
    out.parent.mkdir(parents=True, exist_ok=True)
    files = [out.with_suffix(kind) for kind in (".png", ".svg")]
    figure = draw(found)
    for file in files:
        figure.savefig(file, dpi=130)
    if given.json:
        record = {"widths": found.widths, "layers": found.layers, "mean_abs": found.sizes.tolist()}
        record["powers"] = [found.powers(step).tolist() for step in range(len(found.sizes))]
        print(json.dumps({**record, "files": list(map(str, files))}))
    else:
        print(show(found), *files, sep="\n")
    return 0


def parser() -> Parser:
    made = Parser(
        prog="python -m training.width_check",
        description="Train a recipe at four widths for a few steps, and see whether its activations keep their size.",
        epilog="examples:\n  python -m training.width_check\n"
        "  python -m training.width_check --recipe shakespeare --width 64 --train.optimizer adamw\n"
        "Recipe flags are those of training.pretrain; the learning rate is at its peak from the first step.",
    )
    add = made.add_argument
    add("--recipe", metavar="NAME|FILE", help="a shipped or saved recipe, or a YAML file (default: the first run's)")
    add("--width", metavar="D", type=int, help="the least width; then 2D, 4D, 8D (default: a quarter of the recipe's)")
    add("--steps", metavar="N", type=int, default=STEPS, help=f"optimizer steps at each (default: {STEPS})")
    add("--out", metavar="FIGURE", type=Path, help="its .png and .svg (default: figures/width-RECIPE in the workspace)")
    add("--json", action="store_true", help="print the numbers for programs")
    add("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    return made


def settled(recipe: Recipe, data: Data, steps: int) -> Recipe:
    """The recipe with what `auto` means here, and its peak rate from the first step: five of a warm-up move nothing."""
    train = dataclasses.replace(
        recipe.train, steps=steps, epochs=None, warmup_steps=0, schedule="constant", attn_implementation="sdpa",
        device=choose_device(recipe.train.device),
        start=typical_start(data.tokens, recipe.train.context) if recipe.train.start == "auto" else recipe.train.start,
    )  # fmt: skip
    return dataclasses.replace(recipe, train=train)


def compare(recipe: Recipe, data: Data, width: int | None = None) -> Widths:
    """Train at `width`, twice, four and eight times that, all with the same seed and batches."""
    tokenizer = data.tokenizer.tokenizer
    config = build_config(recipe.model, len(tokenizer), recipe.train.context, special_tokens(tokenizer))
    least = config.hidden_size // 4 if width is None else width
    widths = [least * 2**i for i in range(DOUBLINGS + 1)]
    wide = [dataclasses.replace(recipe, model=widened(recipe.model, config, one)) for one in widths]
    steps, sizes = recipe.train.steps + 1, []
    with tqdm(total=steps * len(wide), unit="step", leave=False, disable=None) as progress:
        for one, at in zip(wide, widths, strict=True):
            progress.set_description(f"width {at}")
            trained = []
            for row in train(one, data):
                trained.append(row)
                progress.update()
            sizes.append([list(row.values()) for row in trained])
    return Widths(widths, list(trained[0]), np.array(sizes).swapaxes(0, 1))


def widened(model: dict, config: PreTrainedConfig, width: int) -> dict:
    """The recipe's `model` part at another width: heads and feed-forward units grow with it."""
    heads = {name: getattr(config, name, None) for name in ("num_attention_heads", "num_key_value_heads")}
    heads = {name: count for name, count in heads.items() if count}
    least = config.hidden_size // math.gcd(config.hidden_size, *heads.values())  # with whole heads of every kind
    if width < 1 or width % least:
        raise ValueError(f"--width {width} would cut a head of this recipe in two: take a multiple of {least}")
    changed = {name: count * width // config.hidden_size for name, count in heads.items()} | {"hidden_size": width}
    if units := getattr(config, "intermediate_size", None):
        changed["intermediate_size"] = round(units * width / config.hidden_size)
    own_names = {config.attribute_map.get(name, name): value for name, value in changed.items()}
    return {name: value for name, value in model.items() if name not in (*changed, *own_names)} | own_names


def train(recipe: Recipe, data: Data) -> Iterator[dict[str, float]]:
    """Mean |activation| of every layer before the first step, and after each."""
    model = make_model(recipe, data).to(recipe.train.device).train()
    optimizer, batches = build_optimizer(model, recipe.train), make_batches(data.tokens, recipe.train)
    for step in range(recipe.train.steps + 1):
        rows = batches.batch(step)
        batch = {name: torch.from_numpy(part).contiguous().to(recipe.train.device) for name, part in rows.items()}
        with watching(model) as sizes:
            loss, _ = losses_of(model, batch, batch["labels"].numel(), recipe.train)
        yield {name: size.item() for name, size in sizes.items()}
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.train.max_grad_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@contextmanager
def watching(model) -> Iterator[dict[str, torch.Tensor]]:
    """Mean |activation| of the embeddings, of each layer's output and of the logits, as the model computes them."""
    places = {"embeddings": model.get_input_embeddings()}
    places |= {f"layer {i}": layer for i, layer in enumerate(layers(model).values())}
    places["logits"] = model.get_output_embeddings()
    sizes: dict[str, torch.Tensor] = {}

    def watch(name: str):
        def hook(_module, _inputs, output) -> None:
            sizes[name] = (output[0] if isinstance(output, tuple) else output).detach().float().abs().mean()

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in places.items()]
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


def show(found: Widths) -> str:
    """A line a layer: its size at each width after the last step, and the powers before and after."""
    steps = len(found.sizes) - 1
    rows = [["mean |activation|", *(f"width {width}" for width in found.widths), "power", "power at the start"]]
    before, after = found.powers(0), found.powers(steps)
    for i, layer in enumerate(found.layers):
        sizes = [f"{size:.4g}" for size in found.sizes[-1, :, i]]
        rows.append([layer, *sizes, f"{after[i]:+.2f}", f"{before[i]:+.2f}"])
    words = (
        f"after {steps} steps; power: activations grow as width to that power. Near 0 the learning rate carries over\n"
        "to other widths; well above 0 it is too high for wider models, well below 0 their layers learn less."
    )
    return f"{table(rows)}\n\n{words}\n"


def draw(found: Widths) -> Figure:
    """A chart for the start, one for the first step and one for the last; a line a layer."""
    steps = sorted({0, 1, len(found.sizes) - 1})
    figure = Figure(figsize=(3.6 * len(steps) + 1.4, 3.8), layout="constrained")
    axes = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
    for axis, step in zip(axes, steps, strict=True):
        for i, layer in enumerate(found.layers):
            color = DEPTH(0.92 * i / (len(found.layers) - 1))
            axis.plot(found.widths, found.sizes[step, :, i], marker="o", markersize=3.5, color=color, label=layer)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(found.widths, found.widths)
        axis.set_title("at the start" if step == 0 else f"after {step} step{'s' if step > 1 else ''}", loc="left")
        axis.set_xlabel("width (hidden size)")
        axis.grid(alpha=0.25)
    axes[0].set_ylabel("mean |activation|")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8)
    return figure


if __name__ == "__main__":
    cli(main)
