"""The command of `python -m interpret.lens`: a figure of what each layer would say, the numbers behind it, a table.

May import `hub` and `data`; of ours here `interpret.lens`, `tuned_lens`, `lens_figure` and `figures`.
"""

import json
from pathlib import Path

import numpy as np

from data.workspace import Workspace
from hub.models import open_model, resolve
from hub.registry import table
from interpret.figures import command_line, default_path, save, view_parser
from interpret.lens import Lens, lens
from interpret.lens_figure import COLOURS, draw, numbers_of
from interpret.tuned_lens import folder_of, read_tuned

SHOWN = ("true_probability", "rank", "kl", "entropy")
DIGITS = 6  # of numbers for programs


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    model, tokenizer = open_model(given.run, workspace)
    translate = None
    if given.tuned:
        translate = read_tuned(folder_of(resolve(given.run, workspace), workspace), model, given.run).translators
    found = lens(model, tokenizer, given.prompt, translate, given.max_tokens)
    saved = save(
        draw(found, given.colour), numbers_of(found), command_line("interpret.lens", arguments),
        given.out or default_path(workspace, "lens", given.run, "tuned" if given.tuned else ""),
    )  # fmt: skip
    if given.json:
        print(json.dumps(record(given, found, *saved), indent=2, ensure_ascii=False))
        return 0
    if found.note:
        print(found.note)
    print(show(found))
    print(f"\n{saved.lines}")
    return 0


def parse(arguments: list[str] | None):
    parser = view_parser(
        "lens",
        "What each layer of a model would say next, at every token of a prompt: its guesses, the rank of the token "
        "that does come, and how far it is from the model's own answer.",
        "  python -m interpret.lens latest --prompt 'Tom had a red ball, and Lily wanted to play with it.'\n"
        "  python -m interpret.lens latest@best --prompt 'Tom had a red ball.' --tuned --colour kl\n"
        "  python -m interpret.lens Qwen/Qwen3-0.6B --prompt 'To be or not to be' --json",
    )
    add = parser.add_argument
    add("--tuned", action="store_true", help="through the tuned lens that `python -m interpret.tuned_lens` trained")
    add(
        "--colour", choices=COLOURS, default="probability",
        help="of the figure's cells: " + "; ".join(f"{name}: {words}" for name, (words, _) in COLOURS.items()),
    )  # fmt: skip
    return parser.parse_args(arguments)


def show(found: Lens) -> str:
    """A line a layer, from the last: means over the prompt, and the guess behind it."""
    rows = [["", "KL, nats", "entropy, nats", "p(true)", "median rank", "after the prompt", ""]]
    for row in reversed(range(len(found.rows))):
        known = slice(None, -1)  # behind the last token nothing is known to come
        rows.append(
            [
                found.rows[row],
                f"{found.kl[row].mean():.3f}",
                f"{found.entropy[row].mean():.3f}",
                f"{found.true_probability[row, known].mean():.1%}",
                f"{np.median(found.rank[row, known]):,.0f}",
                repr(found.spellings[found.guesses[row, -1, 0]]),
                f"{found.probabilities[row, -1, 0]:.1%}",
            ]
        )
    return table(rows)


def record(given, found: Lens, figure: Path, numbers: Path) -> dict:
    """For programs: the best guess of each row and token, and four numbers of each; the file has the others."""
    return {
        "model": given.run,
        "prompt": given.prompt,
        "lens": "tuned" if found.tuned else "logit",
        "note": found.note,
        "tokens": found.tokens,
        "ids": found.ids,
        "rows": found.rows,
        "guesses": [[found.spellings[guess] for guess in row] for row in found.guesses[..., 0]],
        "probabilities": np.round(found.probabilities[..., 0], DIGITS).tolist(),
        **{name: plain(getattr(found, name)) for name in SHOWN},
        "figure": str(figure),
        "numbers": str(numbers),
    }


def plain(values: np.ndarray) -> list[list[float | None]]:
    """JSON has no NaN."""
    return [[None if value != value else round(value, DIGITS) for value in row] for row in values.tolist()]
