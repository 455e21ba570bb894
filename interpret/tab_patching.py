"""Patching on the page: the prompt is the clean one, another is the corrupted one, and maps say what brings it back.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.patching` and its figure, and the picker's
components.
"""

from functools import partial

import gradio as gr

from data.access import Access
from hub.loaded import loaded
from interpret import tab_figure
from interpret.cause_figures import TITLES, draw_patching, pairs, patching_numbers
from interpret.patching import DEFAULT, PLACES, LengthsDifferError, Patching, patching
from interpret.tab_figure import Shown
from interpret.tab_picker import Picked
from page.heatmap import heatmap
from page.html import Markup, code, note
from page.tab import MODEL, answer, html
from page.tokens import coloured_tokens, visible

PROGRESS = gr.Progress(track_tqdm=True)  # as a handler's default: its tqdm bars are shown in the page


def build(access: Access, picked: Picked) -> None:
    """Lay it out inside the caller's `gr.Tab`."""
    corrupted = gr.Textbox(
        "", label="Corrupted prompt", lines=2, max_lines=6, elem_id="patching-corrupted",
        info="The prompt above is the clean one; this one says something else in equally many tokens, such as another "
        "name",
    )  # fmt: skip
    with gr.Row(equal_height=True):
        likeliest = "the likeliest next token"
        right = gr.Textbox("", label="Answer", info="next token behind the clean prompt", placeholder=likeliest)
        wrong = gr.Textbox("", label="Wrong answer", info="behind the corrupted prompt", placeholder=likeliest)
        sites = gr.CheckboxGroup(
            [(TITLES[site], site) for site in PLACES], value=["resid_pre", "z"], label="Where to patch",
            elem_id="patching-sites",
        )  # fmt: skip
    with gr.Row():
        show = gr.Button("Patch", variant="primary", elem_id="patching-show", min_width=200, scale=0)
    state, view = gr.State(None), html(elem_id="patching-view")
    kept = tab_figure.build(access, state, "patching")
    asked = [*picked, corrupted, right, wrong, sites]
    gr.on([show.click, corrupted.submit], answer(partial(see, access)), asked, [state, view, kept], **MODEL)


def see(
    access: Access,
    ref: str | None,
    clean: str,
    corrupted: str,
    right: str,
    wrong: str,
    sites: list[str],
    progress: gr.Progress = PROGRESS,
) -> tuple[Shown | None, Markup, str]:
    """State, view, what was saved."""
    if not sites:
        raise ValueError("choose at least one place to patch")
    try:
        found = patching(*loaded(ref, access), clean, corrupted, right, wrong, sites)
    except LengthsDifferError as error:
        return None, unequal(error), ""
    ref = access.reference(ref)
    flags = {"clean": clean, "corrupted": corrupted, "answer": right, "wrong": wrong}
    flags |= {"sites": sites} if list(sites) != list(DEFAULT) else {}
    command = tab_figure.command("patching", ref, flags, access.workspace)
    return Shown("patching", ref, found, draw_patching, patching_numbers, command), draw(found, command), ""


def unequal(error: LengthsDifferError) -> Markup:
    """Both prompts as their tokens, one below the other, to see where they part."""
    said = note("Both prompts must have equally many tokens, so that each has its place in the other.", "error")
    lists = (
        f"<h4>The {name} prompt: {len(prompt.ids):,} tokens</h4>{coloured_tokens(prompt.tokens)}"
        for name, prompt in zip(("clean", "corrupted"), error.prompts, strict=True)
    )
    return Markup(said + "".join(lists))


def draw(found: Patching, command: str) -> Markup:
    """A map for each site: layer by token, or layer by head."""
    tokens = [visible(token) for token in pairs(found)]
    maps = []
    for site in found.differences:
        values = found.restored(site)
        columns = [str(head) for head in range(values.shape[1])] if site == "z" else tokens
        layers = [f"layer {layer}" for layer in range(len(values))]
        corner = "layer \\ head" if site == "z" else "layer \\ token"
        maps.append(heatmap(values, layers, columns, "restored", title=TITLES[site], top=1.0, corner=corner))
    said = note(
        f"The logit of {found.answer.token!r} over that of {found.wrong.token!r} is {found.clean_difference:+.3f} "
        f"behind the clean prompt and {found.corrupted_difference:+.3f} behind the corrupted one. Each cell is the "
        "corrupted run with one place taken from the clean one: 0 changes nothing, 1 brings all of the difference back."
    )
    return Markup(f"{said}{''.join(maps)}{code(command)}")
