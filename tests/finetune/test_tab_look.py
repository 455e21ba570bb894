"""The Fine-tune tab as somebody uses it: a look before training, then a whole small training in a browser."""

import json
import os
import re
import signal
from functools import partial
from pathlib import Path

import gradio as gr
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from data.access import Access
from data.tokenizer_kinds import train_tokenizer
from data.workspace import Workspace
from finetune import draft, tab, tab_look
from finetune.form import values_of
from hub.runs import LIVE, all_runs
from training import tab_watch

PAGE = Path(__file__).resolve().parents[2] / "page"
NAMES, THINGS = ("Anna", "Ben", "Cleo", "Dan"), ("ball", "kite", "drum", "boat")
SKIP = gr.skip()


def conversation(name: str, thing: str) -> dict:
    asked = {"role": "user", "content": f"Where is the {thing} of {name}?"}
    return {"messages": [asked, {"role": "assistant", "content": f"{name} has <b>the {thing}</b>."}]}


EXAMPLES = "".join(json.dumps(conversation(name, thing)) + "\n" for name in NAMES for thing in THINGS)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A Qwen3 of two layers with fresh weights, and a tokenizer with a chat template, in a workspace's `models/`."""
    folder = tmp_path_factory.mktemp("lab") / "workspace" / "models" / "tiny"
    tokenizer = train_tokenizer("bpe", [EXAMPLES], 320)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, max_position_embeddings=128, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def access(base) -> Access:
    return Access(Workspace(base.parents[1]))


@pytest.fixture(scope="module")
def source(access) -> str:
    """Examples of one's own, handed in."""
    given = access.workspace.root.parent / "who has what.jsonl"
    given.write_text(EXAMPLES)
    return draft.keep_upload(access, given)


def typed(**changes: object) -> list[object]:
    values = values_of({}) | {name.replace("__", "."): value for name, value in changes.items()}
    return list(values.values())


def test_a_look_sets_off_what_is_learnt_and_says_what_it_takes(access, source):
    values = typed(model__base="models/tiny", data__source=source, train__batch_size="4", train__context="64")
    assert tab_look.looked(access, False, *values) == (SKIP, SKIP)  # nobody asked
    summary, examples = tab_look.looked(access, True, *values)
    assert "14 to learn from" in summary and "2 held out" in summary and "&lt;|im_end|&gt;" in summary
    assert "are free on cpu" in summary and "lab-warning" not in summary
    first = examples.split("lab-tune-example")[1]
    learnt = "".join(part.partition(">")[2].partition("</span>")[0] for part in first.split('scored"')[1:])
    read = "".join(part.partition(">")[2].partition("</span>")[0] for part in first.split('masked"')[1:])
    assert learnt == "Anna has &lt;b&gt;the ball&lt;/b&gt;.&lt;|im_end|&gt;"
    assert "Where is the ball of Anna?" in read and "has" not in read
    assert not (access.workspace.root / "runs").exists() and not (access.workspace.root / "examples").exists()


def test_what_is_too_long_or_wrong_is_told_where_the_figures_would_be(access):
    room = access.workspace.root / "models"  # what lies in the workspace may be named by its path
    long, wrong = room / "long.jsonl", room / "wrong.jsonl"
    long.write_text(EXAMPLES + json.dumps(conversation("Anna " * 40, "ball")) + "\n")
    wrong.write_text(EXAMPLES + '{"messages": [{"role": "user", "content": "?"}]}\n')
    tiny = {"model__base": "models/tiny", "train__context": "64", "data__validation_fraction": "0.06"}
    summary, _ = tab_look.looked(access, True, *typed(**tiny, data__source="models/long.jsonl", data__too_long="drop"))
    assert "1 dropped" in summary and "the longest is long.jsonl:17" in summary
    summary, _ = tab_look.looked(access, True, *typed(**tiny, data__source="models/long.jsonl"))
    assert "lab-warning" in summary and "training will refuse to begin" in summary and "1 too long" in summary
    said, examples = tab_look.looked(access, True, *typed(**tiny, data__source="models/wrong.jsonl"))
    assert "wrong.jsonl, line 17" in said and "lab-error" in said and examples == ""
    said, _ = tab_look.looked(access, True, *typed(model__base="/etc"))
    assert "not in the workspace" in said


def test_a_page_that_only_shows_fetches_no_examples(access, source):
    shown = Access(access.workspace, read_only=True)
    values = {"model__base": "models/tiny", "train__context": "64"}
    assert "14 to learn from" in tab_look.looked(shown, True, *typed(**values, data__source=source))[0]
    assert "read-only" in tab_look.looked(shown, True, *typed(**values, data__source="owner/name"))[0]


@pytest.mark.slow
@pytest.mark.browser
def test_from_examples_of_ones_own_to_a_trained_adapter_in_the_browser(chromium, access, tmp_path):
    from playwright.sync_api import expect

    given = tmp_path / "greetings.jsonl"
    given.write_text(EXAMPLES)
    with gr.Blocks(analytics_enabled=False) as demo, gr.Tab("Fine-tune"):
        tab.build(access, partial(tab_watch.build, access, "tune", "finetune"))
    head = f"<script>{(PAGE / 'page.js').read_text(encoding='utf-8')}</script>"
    css = (PAGE / "style.css").read_text(encoding="utf-8")
    _, url, _ = demo.launch(css=css, head=head, prevent_thread_lock=True, quiet=True)
    page = chromium.new_page(viewport={"width": 390, "height": 900})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_default_timeout(60_000)
    try:
        page.goto(url)
        page.click("#tune-own button")
        page.locator("#tune-upload input[type=file]").set_input_files(str(given))
        expect(page.locator("#tune-source input")).to_have_value(re.compile(r"files/greetings-\w{6}\.jsonl"))
        fill(page, {"base": "models/tiny", "batch_size": "4", "context": "64", "steps": "4", "rank": "4"})
        page.click("#tune-look")
        page.locator("#tune-look-examples .scored").first.wait_for()
        assert " has <b>the " in "".join(page.locator("#tune-look-examples .scored").all_inner_texts())
        expect(page.locator("#tune-look-summary")).to_contain_text("are free on")
        fill(page, {"rank": "8"})  # once asked for, the look follows the form
        # of each of two layers q, k, v, o and three maps of the MLP: 2 x 8 x (128 + 96 + 96 + 128 + 3 x 128)
        expect(page.locator("#tune-look-summary")).to_contain_text("13,312 parameters", timeout=30_000)
        page.click("#tune-start")
        expect(page.locator("#tune-status")).to_contain_text("completed", timeout=240_000)
        page.locator("#tune-loss .lab-line").first.wait_for()
        expect(page.locator("#tune-samples")).to_contain_text("Where is the")
        expect(page.locator("#tune-chat")).to_be_enabled()
        expect(page.locator("#tune-elsewhere")).to_contain_text("python -m finetune.merge")
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        assert problems == []
    finally:
        page.close()
        demo.close()
        for run in all_runs(access.workspace):
            if run.status in LIVE and run.info()["process"]:
                os.kill(run.info()["process"]["pid"], signal.SIGKILL)


def fill(page, values: dict[str, str]) -> None:
    """Type into fields of the form that are in sight."""
    for name, value in values.items():
        field = page.locator(f"#tune-{name} input:visible, #tune-{name} textarea:visible").first
        field.fill(value)
        field.press("Tab")
