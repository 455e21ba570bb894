"""The Timeline view: measured with progress, shown, saved, stopped and gone on; refused where it must be."""

import re
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
from playwright.sync_api import expect

from data.access import Access
from data.workspace import Workspace
from hub.runs import Run
from interpret import tab_picker
from interpret.tab_timeline import HELD_OUT, PROMPT, at, build, chosen_head, follow, saved
from interpret.timeline import missing, revisions
from interpret.timeline_measure import Settings
from tests.interpret.test_timeline import ALPHABET, life

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def access(tmp_path_factory) -> Access:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    life(workspace)
    return Access(workspace)


def shown(access: Access, **choices):
    asked = {"ref": "life@step-000020", "prompt": ALPHABET, "source": PROMPT, "every": 1, "without": "", "probe": ""}
    return list(follow(access, **{**asked, **choices}))


def test_it_tells_how_far_it_is_and_then_shows_everything(access):
    *telling, last = shown(access, without="L1H0, l0h0")
    assert [("of 3 checkpoints measured" in str(words)) for words, *_ in telling] == [True] * 3
    words, charts, slider, state = last
    assert words == "" and charts.count("<figure") == 9  # four scores, entropy, lens, norm, both halves, the loss
    assert "L1H0: induction, from step 20 on" in charts and "heads removed" in charts
    assert f"interpret.timeline {state.timeline.run} --prompt {ALPHABET} --without L1H0 L0H0" in charts
    assert slider.maximum == 2 and slider.value == 2
    assert len(shown(access, without="L1H0 L0H0")) == 1  # nothing is measured twice


def test_the_slider_shows_one_checkpoint(access):
    state = shown(access)[-1][3]
    for i, step in enumerate((10, 20, 30)):
        panel, name = at(state, i)
        assert name == f"{state.timeline.run}@step-{step:06d}"
        assert f"{state.timeline.values['loss_second'][i]:.3f} nats" in panel and panel.count('data-act="head"') == 20
        assert f"layer 1, 0: {state.timeline.values['induction'][i, 1, 0]:.4g} mean attention" in panel
    assert at(None, 3) == ("", "")
    assert chosen_head(state, SimpleNamespace(row="1", column="0")) == "L1H0"


def test_stopping_keeps_what_was_measured(access):
    workspace, text = access.workspace, ALPHABET[5:]
    measuring = follow(access, "life", text, PROMPT, 1, "", "")
    next(measuring)
    measuring.close()
    run = Run.open(workspace, "life")
    assert len(missing(run, Settings.of([text]), revisions(run))) == 2
    assert len(shown(access, prompt=text)) == 3  # two that lacked, and what is shown


def test_it_is_saved_with_the_numbers_and_the_command(access):
    state = shown(access)[-1][3]
    assert "Saved figures/timeline-life" in saved(access, state)
    (numbers,) = (access.workspace.root / "figures").glob("timeline-life*.npz")
    with np.load(numbers) as found:
        assert str(found["command"]) == state.command
        np.testing.assert_allclose(found["induction"], state.timeline.values["induction"])


def test_a_page_that_only_shows_measures_nothing(access):
    reader = Access(access.workspace, read_only=True)
    with pytest.raises(ValueError, match="read-only"):
        shown(reader, prompt="zyxwvutsr")
    state = shown(access)[-1][3]
    assert shown(reader)[-1][3].timeline.steps == [10, 20, 30]  # what is there can be seen
    with pytest.raises(ValueError, match="read-only"):
        saved(reader, state)


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"ref": ""}, "nothing is chosen"),
        ({"ref": "/etc/passwd"}, "not in the workspace"),
        ({"ref": "nobody"}, "no run 'nobody'"),
        ({"source": HELD_OUT}, "not in the workspace: give a prompt"),
        ({"without": "all"}, "names no part"),
        ({"probe": "/etc/passwd"}, "not in the workspace"),
        ({"prompt": " "}, "the prompt is empty"),
    ],
)
def test_mistakes_are_sentences(access, choices, sentence):
    with pytest.raises(ValueError, match=sentence):
        shown(access, **choices)
    with pytest.raises(ValueError, match="nothing to save yet"):
        saved(access, None)


@pytest.mark.browser
def test_in_the_browser(chromium, access):
    with gr.Blocks(analytics_enabled=False) as demo, gr.Tabs(), gr.Tab("Timeline"):
        build(access, tab_picker.build(access))
    _, url, _ = demo.launch(css=(ROOT / "page/style.css").read_text(), prevent_thread_lock=True, quiet=True)
    page = chromium.new_page(viewport={"width": 390, "height": 900})
    page.set_default_timeout(60_000)
    try:
        page.goto(url)
        page.locator("#inspect-model input").fill("life")
        page.locator("#inspect-model input").press("Enter")
        page.locator("#inspect-prompt textarea").fill(ALPHABET)
        page.get_by_label(PROMPT).check()
        page.click("#timeline-show")
        page.wait_for_selector("#timeline-moment table")
        page.locator("#timeline-moment [data-act=head]").nth(6).click()  # the second map's third cell: layer 1, head 0
        page.wait_for_function("document.querySelector('#timeline-part :is(input, textarea)').value === 'L1H0'")
        expect(page.locator("#timeline-model").locator("input, textarea")).to_have_value(re.compile("@step-000030$"))
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    finally:
        page.close()
        demo.close()
