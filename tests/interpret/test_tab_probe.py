"""The Probes tab: the sets it takes, names that are checked, what is saved, and a look in the browser."""

import gradio as gr
import numpy as np
import pytest

from data.access import Access
from data.workspace import Workspace
from interpret import tab_picker
from interpret.probe import probe
from interpret.tab_probe import OWN, Shown, build, chart, chosen_layer, chosen_set, command, drawn, saved
from tests.interpret.conftest import build as build_model

pytestmark = pytest.mark.usefixtures("one_thread")
MARKUP = "<script>document.title='taken'</script>"
MINE = "text,label\n" + "".join(f"the cat {i},{MARKUP if i % 2 else 'even'}\n" for i in range(40))


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    return Access(Workspace(tmp_path_factory.mktemp("probe") / "workspace"))


@pytest.fixture(scope="module")
def folder(access, tokenizer):
    path = access.workspace.room("models") / "tiny"
    build_model("llama").save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def shown(tokenizer):
    labelled, source = chosen_set(OWN, MINE, None)
    assert source == ""
    return Shown(probe(build_model("llama"), tokenizer, labelled), labelled, "a-run", "resid_post", "")


def test_sets_are_the_labs_a_typed_one_or_an_allowed_file(access, tmp_path):
    assert chosen_set("number", "", access)[1] == "number"
    inside = access.workspace.room("uploads") / "mine.csv"
    inside.write_text(MINE)
    labelled, source = chosen_set("uploads/mine.csv", "", access)
    assert len(labelled.examples) == 40
    assert source == str(inside)
    outside = tmp_path / "mine.csv"
    outside.write_text(MINE)
    with pytest.raises(ValueError, match="not in the workspace"):
        chosen_set(str(outside), "", access)
    with pytest.raises(ValueError, match="the box is empty"):
        chosen_set(OWN, " ", access)


def test_what_is_shown_is_what_was_found_and_text(shown):
    view = drawn(shown)
    best = shown.found.best.real
    assert f"{best.accuracy:.1%} ({best.low:.1%} to {best.high:.1%})" in view
    assert MARKUP not in view
    assert view.count('data-act="layer"') == 2  # what enters the first layer is no part of the model
    assert "control task" in chart(shown.found, "resid_post")
    assert chosen_layer(gr.EventData(None, {"layer": "1"})) == "L1"


def test_saving_writes_figure_and_numbers_unless_read_only(access, shown):
    assert "Saved figures/probe-a-run-your-examples-resid_post.png" in saved(access, shown)
    numbers = np.load(access.workspace.root / "figures" / "probe-a-run-your-examples-resid_post.npz")
    np.testing.assert_allclose(numbers["real_accuracy"], [layer.real.accuracy for layer in shown.found.layers])
    with pytest.raises(ValueError, match="nothing to save yet"):
        saved(access, None)
    with pytest.raises(ValueError, match="read-only"):
        saved(Access(access.workspace, read_only=True), shown)


def test_the_command_names_the_workspace_where_it_is_not_the_usual_one(access):
    assert command("latest", "number", "q", Workspace()) == "python -m interpret.probe latest --set number --site q"
    assert command("latest", "number", "q", access.workspace).endswith(f"--workspace {access.workspace.root}")


@pytest.mark.browser
def test_probing_in_the_browser(chromium, access, folder):
    with gr.Blocks(analytics_enabled=False) as page, gr.Tabs(), gr.Tab("Probes"):
        build(access, tab_picker.build(access))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True)
    tab = chromium.new_page(viewport={"width": 1280, "height": 1000})
    tab.set_default_timeout(60_000)
    tab.goto(url)
    for box, typed in (("#inspect-model", str(folder)), ("#probe-set", OWN)):
        tab.locator(f"{box} input").fill(typed)
        tab.locator(f"{box} input").press("Enter")
    tab.locator("#probe-own textarea").fill(MINE)
    tab.click("#probe-show")
    tab.wait_for_selector("#probe-view button[data-layer='1']")
    tab.click("#probe-view button[data-layer='1']")
    tab.wait_for_function("[...document.querySelectorAll('input, textarea')].some((box) => box.value === 'L1')")
    assert tab.title() != "taken"
    tab.close()
    page.close()
