"""The Lens view: what each layer of a model would say next, at every token of a prompt.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.lens`, `tuned_lens`, their figure, the picker's
components and the panel that removes a part. What was computed stays with whoever looks: another colour, or a closer
look at one cell, asks no model.
"""

import shlex
from dataclasses import dataclass
from functools import partial

import gradio as gr

from data.access import Access
from hub.loaded import loaded
from interpret import tab_removed
from interpret.figures import default_path, save
from interpret.lens import Lens, lens
from interpret.lens_figure import COLOURS, draw, numbers_of, plain, shades
from interpret.tab_picker import Picked
from interpret.tuned_lens import Tuned, folder_of, read_tuned
from page.chart import Series, line_chart
from page.heatmap import heatmap
from page.html import Markup, code, facts, note, table
from page.tab import MODEL, QUICK, answer, html

TOKENS = 96  # columns of the table; a browser is slow with more buttons
LENSES = ["logit", "tuned"]


@dataclass(frozen=True)
class Seen:
    """What the view shows, and what it was made of; `held_out` is the tuned lens's comparison, None for the other."""

    ref: str
    prompt: str
    lens: Lens
    held_out: dict | None

    def command(self, colour: str) -> str:
        """What makes the figure again."""
        words = ["python", "-m", "interpret.lens", self.ref, "--prompt", self.prompt, "--max-tokens", str(TOKENS)]
        return shlex.join([*words, *(["--tuned"] if self.lens.tuned else []), "--colour", colour])


def build(access: Access, picked: Picked) -> None:
    """Lay the view out inside the caller's `gr.Tab`."""
    with gr.Row():
        kind = gr.Radio(
            [(f"{name} lens", name) for name in LENSES], value="logit", label="Lens", elem_id="lens-kind",
            info="the layer as it is, or translated by what was learnt on a corpus", min_width=280,
        )  # fmt: skip
        colour = gr.Radio(
            [("probability", "probability"), ("KL", "kl"), ("rank", "rank")], value="probability", label="Colour",
            info="how sure, how far from the model's own answer, how right", elem_id="lens-colour", min_width=280,
        )  # fmt: skip
    show = gr.Button("Show", variant="primary", elem_id="lens-show")
    seen = gr.State(None)
    shown = html(elem_id="lens-view")
    cell = html(elem_id="lens-cell")
    with gr.Row():
        keep = gr.Button("Save the figure", elem_id="lens-save", min_width=200, scale=0, size="sm")
    kept = html(elem_id="lens-kept")
    target = gr.Textbox(
        "", label="What if this is removed", elem_id="lens-target",
        info="L3 is a layer, L3.attention and L3.mlp its halves, L3H2 a head; a click in the table fills in its layer",
    )  # fmt: skip
    tab_removed.build(access, picked, target)

    gr.on(
        [show.click, picked.prompt.submit], answer(partial(look, access)), [*picked, kind, colour],
        [seen, shown, cell, kept], show_progress_on=shown, **MODEL,
    )  # fmt: skip
    colour.change(answer(recolour), [seen, colour], shown, **QUICK)
    shown.act(answer(closer), seen, [cell, target], **QUICK)
    keep.click(answer(partial(keep_figure, access)), [seen, colour], kept, **QUICK)


def look(access: Access, ref: str | None, prompt: str, kind: str, colour: str) -> tuple[Seen | None, Markup, str, str]:
    """The view of a prompt, or how to get a tuned lens; what was told of another prompt is cleared away."""
    if kind not in LENSES:
        raise ValueError(f"there is no {kind!r} lens: choose one of {', '.join(LENSES)}")
    ref = access.reference(ref)
    model, tokenizer = loaded(ref, access)
    try:
        tuned = find_tuned(access, ref, model) if kind == "tuned" else None
    except ValueError as error:  # none yet, or another model's: no mistake, but something to do
        train = shlex.join(["python", "-m", "interpret.tuned_lens", ref])
        return None, Markup(note(f"{error}.", "warning") + code(train)), "", ""
    found = lens(model, tokenizer, prompt, tuned.translators if tuned else None, max_tokens=TOKENS)
    seen = Seen(ref, prompt, found, tuned.record["held_out"] if tuned else None)
    return seen, draw_view(seen, colour), "", ""


def find_tuned(access: Access, ref: str, model) -> Tuned:
    """The model's tuned lens. Raises ValueError, with the command that trains one, where there is none."""
    from hub.models import resolve  # takes seconds: transformers

    return read_tuned(folder_of(resolve(ref, access.workspace), access.workspace), model, ref)


def recolour(seen: Seen | None, colour: str) -> Markup | dict:
    """The same view; where nothing was computed, whatever stands there stays."""
    return gr.skip() if seen is None else draw_view(seen, colour)


