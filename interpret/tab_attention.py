"""The Attention view: what every head of a model attends to in a prompt.

May import `page`, `hub`, `data` and Gradio; of ours here `interpret.attention`, which does the work, the panels below
the view and the picker's components. The view itself is attention.html, attention.css and two scripts beside this file:
all numbers of a prompt go to the browser once, and pointing at heads and tokens there asks the server nothing.
"""

import base64
import zlib
from pathlib import Path

import gradio as gr
import numpy as np

from data.access import Access
from hub.loaded import loaded
from interpret import tab_heads
from interpret.attention import STATISTICS, Attention, patterns, pool, statistics
from interpret.tab_picker import Picked
from page.html import Markup
from page.tab import MODEL, answer, html

SMALL = 64  # points along a side of a head's picture in the grid of all heads
DIGITS = {"tokens": 2, "nats": 2, "%": 1}  # behind the point
LARGE = 128  # tokens of the head that is shown large: more could not be told apart


def build(access: Access, picked: Picked) -> None:
    """Lay the view out inside the caller's `gr.Tab`."""

    def see(ref: str | None, prompt: str) -> tuple[dict, Markup, str]:
        seen = patterns(*loaded(ref, access), prompt)
        return picture(seen, ref), tab_heads.by_layer(seen), ""  # scores of another model are gone

    def attention(model: str, prompt: str, layer: int = 0, head: int = 0) -> dict:
        """What one head of a model attends to in a prompt, and six numbers about each of its heads.

        Args:
            model: a run's id, name or `latest`, with `@revision` if wanted; a folder; an id on the Hub.
            prompt: the text that is read, its first 256 tokens at most.
            layer: the layer's number, from 0.
            head: the head's number in that layer, from 0.

        Returns:
            `tokens`; `weights`, a row for each token that looks; `layers`, the numbers of the layers that attend;
            `statistics`, each by layer and head; `note`, what was cut off the prompt.
        """
        return numbers(patterns(*loaded(model, access), prompt), layer, head)

    show = gr.Button("Show", variant="primary", elem_id="attention-show")
    view = gr.HTML(
        html_template=beside("attention.html"),
        css_template=beside("attention.css"),
        js_on_load=beside("attention_head.js") + beside("attention.js"),
        apply_default_css=False,
        padding=False,
        elem_id="attention-view",
    )
    layers = html(elem_id="attention-layers")
    scores = tab_heads.build(access, picked)
    gr.on([show.click, picked.prompt.submit], answer(see), [*picked], [view, layers, scores], **MODEL)
    gr.api(answer(attention), api_name="attention", **{**MODEL, "api_visibility": "public"})


def beside(name: str) -> str:
    """The text of a file beside this one."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def picture(attention: Attention, ref: str) -> dict:
    """Everything that the view in the browser shows, small enough to be sent at once.

    The weights of the first LARGE tokens go as whole per mille, which is what is told of them, exactly, and more than
    the eye can tell apart; of each row only what it can see, up to itself. The pictures of the grid are of all tokens.
    """
    weights = attention.weights
    T = min(len(attention.tokens), LARGE)
    rows, columns = np.tril_indices(T)
    small = pool(weights, SMALL)
    shade = np.rint(255 * np.sqrt(small)).astype(np.uint8)  # the square root shows weights of a few percent too
    values = statistics(weights, attention.windows)
    return {
        "tokens": attention.tokens[:T],
        "layers": attention.layers,
        "heads": attention.heads,
        "side": small.shape[-1],
        "small": pack(shade),
        "weights": pack(np.rint(1000 * weights[:, :, rows, columns]).astype("<u2")),
        "statistics": [
            {
                "title": title,
                "unit": unit,
                "digits": DIGITS[unit],
                "values": np.round(values[name] * (100 if unit == "%" else 1), DIGITS[unit]).tolist(),
            }
            for name, (title, unit) in STATISTICS.items()
        ],
        "summary": summary(attention, ref),
    }


def summary(attention: Attention, ref: str) -> str:
    """What is shown and what is not, in a sentence or three."""
    T, heads = len(attention.tokens), len(attention.layers) * attention.heads
    parts = [f"{ref}: {T} tokens, {heads} heads in {len(attention.layers)} layers.", attention.note]
    if T > LARGE:
        parts.append(f"One head large, the lines and the words show the first {LARGE} tokens.")
    if T > SMALL:
        parts.append(f"In the grid, a point is the mean over up to {-(-T // SMALL)} × {-(-T // SMALL)} weights.")
    return " ".join(filter(None, parts))


def pack(numbers: np.ndarray) -> str:
    """Numbers as text for JSON: zlib, which the browser undoes by itself, then base64.

    Level 1 of zlib: level 6 takes thrice as long for 3 % less.
    """
    return base64.b64encode(zlib.compress(numbers.tobytes(), 1)).decode()


def numbers(attention: Attention, layer: int, head: int) -> dict:
    """One head's weights and the statistics of all, for a program."""
    values = statistics(attention.weights, attention.windows)
    return {
        "tokens": attention.tokens,
        "weights": np.round(attention.pattern(layer, head).astype(float), 4).tolist(),
        "layers": attention.layers,
        "statistics": {name: np.round(value, 4).tolist() for name, value in values.items()},
        "note": attention.note,
    }
