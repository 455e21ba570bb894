"""The Two models view: what the handlers show, what they refuse, and the view in a browser."""

import re
import shlex
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from playwright.sync_api import expect

from data.access import Access
from data.workspace import Workspace
from hub.models import open_model
from interpret import tab_compare, tab_picker
from interpret import tab_compare_drawing as draw
from interpret.compare import Comparison, compare
from interpret.compare_alignment import Alignment, Side
from interpret.compare_cli import parse
from interpret.compare_weights import Change, Changes
from page.heatmap import CELLS
from tests.interpret.conftest import build

pytestmark = pytest.mark.usefixtures("one_thread")
MARKUP = "<b>the cat</b>"
PROMPT = f"the cat {MARKUP} sat\non the mat"
STYLE = Path(__file__).resolve().parents[2] / "page" / "style.css"
REFS = ("one", "two")


@pytest.fixture(scope="module")
def access(tokenizer, tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    for name, change in (("first", 0.0), ("second", 0.3)):
        model = build("labgpt")
        matrix = model.model.layers[0].mlp.up_proj.weight
        with torch.no_grad():
            matrix += change * torch.randn(matrix.shape, generator=torch.Generator().manual_seed(1))
        model.save_pretrained(workspace.root / "models" / name)
        tokenizer.save_pretrained(workspace.root / "models" / name)
    return Access(workspace)


def see(access, prompt: str = PROMPT, second: str = "models/second", count: int = 5, seed: float | None = 0):
    return tab_compare.see(access, "models/first", prompt, second, count, seed)


def titles(markup: str) -> list[str]:
    return re.findall(r'title="([^"]*)"', markup)


# ── what the handlers show ──


def test_what_is_shown_is_what_was_compared(access):
    seen, *parts = see(access)
    shown = dict(zip(tab_compare.PARTS, parts, strict=False))
    folders = [access.workspace.root / "models" / name for name in ("first", "second")]
    expected = compare(*map(open_model, folders), PROMPT)
    one, other = expected.mean_losses
    assert f"{one:.4f}" in shown["losses"]
    assert f"{other - one:+.4f}" in shown["losses"]
    assert expected.heads[1, 2] > 0.001
    assert f"layer 1, 2: {expected.heads[1, 2]:.4g} bits" in titles(shown["heads"])
    assert shown["heads"].count('data-act="head"') == 8
    assert shown["lens"].count('data-act="cell"') == expected.lens.size
    assert shown["losses"].count('data-act="token"') == len(expected.tokens.units) - 1  # nothing foretells the first
    for text in shown.values():
        assert "<b>the cat" not in text  # tokens stay text

    changes, why = tab_compare.changes_of(access, seen)
    assert why == ""
    assert [one.name for one in changes.matrices if one.change] == ["blocks.0.mlp.up_proj"]
    assert tab_compare.changes_of(access, seen)[0] is changes  # measured once
    assert "blocks.0.mlp.up_proj" in tab_compare.weights(access, seen)
    assert "seed 0" in tab_compare.texts(access, seen)


def test_looking_closer(access):
    seen = see(access)[0]
    drawn, name = tab_compare.look_at_head(access, seen, 1, 2)
    assert name == "L1H2"
    assert f"{seen.found.heads[1, 2]:.4f}" in drawn
    assert drawn.count("<table>") == 2
    assert "layer 1: KL" in tab_compare.look_at_cell(access, seen, 2, 3)
    costs = f"{seen.found.losses[0, 4]:.4g} and {seen.found.losses[1, 4]:.4g} nats"
    assert costs in tab_compare.look_at_token(access, seen, 4)


def test_a_figure_is_saved_with_the_command_that_makes_it_again(access):
    seen = see(access, "-the cat's mat")[0]
    told = tab_compare.keep_figure(access, seen)
    saved = list((access.workspace.root / "figures").iterdir())
    assert {path.suffix for path in saved} == {".png", ".npz"}
    assert all(str(path) in told for path in saved)
    typed = shlex.split(tab_compare.command(seen, access.workspace))
    assert typed[:3] == ["python", "-m", "interpret.compare"]
    given = parse(typed[3:])
    assert (given.run, given.other, given.prompt, given.seed) == (*seen.refs, "-the cat's mat", 0)


def test_mistakes_are_sentences(access):
    for arguments, sentence in (
        ({"second": ""}, "no second model"),
        ({"second": "/etc"}, "not in the workspace"),
        ({"seed": None}, "the seed must be"),
        ({"count": 10**6}, "choose 0 to 200"),
        ({"prompt": " "}, "the prompt is empty"),
    ):
        with pytest.raises(ValueError, match=sentence):
            see(access, **arguments)
    with pytest.raises(ValueError, match="nothing has been compared yet"):
        tab_compare.keep_figure(access, None)
    with pytest.raises(ValueError, match="read-only"):
        tab_compare.keep_figure(Access(access.workspace, read_only=True), see(access)[0])


# ── drawing alone ──


def comparison(units: int, rows: int = 30) -> Comparison:
    side = Side(list(range(units)), np.arange(units))
    tokens = Alignment([f"t{i}" for i in range(units)], side, side, 1.0, True, "")
    rng = np.random.default_rng(0)
    losses = np.concatenate([np.full((2, 1), np.nan), rng.random((2, units - 1))], axis=1)
    return Comparison(tokens, losses, None, [], rng.random((rows, units)), [f"r{i}" for i in range(rows)],
                      {"heads": "heads cannot be paired: 2 and 3"})  # fmt: skip


def test_a_long_prompt_is_shown_in_part_and_says_so():
    found = comparison(units=256, rows=100)
    assert found.lens.size > CELLS
    assert f"The first {draw.SHOWN} of 256 tokens are shown" in draw.losses(found, REFS)
    assert draw.lens(found).count("data-act") == 100 * draw.SHOWN
    assert "heads cannot be paired: 2 and 3" in draw.heads(found)


def test_bars_are_as_long_as_the_changes():
    found = Changes([Change(0, "mlp.up", 4.0, 1.0), Change(1, "mlp.up", 4.0, 2.0), Change(None, "head", 1.0, 0)], ["x"])
    drawn = draw.changes(found, "")
    assert re.findall(r"width:([\d.]+)%", drawn) == ["100.0", "50.0", "0.0"]
    assert "50.00%" in drawn
    assert "not in both models with the same shape: 1." in drawn
    assert "Every matrix is the same" in draw.changes(Changes([Change(0, "mlp.up", 4.0, 0.0)], []), "")
    assert "why not" in draw.changes(None, "why not")


# ── in a browser ──


@pytest.mark.browser
def test_comparing_in_the_browser(chromium, access):
    with gr.Blocks(analytics_enabled=False) as demo, gr.Tabs(), gr.Tab("Two models"):
        tab_compare.build(access, tab_picker.build(access))
    _, url, _ = demo.launch(css=STYLE.read_text(encoding="utf-8"), prevent_thread_lock=True, quiet=True)
    page = chromium.new_page(viewport={"width": 390, "height": 900})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_default_timeout(60_000)
    try:
        page.goto(url)
        for name, ref in (("inspect-model", "models/first"), ("compare-second", "models/second")):
            page.locator(f"#{name} input").fill(ref)
            page.locator(f"#{name} input").press("Enter")
        page.locator("#inspect-prompt textarea").fill(PROMPT)
        page.click("#compare-show")
        page.wait_for_selector("#compare-weights table")
        expect(page.locator("#compare-samples section")).to_have_count(2, timeout=60_000)
        page.locator('#compare-heads button[data-row="1"][data-column="3"]').click()
        page.wait_for_selector("#compare-head table")
        page.click("#compare-removed button")
        expect(page.get_by_label("Part")).to_have_value("L1H3")
        page.locator('#compare-lens button[data-row="1"][data-column="2"]').click()
        page.locator("#compare-guess", has_text="layer 0: KL").wait_for()
        page.locator('#compare-losses button[data-column="2"]').click()
        page.locator("#compare-token", has_text="Expected where").wait_for()
        page.click("#compare-save")
        page.locator("#compare-saved", has_text="python -m interpret.compare").wait_for()
        assert problems == []
    finally:
        page.close()
        demo.close()
