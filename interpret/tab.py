"""The "Look inside" tab: one model and one prompt, and every view of what happens between them.

May import Gradio and `data`; of ours the views, each a `tab_*.py` beside its work.
"""

from dataclasses import dataclass

import gradio as gr

from data.access import Access
from interpret import tab_attention, tab_cause, tab_compare, tab_lens, tab_picker, tab_probe, tab_residual, tab_timeline

VIEWS = {  # by id: what it is called, and what lays it out
    "attention": ("Attention", tab_attention.build),
    "residual": ("Residual stream", tab_residual.build),
    "lens": ("Lens", tab_lens.build),
    "probe": ("Probes", tab_probe.build),
    "cause": ("Cause", tab_cause.build),
    "compare": ("Two models", tab_compare.build),
    "timeline": ("Timeline", tab_timeline.build),
}


@dataclass(frozen=True)
class InspectTab:
    """What the app may fill: the model and the prompt of all views, which view is seen, the one's second model."""

    model: gr.Dropdown
    prompt: gr.Textbox
    views: gr.Tabs
    second: gr.Dropdown


def build(access: Access) -> InspectTab:
    """Lay the tab out inside the caller's `gr.Tab`."""
    picked, laid_out = tab_picker.build(access), {}
    with gr.Tabs(elem_id="inspect-views") as views:
        for name, (title, lay_out) in VIEWS.items():
            with gr.Tab(title, id=name, elem_id=f"inspect-{name}"):
                laid_out[name] = lay_out(access, picked)
    return InspectTab(picked.model, picked.prompt, views, laid_out["compare"])
