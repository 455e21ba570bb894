"""The Residual stream view: its norms, a logit taken apart, what resembles what, and the values of any site.

May import `page`, `hub`, `data` and Gradio; of ours here the picker's components, the panel that removes a part, and
`interpret.residual` and `attribution`, which do the work.
"""

from functools import partial

import gradio as gr

from data.access import Access
from hub.loaded import loaded
from interpret import tab_removed
from interpret.attribution import attribute
from interpret.figures import command_line, default_path, save
from interpret.residual import CENTRAL, NEAR_ZERO, Stream, read_stream, read_values
from interpret.residual_figure import draw, largest, numbers, read_view
from interpret.sites import AROUND, IN_LAYER
from interpret.structure import structure
from interpret.tab_picker import Picked
from page.html import Markup, code, note
from page.residual import overview, shares, shares_by_head, similarity, spread
from page.tab import MODEL, QUICK, answer, html

SITE = "resid_post"
BARS = 80  # shares that are drawn one by one


def build(access: Access, picked: Picked) -> None:
    """Lay the view out inside the caller's `gr.Tab`."""
    show = gr.Button("Show", variant="primary", elem_id="residual-show")
    stream = html(elem_id="residual-stream")
    heading("What makes a token's logit")
    with gr.Row():
        position = gr.Number(-1, label="Position", info="Behind which token; -1: the last", precision=0, min_width=130)
        token = gr.Textbox("", label="Token", info="Blank: the likeliest next one", min_width=150)
        minus = gr.Textbox("", label="Minus", info="A token to compare it with", min_width=150)
        by_head = gr.Checkbox(False, label="By head", elem_id="residual-heads", min_width=120)
    logit = html(elem_id="residual-logit")
    target = gr.Textbox(
        "", label="Part", info="Click one above, or write L0H1, L0.attention, L0.mlp or L0", elem_id="residual-part"
    )
    tab_removed.build(access, picked, target)
    heading("What resembles what")
    layer = gr.Textbox(
        "", label="Layer", info="Where tokens are compared; blank: the middle one", elem_id="residual-layer"
    )
    alike = html(elem_id="residual-alike")
    heading("The values of a site")
    site = gr.Dropdown(
        [*AROUND, *IN_LAYER], value=SITE, label="Site", allow_custom_value=True,
        info="In all layers; blocks.3.mlp_post is one layer's", elem_id="residual-site",
    )  # fmt: skip
    values = html(elem_id="residual-values")
    keep = gr.Button("Save figure and numbers", elem_id="residual-save")
    kept = html(elem_id="residual-kept")

    every = [*picked, position, token, minus, by_head, layer, site]
    shown = [stream, logit, alike, values, kept]
    gr.on([show.click, picked.prompt.submit], answer(partial(everything, access)), every, shown, **MODEL)
    keep.click(answer(partial(write, access)), every, kept, **MODEL)
    logit.act(answer(part), None, target, **QUICK)
    # a choice draws again what depends on it, and tells the command anew
    chosen = stream.act(answer(cell), None, [layer, position], **QUICK).then
    for triggers, see, asked, drawn in (
        ([token.submit, minus.submit, position.submit, by_head.input, chosen], logit_of, every[:6], logit),
        ([layer.submit, position.submit, chosen], alike_of, [*picked, layer, position], alike),
        ([site.input], site_of, [*picked, site], values),
    ):
        for trigger in triggers:
            trigger(answer(partial(see, access)), asked, drawn, **MODEL)
            trigger(answer(partial(tell, access)), every, kept, **QUICK)


def heading(words: str) -> None:
    gr.HTML(f'<h3 class="lab-residual-h">{words}</h3>', padding=False)


def everything(
    access: Access, ref: str | None, prompt: str, position: int | None, token: str, minus: str, by_head: bool,
    layer: str, site: str,
) -> tuple[Markup, ...]:  # fmt: skip
    """All four pictures, and the command that makes them again."""
    stream = read_stream(*loaded(ref, access), prompt)
    return (
        overview(stream),
        logit_of(access, ref, prompt, position, token, minus, by_head),
        similarity(stream, place_of(layer, stream), last(position)),
        site_of(access, ref, prompt, site),
        tell(access, ref, prompt, position, token, minus, by_head, layer, site),
    )


