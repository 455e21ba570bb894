"""The whole path in a real browser, from an empty workspace: train, watch, reload, pause, resume, stop, open, generate,
attention, text of one's own. And what must survive: the page's death, and the trainer's."""

import os
import signal
import time

import pytest

from data.workspace import Workspace
from hub.process import started
from hub.runs import Run, all_runs

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TABS = {name: name.capitalize() for name in ("models", "train", "data", "generate")}
TABS |= {"finetune": "Fine-tune", "inspect": "Look inside"}


def visit(tab, server, name: str) -> None:
    tab.goto(f"{server.url}/?tab={name}")
    title = tab.get_by_role("tab", name=TABS[name], exact=True)
    title.and_(tab.locator("[aria-selected=true]")).wait_for()


def fill(tab, elem_id: str, text: str) -> None:
    field = tab.locator(f"#{elem_id} input:visible, #{elem_id} textarea:visible").first
    field.fill(text)
    field.press("Tab")


def choose(tab, elem_id: str, text: str) -> None:
    field = tab.locator(f"#{elem_id} input").first
    field.click()
    option = tab.get_by_role("option", name=text)
    option.first.wait_for()
    field.fill(text)
    option.first.click()


def wait_for_status(tab, *wanted: str, seconds: float = 60) -> None:
    tab.locator("#train-status .lab-badge", has_text=wanted[0]).wait_for(timeout=seconds * 1000)