def draw_view(seen: Seen, colour: str) -> Markup:
    """The table of guesses, the last layer first, and what is to be known of it."""
    found, T = seen.lens, len(seen.lens.tokens)
    upwards, values = range(len(found.rows) - 1, -1, -1), shades(found, colour)
    words, unit = COLOURS[colour]
    drawn = heatmap(
        values[::-1],
        [found.rows[row] for row in upwards],
        [plain(token) for token in found.tokens],
        unit,
        title=f"The next token as each layer guesses it; colour: {words}",
        top=None if colour == "kl" else 1.0,
        words=[[plain(found.spellings[guess]) for guess in found.guesses[row, :, 0]] for row in upwards],
        titles=[[title(found, row, column) for column in range(T)] for row in upwards],
        act="cell",
        corner="layer \\ token read",
    )
    parts = [note(f"{seen.ref}: {T} tokens, {found.rows[-1]} being the model itself. {found.note}".strip()), drawn]
    return Markup("".join([*parts, held_out(seen), code(seen.command(colour))]))


def held_out(seen: Seen) -> Markup:
    """How near both lenses are to the model on text that the tuned one was not trained on."""
    if seen.held_out is None:
        return Markup("")
    rows = range(len(seen.held_out["logit"]))
    series = [Series(f"{name} lens", rows, seen.held_out[name]) for name in LENSES]
    return line_chart(
        series, x="layers read", y="KL from the model, nats per token", height=160,
        title=f"On {seen.held_out['tokens']:,} tokens of held-out text",
    )  # fmt: skip


def title(found: Lens, row: int, column: int) -> str:
    """A cell in words, for the pointer."""
    guess, probability = found.spellings[found.guesses[row, column, 0]], found.probabilities[row, column, 0]
    known = column + 1 < len(found.tokens)
    comes = f"; {found.tokens[column + 1]!r} comes, rank {found.rank[row, column]:,.0f}" if known else ""
    return f"{found.rows[row]}: {guess!r} {probability:.1%}{comes}; KL {found.kl[row, column]:.3g} nats"


def closer(seen: Seen | None, event: gr.EventData) -> tuple[Markup, str]:
    """One cell: its best guesses, its numbers, how its token's column goes through the layers; and its layer's name."""
    if seen is None:
        raise ValueError("nothing is shown yet: press Show")
    found = seen.lens
    try:
        row, column = len(found.rows) - 1 - int(event.row), int(event.column)
        if row < 0 or column < 0:
            raise IndexError
        said = draw_cell(found, row, column)
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"there is no such cell: the table has {len(found.rows)} rows of {len(found.tokens)} tokens"
        ) from error
    return said, f"L{row - 1}" if row else ""  # nothing to remove stands before the first row


def draw_cell(found: Lens, row: int, column: int) -> Markup:
    """What `closer` shows of it."""
    known = column + 1 < len(found.tokens)
    guesses = zip(found.guesses[row, column], found.probabilities[row, column], strict=True)
    numbers = [
        ("layer", found.rows[row]),
        ("behind the token", repr(found.tokens[column])),
        ("the token that comes", repr(found.tokens[column + 1]) if known else "not known: the prompt ends"),
        ("its probability", f"{found.true_probability[row, column]:.2%}" if known else ""),
        ("its rank", f"{found.rank[row, column]:,.0f}" if known else ""),
        ("KL from the model", f"{found.kl[row, column]:.4g} nats"),
        ("entropy", f"{found.entropy[row, column]:.4g} nats"),
    ]
    rows = range(len(found.rows))
    kl = Series("KL from the model", rows, found.kl[:, column])
    entropy = Series("entropy", rows, found.entropy[:, column])
    return Markup(
        '<div class="lab-lens-cell">'
        + table(["guess", "probability"], [(repr(found.spellings[g]), f"{p:.2%}") for g, p in guesses], numbers=1)
        + facts(numbers)
        + line_chart([kl, entropy], x="layers read", y="nats", height=150, title="This token, layer by layer")
        + "</div>"
    )


def keep_figure(access: Access, seen: Seen | None, colour: str) -> Markup:
    """Save what is shown, with its numbers and command, to the workspace."""
    access.check_write()
    if seen is None:
        raise ValueError("nothing is shown yet: press Show, then save")
    detail = "tuned" if seen.lens.tuned else ""
    out = default_path(access.workspace, "lens", seen.ref, detail)
    saved = save(draw(seen.lens, colour), numbers_of(seen.lens), seen.command(colour), out)
    return note(f"Saved as {saved.figure}, the numbers beside it as {saved.numbers.name}.", "good")