def logit_of(
    access: Access, ref: str | None, prompt: str, position: int | None, token: str, minus: str, by_head: bool
) -> Markup:
    """The sum that a logit is; where it is none and nobody asked for a token's, the sentence that says so."""
    model, tokenizer = loaded(ref, access)
    try:
        found = attribute(model, tokenizer, prompt, token or "", minus or "", last(position), by_head)
    except ValueError as error:
        if token or minus or by_head:
            raise
        return note(error, "warning")
    if by_head:
        parts = structure(model)
        return shares_by_head(found, len(parts.layers), parts.heads)
    return shares(found, largest(found.shares, BARS))


def alike_of(access: Access, ref: str | None, prompt: str, layer: str, position: int | None) -> Markup:
    stream = read_stream(*loaded(ref, access), prompt)
    return similarity(stream, place_of(layer, stream), last(position))


def site_of(access: Access, ref: str | None, prompt: str, site: str | None) -> Markup:
    found = read_values(*loaded(ref, access), prompt, site or SITE)
    about = {**AROUND, **IN_LAYER}[found.site.rpartition(".")[2]]
    near = f"near 0: within {NEAR_ZERO:.0%} of the root mean square; kurtosis: 3 for a normal distribution."
    return Markup(spread(found, about, f"the middle {CENTRAL:.1%} are shown") + note(near))


def place_of(layer: str, stream: Stream) -> int:
    """The layer that was typed; the middle one for nothing."""
    return stream.layers // 2 if not layer.strip() else whole(layer)


def whole(layer: str) -> int:
    if not layer.strip().isdecimal():
        raise ValueError(f"{layer!r} is no layer: write its number, from 0")
    return int(layer)


def last(position: int | None) -> int:
    return -1 if position is None else int(position)


def cell(event: gr.EventData) -> tuple[str, int]:
    """The layer and the position that were clicked in the norms."""
    return event.row, int(event.column)


def part(event: gr.EventData) -> str:
    """The part that was clicked: a bar's name, or a cell of the heads, whose first column is the feed-forward part."""
    if event.act == "bar":
        return event.part
    return f"L{event.row}.mlp" if int(event.column) == 0 else f"L{event.row}H{int(event.column) - 1}"


def tell(
    access: Access, ref: str | None, prompt: str, position: int | None, token: str, minus: str, by_head: bool,
    layer: str, site: str,
) -> Markup:  # fmt: skip
    """The command, to be copied."""
    return code(command(access.reference(ref), prompt, position, token, minus, by_head, layer, site))


def command(
    ref: str, prompt: str, position: int | None, token: str, minus: str, by_head: bool, layer: str, site: str
) -> str:
    """What makes the same figure in a terminal."""
    given = {"--token": token, "--minus": minus, "--position": None if last(position) == -1 else position}
    given |= {"--layer": layer, "--site": None if site == SITE else site}
    # what begins with a minus would be taken for a flag if it stood alone
    words = [word for flag, value in given.items() if value not in (None, "") for word in _flag(flag, str(value))]
    return command_line(
        "interpret.residual", [ref, *_flag("--prompt", prompt), *words, *(["--by-head"] if by_head else [])]
    )


def _flag(flag: str, value: str) -> list[str]:
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]


def write(
    access: Access, ref: str | None, prompt: str, position: int | None, token: str, minus: str, by_head: bool,
    layer: str, site: str,
) -> Markup:  # fmt: skip
    """Save the figure and its numbers in the workspace."""
    access.check_write()
    model, tokenizer = loaded(ref, access)
    place = whole(layer) if layer.strip() else None
    view = read_view(model, tokenizer, prompt, token or "", minus or "", last(position), by_head, place, site or SITE)
    told = command(access.reference(ref), prompt, position, token, minus, by_head, layer, site)
    saved = save(draw(view), numbers(view), told, default_path(access.workspace, "residual", ref))
    return Markup(note(f"Saved {saved.figure}, and its numbers in {saved.numbers.name}.", "good") + code(told))
