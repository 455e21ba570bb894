"""Steering on the page: the prompt is continued with and without a direction, side by side.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.steering` and its figure, and the picker's
components.
"""

from functools import partial

import gradio as gr

from data.access import Access
from hub.loaded import loaded
from interpret import tab_figure
from interpret.cause_figures import draw_steering, steering_numbers
from interpret.sampling import Sampling
from interpret.steering import (
    COEFFICIENT,
    NEW_TOKENS,
    SITES,
    Steered,
    check_place,
    difference_of_means,
    read_direction,
    steer,
)
from interpret.tab_figure import Shown
from interpret.tab_picker import Picked
from page.chart import Series, line_chart
from page.generation import legend, prompt_end, quote, shaded
from page.html import Markup, code, note
from page.tab import MODEL, answer, html

TOWARDS = "She was very happy.\nThey laughed and had fun."
AWAY = "She was very sad.\nThey cried and went home."
MOST_TOKENS, MOST_TEXTS = 400, 200  # what is written, and read, while somebody waits


def build(access: Access, picked: Picked) -> None:
    """Lay it out inside the caller's `gr.Tab`."""
    with gr.Row():
        towards = gr.Textbox(TOWARDS, label="Towards", info="texts, one a line", lines=3, max_lines=10)
        away = gr.Textbox(AWAY, label="Away from", info="texts, one a line", lines=3, max_lines=10)
        file = gr.Textbox("", label="Or a direction", info="an .npz in the workspace with an array `direction`")
    with gr.Row(equal_height=True):
        site = gr.Dropdown(list(SITES), value="resid_post", label="Site", info="where it is taken and added")
        layer = gr.Textbox("", label="Layer", info="from 0", placeholder="the middle one", min_width=110)
        coefficient = gr.Number(COEFFICIENT, label="Coefficient", info="how many times it is added", min_width=110)
        count = gr.Number(NEW_TOKENS, label="New tokens", info="at most", precision=0, minimum=1, min_width=110)
        greedy = gr.Checkbox(True, label="Greedy", info="else drawn, both with the seed", min_width=110)
        seed = gr.Number(0, label="Seed", info="where drawn", precision=0, minimum=0, min_width=110)
    with gr.Row():
        show = gr.Button("Steer", variant="primary", elem_id="steering-show", min_width=200, scale=0)
    state, view = gr.State(None), html(elem_id="steering-view")
    kept = tab_figure.build(access, state, "steering")
    asked = [*picked, towards, away, file, site, layer, coefficient, count, greedy, seed]
    show.click(answer(partial(see, access)), asked, [state, view, kept], **MODEL)


def see(
    access: Access,
    ref: str | None,
    prompt: str,
    towards: str,
    away: str,
    file: str,
    site: str,
    layer: str,
    coefficient: float | None,
    count: float | None,
    greedy: bool,
    seed: float | None,
) -> tuple[Shown, Markup, str]:
    """State, view, what was saved."""
    model, tokenizer = loaded(ref, access)
    number = check_place(model, site, layer_from(layer))
    flags: dict = {"prompt": prompt}
    if (file or "").strip():
        path = access.path(file.strip())
        direction = read_direction(model, path, site, number)
        flags["direction"] = str(path)
    else:
        flags |= {"towards": lines("towards", towards), "away": lines("away from", away)}
        direction = difference_of_means(model, tokenizer, flags["towards"], flags["away"], site, number)
    count, seed = int(count or NEW_TOKENS), int(seed or 0)
    if count > MOST_TOKENS:
        raise ValueError(f"{count:,} new tokens are more than the page writes: {MOST_TOKENS} at most")
    strength = float(coefficient or 0)
    found = steer(model, tokenizer, prompt, direction, strength, Sampling(greedy=bool(greedy)), count, seed)
    flags |= {"site": site, "layer": str(number), "coefficient": f"{strength:g}", "max-new-tokens": str(count)}
    flags |= {"greedy": True} if greedy else {"seed": str(seed)}
    ref = access.reference(ref)
    command = tab_figure.command("steering", ref, flags, access.workspace)
    return Shown("steering", ref, found, draw_steering, steering_numbers, command), draw(found, command), ""


def layer_from(text: str) -> int | None:
    """The layer's number, None where nothing was typed. Raises ValueError for what is no number."""
    text = str(text or "").strip()
    if text and not text.isdecimal():
        raise ValueError(f"layer {text!r} is no number: layers count from 0; leave it empty for the middle one")
    return int(text) if text else None


def lines(name: str, text: str) -> list[str]:
    """The texts of a field. Raises ValueError where there are none, or too many to read at once."""
    found = [line for line in (text or "").splitlines() if line.strip()]
    if not found:
        raise ValueError(f"'{name}' is empty: give at least one text, or a direction from a file")
    if len(found) > MOST_TEXTS:
        raise ValueError(f"'{name}' has {len(found):,} texts: the page reads {MOST_TEXTS} at most, the command all")
    return found


def draw(found: Steered, command: str) -> Markup:
    """Both texts side by side, and what more and less of the direction does to the next token."""
    columns = "".join(
        f'<section><h4>{name}</h4><div class="lab-generate-text"><span class="lab-generate-prompt">'
        f"{prompt_end(found.prompt)}</span>{shaded(tokens)}</div></section>"
        for name, tokens in (("As it is", found.plain), (f"Steered, {found.coefficient:+g}", found.steered))
    )
    strong = found.size > found.stream
    said = note(
        f"{found.direction.origin}, at {found.direction.name}: adds a vector of length {found.size:.3g} to activations "
        f"of length {found.stream:.3g}.{' That drowns what was there: try a smaller coefficient.' if strong else ''}",
        "warning" if strong else "info",
    )
    chart = line_chart(
        [
            Series(quote(token), found.coefficients.tolist(), values.tolist())
            for token, values in zip(found.tokens, found.probabilities.T, strict=True)
        ],
        "coefficient",
        "probability of the next token",
        title="The token behind the prompt, with less and more of the direction",
    )
    shades = legend("How likely each token was:")
    return Markup(f'{said}<div class="lab-generate-columns">{columns}</div>{shades}{chart}{code(command)}')
