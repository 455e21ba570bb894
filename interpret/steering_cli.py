"""The command of `python -m interpret.steering`: a text with and without a direction, a figure and its numbers.

May import `hub` and `data`; of ours here `interpret.steering`, `sampling`, `cause_figures` and `figures`.
"""

import json
from pathlib import Path

from data.workspace import Workspace
from hub.models import open_model
from interpret.cause_figures import draw_steering, steering_numbers
from interpret.figures import command_line, default_path, save, view_parser
from interpret.sampling import Sampling
from interpret.steering import (
    COEFFICIENT,
    NEW_TOKENS,
    SITES,
    Direction,
    Steered,
    difference_of_means,
    read_direction,
    steer,
)


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    workspace = Workspace(given.workspace)
    model, tokenizer = open_model(given.run, workspace)
    place = (given.site, given.layer)
    direction: Direction = (
        read_direction(model, given.direction, *place)
        if given.direction
        else difference_of_means(model, tokenizer, texts(given.towards), texts(given.away), *place)
    )
    sampling = Sampling(greedy=given.greedy, temperature=given.temperature)
    found = steer(
        model, tokenizer, given.prompt, direction, given.coefficient, sampling, given.max_new_tokens, given.seed
    )
    saved = save(
        draw_steering(found), steering_numbers(found), command_line("interpret.steering", arguments),
        given.out or default_path(workspace, "steering", given.run),
    )  # fmt: skip
    if given.json:
        told = record(given.run, found) | saved.record
        print(json.dumps(told, ensure_ascii=False))
        return 0
    print(f"{show(found)}\n\n{saved.lines}")
    return 0


def parse(arguments: list[str] | None):
    parser = view_parser(
        "steering",
        "Let a model continue a text with a direction added inside it, beside the same text without: the difference "
        "between two sets of texts, or a direction from a file.",
        "  python -m interpret.steering latest --prompt 'Tom went home. He was' \\\n"
        "      --towards 'She was very happy.' 'It was fun!' --away 'She was very sad.' 'It hurt.'\n"
        "  python -m interpret.steering latest --prompt 'So' --towards @happy.txt --away @sad.txt --layer 3\n"
        "  python -m interpret.steering latest --prompt 'One day' --direction direction.npz --layer 2",
        prompt=False,
    )
    add = parser.add_argument
    add("--prompt", metavar="TEXT", default="", help="what is continued (default: nothing, the beginning of a text)")
    add("--towards", metavar="TEXT", nargs="+", default=[], help="texts, or @FILE with one a line; with --away")
    add("--away", metavar="TEXT", nargs="+", default=[], help="texts, or @FILE with one a line; with --towards")
    add("--direction", metavar="FILE", type=Path, help="instead: an .npz with `direction`, a vector or one by layer")
    add("--site", choices=SITES, default="resid_post", help="where it is taken and added (default: resid_post)")
    add("--layer", metavar="L", type=int, help="in which layer, from 0 (default: the middle one)")
    add(
        "--coefficient", metavar="X", type=float, default=COEFFICIENT,
        help=f"how many times it is added at each token; below 0 steers the other way (default: {COEFFICIENT:g})",
    )  # fmt: skip
    add("--max-new-tokens", metavar="N", type=int, default=NEW_TOKENS, help=f"default: {NEW_TOKENS}")
    add("--temperature", metavar="T", type=float, default=1.0, help="below 1 more cautious (default: 1)")
    add("--greedy", action="store_true", help="always the likeliest token, instead of drawing one")
    add("--seed", metavar="N", type=int, default=0, help="of both texts (default: 0)")
    given = parser.parse_args(arguments)
    if bool(given.direction) == bool(given.towards or given.away):
        raise ValueError("give --towards and --away, or --direction, to say where to steer")
    return given


def texts(given: list[str]) -> list[str]:
    """Texts as they are, and the lines of those files that are named by @FILE."""
    found = []
    for text in given:
        lines = Path(text[1:]).read_text(encoding="utf-8").splitlines() if text.startswith("@") else [text]
        found += [line for line in lines if line.strip()]
    return found


def show(found: Steered) -> str:
    """Both texts, one below the other, and how strong the push was."""
    plain, steered = ("".join(token.text for token in tokens) for tokens in (found.plain, found.steered))
    return (
        f"{found.direction.origin}, at {found.direction.name}, times {found.coefficient:g}: adds a vector of length "
        f"{found.size:.3g} to activations of length {found.stream:.3g}\n\n"
        f"── as it is ──\n{found.prompt}{plain}\n\n── steered ──\n{found.prompt}{steered}"
    )


def record(ref: str, found: Steered) -> dict:
    return {
        "model": ref,
        "prompt": found.prompt,
        "site": found.direction.name,
        "origin": found.direction.origin,
        "coefficient": found.coefficient,
        "size": found.size,
        "stream": found.stream,
        "plain": "".join(token.text for token in found.plain),
        "steered": "".join(token.text for token in found.steered),
        "coefficients": found.coefficients.round(6).tolist(),
        "next_token": dict(zip(found.tokens, found.probabilities.T.round(6).tolist(), strict=True)),
    }