def wait_for_step(run: Run, step: int, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while (run.info()["progress"].get("step") or 0) < step:
        assert time.monotonic() < deadline, run.info()
        assert run.status in ("queued", "running"), run.info()
        time.sleep(0.2)


def newest(server) -> Run:
    return all_runs(Workspace(server.workspace))[0]


def assert_no_process(run: Run, seconds: float = 15) -> None:
    """A process that said it ended still has to take its libraries down."""
    deadline = time.monotonic() + seconds
    while started(run.info()["process"]["pid"]) is not None:
        assert time.monotonic() < deadline, f"process {run.info()['process']} is still there"
        time.sleep(0.2)


def curve(tab) -> str:
    return tab.locator("#train-loss .lab-line").first.get_attribute("d")


@pytest.fixture(scope="module")
def default_run(chromium, server):
    """The default training, started by a click on the untouched form of an empty workspace."""
    page = chromium.new_page()
    visit(page, server, "models")
    page.locator("#models-list", has_text="no runs yet").wait_for()
    visit(page, server, "train")
    page.locator("#train-start").click()
    page.locator("#train-status", has_text="tales-").wait_for(timeout=30_000)
    page.close()
    run = newest(server)
    yield run
    if run.status in ("queued", "running", "paused", "stopping"):
        os.kill(run.info()["process"]["pid"], signal.SIGKILL)


def test_watch_reload_pause_resume_stop(tab, server, default_run):
    visit(tab, server, "train")
    wait_for_step(default_run, 20)  # the data are made and the model is compiled
    tab.locator("#train-loss .lab-line").first.wait_for(timeout=30_000)
    before = curve(tab)
    wait_for_step(default_run, default_run.info()["progress"]["step"] + 10)
    tab.wait_for_function(
        "old => document.querySelector('#train-loss .lab-line').getAttribute('d') !== old", arg=before
    )
    tab.reload()
    tab.locator("#train-status", has_text=default_run.id).wait_for()
    wait_for_status(tab, "running")
    step = default_run.info()["progress"]["step"]
    wait_for_step(default_run, step + 10)  # reloading changed nothing

    tab.locator("#train-pause").click()
    wait_for_status(tab, "paused")
    paused_at = default_run.info()["progress"]["step"]
    time.sleep(2.0)
    assert default_run.info()["progress"]["step"] == paused_at
    tab.locator("#train-save").click()
    saved = default_run.path / "checkpoints" / f"step-{paused_at:06d}" / "COMPLETE"
    deadline = time.monotonic() + 30
    while not saved.exists():
        assert time.monotonic() < deadline, "nothing was saved"
        time.sleep(0.1)
    tab.locator("#train-resume").click()
    wait_for_status(tab, "running")
    wait_for_step(default_run, paused_at + 10)

    tab.locator("#train-stop").click()
    wait_for_status(tab, "interrupted")
    assert_no_process(default_run)
    assert default_run.newest_checkpoint_name() is not None


def test_a_killed_server_and_a_killed_trainer(tab, server, default_run):
    visit(tab, server, "train")
    wait_for_status(tab, "interrupted")
    tab.locator("#train-resume").click()
    wait_for_status(tab, "running")
    stopped_at = default_run.info()["progress"]["step"]
    wait_for_step(default_run, stopped_at + 10)

    server.kill()
    step = default_run.info()["progress"]["step"]
    wait_for_step(default_run, step + 10)  # the run does not need the page
    server.start()
    visit(tab, server, "train")
    wait_for_status(tab, "running")
    tab.locator("#train-status", has_text=default_run.id).wait_for()

    os.kill(default_run.info()["process"]["pid"], signal.SIGKILL)
    began = time.monotonic()
    wait_for_status(tab, "interrupted", seconds=10)
    assert time.monotonic() - began < 10
    assert tab.locator("#train-resume").is_enabled()
    assert_no_process(default_run)


@pytest.fixture(scope="module")
def own_text_run(chromium, server, tmp_path_factory):
    """A file of one's own, uploaded, made a corpus and a tokenizer, trained on to the end; all by clicking."""
    text = tmp_path_factory.mktemp("mine") / "rhymes.txt"
    text.write_text(
        "\n\n".join(f"One, two, buckle my shoe. Verse {i}: three, four, open the door." for i in range(300))
    )
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    visit(page, server, "data")
    page.get_by_text("Add text of your own").click()
    page.locator("#data-upload input[type=file]").set_input_files(str(text))
    fill(page, "data-name", "rhymes")
    page.locator("#data-add").click()
    page.locator("#data-corpora", has_text="rhymes").wait_for(timeout=60_000)
    page.locator("#data-detail", has_text="documents").wait_for()

    page.get_by_role("tab", name="Tokenizers").click()
    page.locator("#data-tokenizer-new button").first.click()
    fill(page, "data-tokenizer-name", "rhymes-300")
    choose(page, "data-tokenizer-corpus", "rhymes")
    fill(page, "data-tokenizer-size", "300")
    page.locator("#data-tokenizer-train").click()
    page.locator("#data-tokenizers", has_text="rhymes-300").wait_for(timeout=60_000)

    visit(page, server, "train")
    for elem_id, value in {
        "train-corpus": "rhymes", "train-tokenizer": "rhymes-300", "train-steps": "40", "train-name": "rhymes",
        "train-batch_size": "4", "train-context": "32",
    }.items():  # fmt: skip
        fill(page, elem_id, value)
    page.locator("#train-start").click()
    page.locator("#train-status", has_text="rhymes-").wait_for(timeout=30_000)
    wait_for_status(page, "completed", seconds=240)
    page.close()
    return newest(server)


def test_the_finished_run_opens_generates_and_shows_its_attention(tab, server, own_text_run):
    assert own_text_run.info()["inputs"]["corpus"]["name"] == "rhymes"
    visit(tab, server, "models")
    tab.locator(f"#models-list [data-run='{own_text_run.id}'][data-act=open]").click()
    tab.locator("#models-detail", has_text=own_text_run.id).wait_for()
    tab.locator("#models-detail .lab-chart .lab-line").first.wait_for()

    tab.get_by_role("button", name="Generate").first.click()
    fill(tab, "generate-prompt", "One, two,")
    tab.locator("#generate-run").click()
    tab.locator("#generate-output .lab-token").nth(20).wait_for(timeout=60_000)
    tab.locator("#generate-output .lab-token").nth(3).click()
    tab.locator("#generate-runners-up", has_text="%").wait_for()

    visit(tab, server, "inspect")
    tab.wait_for_function("document.querySelector('#inspect-model input').value !== ''")  # the newest is chosen
    fill(tab, "inspect-prompt", "One, two, buckle my shoe.")
    tab.locator("#attention-show").click()
    tab.locator("#attention-view [data-layer='1'][data-head='2']").click(timeout=60_000)
    tab.locator("#attention-view [data-token='3']").first.click()
    words = tab.locator("#attention-view .attention-words")
    assert "%" in words.inner_text()


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_nothing_hangs_over_the_edge(tab, server, own_text_run, theme, width):
    """At a laptop's and a phone's width no tab scrolls sideways, and every control has a name for a screen reader."""
    tab.set_viewport_size({"width": width, "height": 800})
    for name in TABS:
        tab.goto(f"{server.url}/?tab={name}&run={own_text_run.id}&__theme={theme}")
        tab.get_by_role("tab", name=TABS[name], exact=True).first.wait_for()
        tab.wait_for_timeout(500)
        overhang = tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overhang <= 1, f"{name} is {overhang} px too wide"
        nameless = tab.evaluate(
            "[...document.querySelectorAll('button')].filter(b => b.checkVisibility() && !b.innerText.trim()"
            " && !b.ariaLabel && !b.title && !b.getAttribute('aria-labelledby')).map(b => b.outerHTML.slice(0, 200))"
        )
        assert nameless == []
