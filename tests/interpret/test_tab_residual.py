"""The Residual stream view: it draws what was computed, mistakes are sentences, and a browser clicks through."""

import html
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest
import torch
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data.access import Access
from data.tokenizer_kinds import train_tokenizer
from data.workspace import Workspace
from hub.models import open_model
from interpret import tab_picker
from interpret.attribution import attribute
from interpret.residual import read_stream, read_values
from interpret.residual_cli import parse
from interpret.tab_residual import alike_of, build, cell, command, everything, logit_of, part, site_of, write
from modeling import LabGPTConfig
from page.residual import SHOWN, SQUARE

pytestmark = pytest.mark.usefixtures("one_thread")
MARKUP = "<script>document.title='taken'</script>"
PROMPT = f"the cat {MARKUP} sat\non the mat"
STYLE = Path(__file__).parents[2] / "page" / "style.css"
DEFAULTS = (-1, "", "", False, "", "resid_post")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models with a token that would be markup if it were not text; one normalises its stream."""
    models = tmp_path_factory.mktemp("workspace") / "models"
    tokenizer = train_tokenizer("bpe", ["the cat sat on the mat. "] * 20, 280)
    tokenizer.add_special_tokens({"extra_special_tokens": [*tokenizer.extra_special_tokens, MARKUP]})
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.4}
    for name in ("pre", "post"):
        torch.manual_seed(3)
        config = LabGPTConfig(vocab_size=len(tokenizer), norm_position=name, **sizes)
        AutoModelForCausalLM.from_config(config).save_pretrained(models / name)
        tokenizer.save_pretrained(models / name)
    return models / "pre"


@pytest.fixture(scope="module")
def access(folder):
    return Access(Workspace(folder.parents[1]))


@pytest.fixture(scope="module")
def opened(folder):
    return open_model(folder)


def titles(markup: str) -> list[str]:
    return [html.unescape(title) for title in re.findall(r'title="([^"]*)"', markup)]


# ── what is drawn ──


def test_everything_is_drawn_at_once(access, folder, opened):
    stream, logit, alike, values, told = everything(access, str(folder), PROMPT, *DEFAULTS)
    there = read_stream(*opened, PROMPT)
    assert f"{len(there.tokens)} tokens, 2 layers" in stream
    norm, median = there.norms[1, 3], np.median(there.norms[1])
    assert f"layer 1, {there.tokens[3]!r} (3): norm {norm:.4g}, {norm / median:.2f} × the median" in titles(stream)
    found = attribute(*opened, PROMPT)
    for name, value in found.shares.items():
        assert f"{name}: {value:+.4g} of the logit" in titles(logit)
    assert f"{found.logit:+.4f}" in logit
    assert alike.count("<table") == 2
    kurtosis = read_values(*opened, PROMPT, "resid_post").statistics["blocks.1.resid_post"].kurtosis
    assert f">{kurtosis:.1f}<" in values
    assert "python -m interpret.residual" in told
    assert not any("<script>" in one for one in (stream, logit, alike, values, told))


def test_heads_stand_in_a_map(access, folder, opened):
    markup = logit_of(access, str(folder), PROMPT, 3, " cat", " sat", True)
    found = attribute(*opened, PROMPT, " cat", " sat", 3, by_head=True)
    for name, value in found.shares.items():
        told = [title for title in titles(markup) if title.startswith(f"{name}: ")]
        assert [float(one.split()[1]) for one in told] == [pytest.approx(value, abs=1e-3)]
    first_column = re.findall(r'title="(L\d[^":]*): [^"]*"><button[^>]*data-column="0"', markup)
    assert first_column == ["L0.mlp", "L1.mlp"]


def test_similarities_and_sites_follow_their_choices(access, folder, opened):
    stream = read_stream(*opened, PROMPT)
    markup = alike_of(access, str(folder), PROMPT, "2", 1)
    assert f"·cat, the: {stream.between_tokens(2)[2, 1]:.4g} (cosine)" in titles(markup)
    assert f"layer 0, 2: {stream.between_layers(1)[0, 2]:.4g} (cosine)" in titles(markup)
    markup = site_of(access, str(folder), PROMPT, "blocks.1.mlp_post")
    assert "activations of the feed-forward units" in markup and "blocks.0" not in markup


def test_a_long_prompt_is_shown_in_part_and_says_so(access, folder):
    stream, _, alike, _, _ = everything(access, str(folder), "the cat sat on the mat. " * 12, *DEFAULTS)
    assert f"(the first {SHOWN} tokens)" in stream and f"(the first {SQUARE} tokens)" in alike
    assert stream.count('data-act="cell"') == 3 * SHOWN


def test_clicks_name_parts_and_places():
    assert part(SimpleNamespace(act="bar", part="L1.attention")) == "L1.attention"
    assert part(SimpleNamespace(act="head", row="1", column="0")) == "L1.mlp"
    assert part(SimpleNamespace(act="head", row="1", column="3")) == "L1H2"
    assert cell(SimpleNamespace(row="2", column="7")) == ("2", 7)


# ── saving, and mistakes ──


def test_what_is_saved_is_what_its_command_makes(access, folder, opened):
    asked = (3, " cat", "-", True, "1", "z")
    said = write(access, str(folder), PROMPT, *asked)
    (numbers,) = (access.workspace.root / "figures").glob("*.npz")
    assert str(numbers.with_suffix(".png")) in html.unescape(said)
    told = command(str(folder), PROMPT, *asked)
    given = parse(shlex.split(told)[3:])
    assert (given.run, given.prompt) == (str(folder), PROMPT)
    assert (given.position, given.token, given.minus, given.by_head, str(given.layer), given.site) == asked
    with np.load(numbers) as saved:
        assert str(saved["command"]) == told
        expected = attribute(*opened, PROMPT, " cat", "-", 3, by_head=True)
        assert dict(zip(saved["share names"].tolist(), saved["shares"], strict=True)) == pytest.approx(expected.shares)
        np.testing.assert_allclose(saved["between tokens"], read_stream(*opened, PROMPT).between_tokens(1))


def test_a_prompt_that_looks_like_a_flag_is_still_a_prompt():
    given = parse(shlex.split(command("latest", "--help 'it'", *DEFAULTS))[3:])
    assert (given.prompt, given.position, given.token, given.site) == ("--help 'it'", -1, "", "resid_post")


def test_a_read_only_page_saves_nothing(access, folder):
    closed = Access(access.workspace, read_only=True)
    with pytest.raises(ValueError, match="read-only"):
        write(closed, str(folder), PROMPT, *DEFAULTS)
    assert "Shares" in logit_of(closed, str(folder), PROMPT, -1, "", "", False)


def test_a_post_norm_model_has_norms_and_a_sentence(access, folder):
    post = str(folder.with_name("post"))
    stream, logit, *_ = everything(access, post, PROMPT, *DEFAULTS)
    assert "Norms" in stream and "a logit has no shares" in logit
    with pytest.raises(ValueError, match="a logit has no shares"):
        logit_of(access, post, PROMPT, -1, " cat", "", False)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ref": "/etc"}, "not in the workspace"),
        ({"prompt": " "}, "the prompt is empty"),
        ({"token": "the cat"}, "is 2 tokens"),
        ({"position": 999}, "no position 999"),
        ({"layer": "3"}, "no layer 3"),
        ({"layer": "first"}, "'first' is no layer: write its number"),
        ({"site": "nowhere"}, "no site 'nowhere'"),
    ],
)
def test_mistakes_are_sentences(access, folder, changes, sentence):
    asked = dict(zip(("position", "token", "minus", "by_head", "layer", "site"), DEFAULTS, strict=True))
    with pytest.raises(ValueError, match=sentence):
        everything(access, **{"ref": str(folder), "prompt": PROMPT, **asked, **changes})


# ── in a browser ──


@pytest.mark.browser
def test_clicking_through_in_the_browser(chromium, access, folder, opened):
    style = STYLE.read_text(encoding="utf-8")  # without it a map's cells have no size
    with gr.Blocks(analytics_enabled=False) as served, gr.Tabs(), gr.Tab("Residual stream"):
        build(access, tab_picker.build(access))
    _, url, _ = served.launch(css=style, prevent_thread_lock=True, quiet=True)
    page, problems = chromium.new_page(viewport={"width": 1280, "height": 1000}), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        page.goto(url)
        page.set_default_timeout(60_000)
        page.locator("#inspect-model input").fill(str(folder))
        page.locator("#inspect-model input").press("Enter")
        page.locator("#inspect-prompt textarea").fill(PROMPT)
        page.click("#residual-show")
        part = "document.querySelector('#residual-part textarea, #residual-part input').value"
        page.locator("#residual-alike", has_text="Between tokens, where layer 1 begins").wait_for()  # the middle
        page.locator('#residual-logit [data-part="L1.mlp"]').click()
        page.wait_for_function(f"{part} == 'L1.mlp'")
        page.get_by_role("button", name="What if this is removed").click()
        page.get_by_text("Without L1.mlp the prompt costs").wait_for()
        page.locator('#residual-stream [data-act="cell"][data-row="2"][data-column="2"]').click()
        expected = attribute(*opened, PROMPT, position=2).target
        page.locator("#residual-logit", has_text=expected).wait_for()
        page.locator("#residual-alike", has_text="Between tokens, where layer 2 begins").wait_for()
        page.get_by_label("By head").check()
        page.locator('#residual-logit [data-act="head"][data-row="0"][data-column="2"]').click()
        page.wait_for_function(f"{part} == 'L0H1'")
        assert page.title() != "taken" and problems == []
    finally:
        page.close()
        served.close()
