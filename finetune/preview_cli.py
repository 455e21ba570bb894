"""The look before training in a terminal: `python -m finetune.preview --base MODEL --data SOURCE`.

May import `training` and `data`. What the model only reads is grey where the terminal has colours and in brackets where
it has none; what it learns to write stands as it is.
"""

import dataclasses
import json
import os
import sys
from itertools import groupby

from data.console import Parser
from data.workspace import Workspace
from finetune.preview import Preview, Shown, preview
from finetune.recipe import build_recipe, find_recipe
from training.recipe import merge, parse_flags, read_recipe

MOST = 400  # tokens of one example that are printed; half from its beginning, half from its end
GREY, PLAIN = "\x1b[90m", "\x1b[0m"
ABOUT = """example:
  python -m finetune.preview --base Qwen/Qwen2.5-0.5B-Instruct --data chats.jsonl --train.context 1024

All flags of a recipe are taken, as by python -m finetune.qlora."""


def main() -> int:
    parser = Parser(
        prog="python -m finetune.preview",
        description="Look at what a fine-tuning would read, and need, before it begins. No weight is fetched.",
        epilog=ABOUT,
    )
    parser.add_argument("--base", metavar="MODEL", help="the model to adapt: a run, a folder, a Hub id")
    parser.add_argument("--data", metavar="SOURCE", help="examples: a file of JSON lines, a Hub id, a built-in set")
    parser.add_argument("--recipe", metavar="NAME|FILE", help="a shipped or saved recipe, or a YAML file")
    parser.add_argument("--count", type=int, default=3, metavar="N", help="examples that are shown (default: 3)")
    parser.add_argument("--json", action="store_true", help="print it for programs")
    parser.add_argument("--workspace", metavar="DIR", help="where everything made is kept (default: ./workspace)")
    arguments, flags = parser.parse_known_args()
    workspace = Workspace(arguments.workspace)
    named = {"model": {"base": arguments.base}, "data": {"source": arguments.data}}
    given = {part: {key: value for key, value in fields.items() if value} for part, fields in named.items()}
    layers = [read_recipe(find_recipe(arguments.recipe, workspace))] if arguments.recipe else []
    return show(merge(*layers, parse_flags(flags), given), workspace, arguments.json, arguments.count)


def show(parts: dict, workspace: Workspace, as_json: bool = False, count: int = 3) -> int:
    """Print the look at a recipe's parts."""
    look = preview(build_recipe(parts), workspace, count)
    if as_json:
        print(json.dumps(as_record(look), indent=2, ensure_ascii=False))
        return 0
    has_colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    shown = [f"{heading(one, i)}\n{text_of(one, has_colours)}" for i, one in enumerate(look.shown, start=1)]
    print("\n\n".join([*shown, "\n".join(summary(look))]))
    return 0


def as_record(look: Preview) -> dict:
    """Everything but the length of each single example."""
    record = dataclasses.asdict(look)
    del record["lengths"]
    record["estimate"] |= {"fits": look.estimate.fits, "warning": look.estimate.warning}
    return record


def heading(one: Shown, number: int) -> str:
    beyond = f", {one.beyond:,} of them beyond the context" if one.beyond else ""
    return f"example {number} ({one.source}): {len(one.pieces):,} tokens, {sum(one.scored):,} learnt{beyond}"


def text_of(one: Shown, has_colours: bool) -> str:
    """The example's text, what is not learnt set off."""
    before, behind = (GREY, PLAIN) if has_colours else ("[", "]")
    tokens = list(zip(one.pieces, one.scored, strict=True))
    parts = [tokens]
    if len(tokens) > MOST:
        parts = [tokens[: MOST // 2], tokens[-MOST // 2 :]]
    texts = []
    for part in parts:
        runs = [(is_learnt, "".join(piece for piece, _ in run)) for is_learnt, run in groupby(part, lambda one: one[1])]
        texts.append("".join(text if is_learnt else f"{before}{text}{behind}" for is_learnt, text in runs))
    return f"\n… {len(tokens) - MOST:,} tokens …\n".join(texts).rstrip("\n")


def summary(look: Preview) -> list[str]:
    """The figures, a line each."""
    cost, spread = look.estimate, ", ".join(f"{name} {size:,}" for name, size in look.spread.items())
    changed = [f"{count:,} {word}" for count, word in ((look.cut, "cut"), (look.dropped, "dropped")) if count]
    share = cost.trainable / cost.parameters
    kept = f", {cost.quantised_share:.0%} of what is no embedding quantised" if cost.quantised_share else ""
    fits = [one.gpu.name for one in cost.on_gpus(look.tokens) if one.fits]
    more = f", {look.replayed:,} replayed" if look.replayed else ""
    lines = {
        "examples": f"{look.train_examples:,} to train on, {look.validation_examples:,} held out{more}",
        "tokens": f"{spread} ({look.longest}); context {look.context:,}",
        "too long": ", ".join(changed),
        "learnt": f"{look.scored_share:.0%} of the tokens; what is answered ends with {look.end!r} (id {look.end_id})",
        "steps": f"{look.steps:,}, {look.steps_per_epoch:,.1f} an epoch: {look.tokens:,} tokens",
        "padding": f"{look.padding:.0%} of what is computed; packing saves {look.packing_saves:.0%}",
        "model": f"{cost.parameters:,} parameters{kept}; {cost.trainable:,} trained ({share:.2%})",
        "memory": f"about {size(cost.memory_total)} of {size(cost.memory_free)} free on {cost.device}, "
        f"rows of {look.longest_row:,} tokens, {cost.micro_batch:,} at once",
        "": ", ".join(f"{name} {size(part)}" for name, part in cost.memory.items()),
        "fits": f"{look.largest_batch:,} rows at once here; {cost.micro_batch:,} on {', '.join(fits) or 'none known'}",
    }
    return [f"{name:<10}{text}" for name, text in lines.items() if text] + [f"note      {note}" for note in look.notes]


def size(count: int) -> str:
    """Bytes as a person reads them."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
