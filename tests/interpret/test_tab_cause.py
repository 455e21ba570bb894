"""The Cause view: what it shows, saves and may write; adapters and 4 bits; and a browser that clicks."""

import shlex
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from gradio import EventData
from playwright.sync_api import expect

from data.access import Access
from data.workspace import Workspace
from interpret import ablate, patching_cli, steering_cli, tab_cause, tab_figure, tab_patching, tab_picker, tab_steering
from interpret.ablation import effect, parse_target, sweep
from interpret.patching import patched
from interpret.sampling import Sampling
from interpret.steering import difference_of_means, steer
from interpret.tab_removed import removed
from tests.interpret.conftest import build

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT, CORRUPTED = "the cat sat on the mat", "the dog sat on the mat"
STYLE = Path(__file__).parents[2] / "page" / "style.css"
COMMANDS = {"ablate": ablate.main, "patching": patching_cli.main, "steering": steering_cli.main}


@pytest.fixture(scope="module")
def access(tokenizer, tmp_path_factory):
    """A page over a workspace that holds one tiny model."""
    root = tmp_path_factory.mktemp("workspace")
    build("labgpt").save_pretrained(root / "models" / "tiny")
    tokenizer.save_pretrained(root / "models" / "tiny")
    return Access(Workspace(root))


def views(access):
    """Each view's state and page, asked as its button asks it."""
    steering = ("the cat", "a dog", "", "resid_post", "", 2.0, 4, True, 0)
    yield tab_cause.see(access, "models/tiny", PROMPT, "resample", "and the dog")
    yield tab_patching.see(access, "models/tiny", PROMPT, CORRUPTED, "the", " and", ["mlp_out", "z"])
    yield tab_steering.see(access, "models/tiny", PROMPT, *steering)


def test_every_figure_is_saved_with_its_numbers_and_made_again_by_its_command(access, capsys):
    for shown, drawn, kept in views(access):
        assert kept == ""
        assert shown.command.split("interpret.")[1][:8] in drawn
        said = tab_figure.keep(access, shown)
        path = next(access.workspace.room("figures").glob(f"{shown.view}-*.npz"))
        assert path.name in said
        with np.load(path) as file:
            mine = dict(file)
        words = shlex.split(shown.command)
        assert COMMANDS[shown.view]([*words[3:], "--out", str(path.with_name("again.png")), "--json"]) == 0
        with np.load(path.with_name("again.npz")) as theirs:
            assert sorted(mine) == sorted(theirs)
            for name in mine.keys() - {"command"}:
                if mine[name].dtype.kind == "f":
                    np.testing.assert_allclose(mine[name], theirs[name], atol=1e-5)
                else:
                    assert (mine[name] == theirs[name]).all()


def test_a_page_that_only_shows_saves_nothing(access):
    with pytest.raises(ValueError, match="read-only"):
        tab_figure.keep(Access(access.workspace, read_only=True), None)
    with pytest.raises(ValueError, match="no figure yet"):
        tab_figure.keep(access, None)


def test_a_value_that_begins_with_a_dash_is_no_flag():
    words = {"prompt": "-1 is", "answer": "", "greedy": True, "sites": ["z", "mlp_out"]}
    expected = "python -m interpret.patching a '--prompt=-1 is' --greedy --sites z mlp_out"
    assert tab_figure.command("patching", "a", words, Workspace()) == expected


def test_a_click_names_a_part_and_removing_it_is_told(access):
    def clicked(**data):
        return tab_cause.choose(EventData(None, {key: str(value) for key, value in data.items()}))

    assert clicked(act="head", row=1, column=3) == "L1H3"
    assert clicked(act="half", row=0, column=1) == "L0.mlp"
    told = removed(access, "models/tiny", PROMPT, "L1H3, L0.mlp", "zero", "")
    assert "Without L1H3, L0.mlp" in told
    assert "--remove L1H3 L0.mlp" in told


