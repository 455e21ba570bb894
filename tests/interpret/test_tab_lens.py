"""The Lens view: what is shown is what was computed, in words, in colours, in a browser; and what is refused."""

from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from playwright.sync_api import expect

from data.access import Access
from data.workspace import Workspace
from hub.models import open_model
from interpret import tab_lens, tab_picker
from interpret.lens import lens
from interpret.lens_cli import main
from interpret.tab_lens import TOKENS, closer, draw_view, keep_figure, look, recolour
from interpret.tuned_lens import Settings, Translators, folder_of, model_sha256, save
from tests.interpret.conftest import MARKUP, save_with_markup

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = f"the cat {MARKUP} sat\non the mat"


@pytest.fixture(scope="module")
def access(tmp_path_factory):
    """A workspace with a model in it whose vocabulary has a token that is markup."""
    path = tmp_path_factory.mktemp("lens") / "models" / "tiny"
    save_with_markup(path)
    return Access(Workspace(path.parents[1]))


@pytest.fixture(scope="module")
def ref(access):
    return str(access.workspace.root / "models" / "tiny")


@pytest.fixture
def tuned(access, ref):
    """A tuned lens beside it that moves every layer a little."""
    model, _ = open_model(ref)
    translators = Translators(0.1 * torch.eye(32).expand(2, 32, 32).contiguous(), torch.full((2, 32), 0.1))
    held_out = {"tokens": 640, "logit": [3.0, 2.0], "tuned": [1.0, 0.5]}
    folder = folder_of(access.path(ref), access.workspace)
    save(folder, translators, model_sha256(model), {"name": "c", "sha256": "0"}, Settings(), held_out)
    yield translators
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def click(row, column) -> SimpleNamespace:
    return SimpleNamespace(row=str(row), column=str(column))  # attributes of HTML are text


@pytest.mark.parametrize("colour", ["probability", "kl", "rank"])
def test_the_table_says_what_the_lens_says(access, ref, colour):
    seen, shown, *cleared = look(access, ref, PROMPT, "logit", colour)
    wanted = lens(*open_model(ref), PROMPT)
    np.testing.assert_allclose(seen.lens.probabilities, wanted.probabilities, atol=1e-6)
    assert cleared == ["", ""]
    assert shown == draw_view(seen, colour)
    guess, probability = wanted.spellings[wanted.guesses[0, 1, 0]], wanted.probabilities[0, 1, 0]
    assert f"{probability:.1%}" in shown and f"{wanted.kl[0, 1]:.3g} nats" in shown and guess.strip() in shown
    assert f"rank {wanted.rank[0, 1]:,.0f}" in shown
    assert shown.index("layer 1") < shown.index("layer 0") < shown.rindex("input")
    assert MARKUP not in shown and "&lt;script&gt;" in shown


def test_a_click_tells_of_its_cell_and_names_its_layer(access, ref):
    seen, *_ = look(access, ref, PROMPT, "logit", "kl")
    found, last = seen.lens, len(seen.lens.tokens) - 1
    for row, name in ((0, "L1"), (1, "L0"), (2, "")):  # rows from the top: the last layer first, the input last
        said, target = closer(seen, click(row, 2))
        assert target == name
        assert f"{found.kl[2 - row, 2]:.4g} nats" in said and f"{found.rank[2 - row, 2]:,.0f}" in said
        assert all(f"{p:.2%}" in said for p in found.probabilities[2 - row, 2])
    assert "the prompt ends" in closer(seen, click(0, last))[0]
    for row, column in ((3, 0), (-1, 0), (0, last + 1), ("x", 0)):
        with pytest.raises(ValueError, match="no such cell"):
            closer(seen, click(row, column))


