"""The Fine-tune tab: a base, examples and an adapter as a form, a look before training, and a run that is watched.

May import `page`, `hub`, `data` and Gradio. The parts stand beside this file, `tab_form.py`, `tab_look.py`,
`tab_after.py` and `tab_experiments.py`; here they are put together. A fine-tuning's folder is that of any run, so it is
watched by what watches any run: the app brings that part along, as tabs import no other room's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from data.access import Access
from finetune import tab_after, tab_experiments, tab_form, tab_look
from page.tab import QUICK

SHOW = "() => document.getElementById('tune-watching')?.scrollIntoView({behavior: 'smooth', block: 'start'})"


@dataclass(frozen=True)
class FinetuneTab:
    """What the app wires.

    `watched` is the run that is shown; each button leads to another tab with it and its base, `base` fills the form.
    """

    base: gr.Dropdown
    source: gr.Dropdown
    watched: gr.Dropdown
    to_generate: gr.Button
    to_compare: gr.Button


def build(access: Access, build_watch: Callable[[], object]) -> FinetuneTab:
    """Lay the tab out inside the caller's `gr.Tab`.

    Args:
        build_watch: lays out what watches a run, and returns what holds the run that is `watched`.
    """
    with gr.Column(elem_id="tune-form", elem_classes="lab-tune-form"):
        form = tab_form.build(access)
        tab_look.build(access, form)
    with gr.Column(elem_id="tune-watching", elem_classes="lab-train-watching"):
        watched = build_watch().watched
        after = tab_after.build(access, watched)
    tab_experiments.build(access)
    shown = form.started.change(lambda run: run, form.started, watched, **QUICK)
    shown.success(None, js=SHOW, api_visibility="private")
    return FinetuneTab(
        form.fields["model.base"], form.fields["data.source"], watched, after.to_generate, after.to_compare
    )