def test_prompts_of_different_lengths_are_shown_as_their_tokens(access):
    shown, drawn, _ = tab_patching.see(access, "models/tiny", PROMPT, "the <b> cat <b>", "the", " and", ["z"])
    assert shown is None
    assert "The clean prompt: 7 tokens" in drawn
    assert drawn.count("lab-tokens") == 2
    assert "<b>" not in drawn


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({0: " "}, "'towards' is empty"),
        ({2: "/etc/passwd"}, "not in the workspace"),
        ({4: "two"}, "layer 'two' is no number"),
        ({4: "2"}, "no layer 2: .* 0 to 1"),
        ({5: None}, "other than 0"),
        ({6: 5000}, "5,000 new tokens"),
    ],
)
def test_mistakes_in_the_fields_are_sentences(access, changed, sentence):
    fields = ["the cat", "a dog", "", "resid_post", "", 2.0, 4, True, 0]
    for field, value in changed.items():
        fields[field] = value
    with pytest.raises(ValueError, match=sentence):
        tab_steering.see(access, "models/tiny", PROMPT, *fields)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's business
def test_an_adapters_causes_are_those_of_the_merged_weights(tokenizer):
    peft = pytest.importorskip("peft")
    torch.manual_seed(4)
    config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = peft.get_peft_model(build("qwen3"), config).eval()
    found = [everything(adapted, tokenizer)]
    found.append(everything(adapted.merge_and_unload(), tokenizer))
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-3, rtol=1e-3)


def everything(model, tokenizer):
    """All losses of a sweep, all differences of a patching, and a steered text."""
    swept = sweep(model, tokenizer, PROMPT)
    yield swept.heads
    yield swept.halves
    yield [effect(model, tokenizer, PROMPT, [parse_target("L1H2")], "mean", CORRUPTED).loss_after]
    for site in ("resid_pre", "z"):
        yield patched(model, [5, 9, 200, 31, 7], [5, 9, 17, 31, 7], site, 262, 97)
    direction = difference_of_means(model, tokenizer, ["the cat"], ["a dog"])
    yield steer(model, tokenizer, PROMPT, direction, 2.0, Sampling(greedy=True), 4).probabilities[0]


def test_four_bits_are_looked_into_like_any_other(tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    from hub.models import open_model

    build("qwen3", hidden_size=64, intermediate_size=128, head_dim=16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    small = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model, _ = open_model(tmp_path, quantization_config=small)
    assert all(np.isfinite(values).all() for values in everything(model, tokenizer))
    own = patched(model, [5, 9, 200], [5, 9, 200], "attn_out", 262, 97)
    np.testing.assert_allclose(own, own[0, 0], atol=1e-2)


@pytest.mark.browser
def test_clicks_reach_the_model(access, chromium):
    with gr.Blocks(analytics_enabled=False) as demo:
        tab_cause.build(access, tab_picker.build(access))
    _, url, _ = demo.launch(css=STYLE.read_text(encoding="utf-8"), prevent_thread_lock=True, quiet=True)
    page, problems = chromium.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    page.locator("#inspect-model input").fill("models/tiny")
    page.locator("#inspect-model input").press("Enter")
    page.locator("#inspect-prompt textarea").fill(PROMPT)
    page.click("#cause-sweep")
    page.locator('#cause-maps [data-act="head"][data-row="1"][data-column="2"]').click()
    page.get_by_text("Without L1H2 the prompt costs").wait_for()
    expect(page.locator("#cause-target").locator("input, textarea")).to_have_value("L1H2")
    page.click("#cause-save")
    page.get_by_text("Saved as").wait_for()
    page.get_by_role("tab", name="Patch").click()
    page.locator("#patching-corrupted textarea").fill("the dog")
    page.click("#patching-show")
    page.get_by_text("The corrupted prompt: ").wait_for()
    page.close()
    demo.close()
    assert problems == []
