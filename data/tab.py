"""The Data tab: text, and the pieces in which a model reads it. Corpora on one half, tokenizers on the other.

May import Gradio, `page` and the other modules of `data`. This tab alone is made of two files beside it,
`tab_corpora.py` and `tab_tokenizers.py`, each of which lays its half out; here they are put together, with what a
program may ask.
"""

from dataclasses import dataclass

import gradio as gr

from data import corpora, tab_corpora, tab_tokenizers
from data.access import Access
from page.tab import answer


@dataclass(frozen=True)
class DataTab:
    """What the app wires: `to_train` is clicked when the corpus named in `corpus` is to be trained on."""

    corpus: gr.Textbox
    to_train: gr.Button


def build(access: Access) -> DataTab:
    """Lay the tab out inside the caller's `gr.Tab`."""
    with gr.Tabs(elem_id="data-halves"):
        with gr.Tab("Corpora", elem_classes="lab-data"):
            corpus, to_train = tab_corpora.build(access)
        with gr.Tab("Tokenizers", elem_classes="lab-data"):
            tab_tokenizers.build(access)
    build_api(access)
    return DataTab(corpus, to_train)


def build_api(access: Access) -> None:
    """What a program may ask about data."""

    def list_corpora() -> list[dict]:
        """The built-in corpora, those in the table of the Hub, and those of the workspace.

        Returns:
            For each `name`, `about`, `licence`, whether it is `built_in` and already `made`; where it is made,
            `documents`, `bytes` and, where the corpus knows it, `floor_bits_per_byte`. Of one on the Hub `hub`, the
            id of its dataset, and `published`, the `documents` and `bytes` there.
        """
        return corpora.list_corpora(access.workspace)

    def tokenize(tokenizer: str, text: str) -> dict:
        """A text as a tokenizer cuts it, read as text: a reserved entry spelled out is only characters.

        Args:
            tokenizer: one of the workspace, as NAME for its newest version or NAME@vN; a folder; an id on the Hub.
            text: what is cut; its first 5,000 characters count.

        Returns:
            `tokens`, each with `id`, `text` and `bytes` in hexadecimal; `characters`, `bytes` and `bytes_per_token`
            of the text that was cut; `note`, what was left out of it.
        """
        _, cut, left_out = tab_tokenizers.cut_text(access, tokenizer, text)
        return {
            "tokens": [{"id": token.id, "text": token.text, "bytes": token.data.hex()} for token in cut.tokens],
            "characters": cut.characters,
            "bytes": cut.bytes,
            "bytes_per_token": cut.bytes_per_token,
            "note": left_out,
        }

    gr.api(answer(list_corpora), api_name="list_corpora", concurrency_limit=None)
    gr.api(answer(tokenize), api_name="tokenize", concurrency_limit=None)