def test_the_tuned_lens_is_used_where_there_is_one_and_asked_for_where_not(access, ref, tuned):
    seen, shown, *_ = look(access, ref, PROMPT, "tuned", "kl")
    np.testing.assert_allclose(seen.lens.kl, lens(*open_model(ref), PROMPT, tuned).kl, atol=1e-6)
    assert "640 tokens of held-out text" in shown and "--tuned" in seen.command("kl")
    folder = folder_of(access.path(ref), access.workspace)
    (folder / "lens.json").rename(folder / "away")
    seen, shown, *_ = look(access, ref, PROMPT, "tuned", "kl")
    assert seen is None and recolour(seen, "kl") == gr.skip()
    assert "has no tuned lens yet" in shown and f"<code>python -m interpret.tuned_lens {ref}</code>" in shown


def test_it_is_saved_with_a_command_that_makes_it_again(access, ref, capsys):
    seen, *_ = look(access, ref, PROMPT, "logit", "rank")
    said = keep_figure(access, seen, "rank")
    figure = next((access.workspace.root / "figures").glob("lens-*.png"))
    assert str(figure) in said
    with np.load(figure.with_suffix(".npz")) as numbers:
        np.testing.assert_allclose(numbers["kl"], seen.lens.kl)
        command = str(numbers["command"])
    figure.unlink()
    words = [ref, "--prompt", PROMPT, "--max-tokens", str(TOKENS), "--colour", "rank"]
    assert all(word in command for word in ("interpret.lens", "--colour rank"))
    assert main([*words, "--workspace", str(access.workspace.root)]) == 0
    assert figure.is_file() and "layer 1" in capsys.readouterr().out


def test_mistakes_are_sentences_and_long_prompts_are_cut(access, ref):
    for arguments, sentence in (
        (("", PROMPT, "logit", "kl"), "nothing is chosen"),
        (("/etc", PROMPT, "logit", "kl"), "not in the workspace"),
        ((ref, "", "logit", "kl"), "the prompt is empty"),
        ((ref, PROMPT, "blurred", "kl"), "no 'blurred' lens"),
        ((ref, PROMPT, "logit", "hue"), "not by 'hue'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            look(access, *arguments)
    seen, shown, *_ = look(access, ref, "the cat sat " * 60, "logit", "kl")
    assert len(seen.lens.tokens) == TOKENS and f"only the first {TOKENS} are read" in shown
    with pytest.raises(ValueError, match="press Show"):
        closer(None, click(0, 0))
    with pytest.raises(ValueError, match="press Show"):
        keep_figure(access, None, "kl")
    with pytest.raises(ValueError, match="read-only"):
        keep_figure(Access(access.workspace, read_only=True), seen, "kl")


@pytest.mark.browser
def test_in_a_browser(chromium, access, ref):
    with gr.Blocks(analytics_enabled=False) as blocks, gr.Tabs(), gr.Tab("Lens"):
        tab_lens.build(access, tab_picker.build(access))
    _, url, _ = blocks.launch(prevent_thread_lock=True, quiet=True)
    page, problems = chromium.new_page(viewport={"width": 390, "height": 900}), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        page.set_default_timeout(60_000)
        page.goto(url)
        page.locator("#inspect-model input").fill(ref)
        page.locator("#inspect-model input").press("Enter")
        page.locator("#inspect-prompt textarea").fill(PROMPT)
        page.click("#lens-show")
        cells = page.locator("#lens-view button[data-act]")
        cells.first.wait_for()
        found = lens(*open_model(ref), PROMPT)
        assert cells.count() == found.kl.size
        cells.nth(len(found.tokens) + 2).press("Enter")  # layer 0, the third token, by keyboard
        page.locator("#lens-cell").get_by_text(f"{found.kl[1, 2]:.4g} nats").wait_for()
        expect(page.locator("#lens-target").locator("input, textarea")).to_have_value("L0")
        page.get_by_text("What if this is removed").locator("visible=true").last.click()
        page.get_by_text("Without L0 the prompt costs").wait_for()
        assert page.title() != "taken" and problems == []
    finally:
        page.close()
        blocks.close()
