"""The Attention tab: what is packed is what was computed, one endpoint, and a browser that shows it as text."""

import base64
import zlib

import gradio as gr
import numpy as np
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from data.access import Access
from data.workspace import Workspace
from hub.models import open_model
from interpret import tab_picker
from interpret.attention import Attention, patterns, statistics
from interpret.tab_attention import LARGE, SMALL, build, picture, pool
from tests.interpret.conftest import MARKUP, save_with_markup

PROMPT = f"the cat {MARKUP} sat\non the mat"


def unpack(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind)


def random_attention(T: int, seed: int = 0) -> Attention:
    scores = np.random.default_rng(seed).normal(0, 2, (2, 3, T, T))
    weights = np.tril(np.exp(scores))
    weights = (weights / weights.sum(-1, keepdims=True)).astype(np.float32)
    return Attention([f"t{i}" for i in range(T)], list(range(T)), [1, 4], [None, None], weights, "")


# ── what is sent to the browser ──


@pytest.mark.parametrize("T", [1, 5, SMALL, SMALL + 1, 150])
def test_pooling_is_the_mean_over_squares(T):
    weights = random_attention(T).weights
    width = -(-T // SMALL)
    sides = [range(k, min(k + width, T)) for k in range(0, T, width)]
    expected = [[weights[1, 2][np.ix_(rows, columns)].mean() for columns in sides] for rows in sides]
    pooled = pool(weights, SMALL)
    assert pooled.shape == (2, 3, len(sides), len(sides))
    assert len(sides) <= SMALL
    np.testing.assert_allclose(pooled[1, 2], expected, rtol=1e-5)


def test_the_browser_gets_each_weight_to_a_tenth_of_a_percent():
    attention = random_attention(20)
    value = picture(attention, "a-run")
    sent = unpack(value["weights"], "<u2").reshape(2, 3, 20 * 21 // 2)
    for i in range(20):
        for j in range(i + 1):  # as the script finds it
            told = sent[:, :, i * (i + 1) // 2 + j] / 1000
            np.testing.assert_allclose(told, attention.weights[:, :, i, j], atol=0.0005 + 1e-7)
    shades = unpack(value["small"], "u1").reshape(2, 3, 20, 20)
    np.testing.assert_allclose((shades / 255) ** 2, attention.weights, atol=0.004)
    assert value["layers"] == [1, 4]
    entropies = next(one for one in value["statistics"] if one["unit"] == "nats")
    np.testing.assert_allclose(entropies["values"], statistics(attention.weights, [None] * 2)["entropy"], atol=0.005)
    assert value["summary"] == "a-run: 20 tokens, 6 heads in 2 layers."


def test_a_long_prompt_is_shown_in_part_and_says_so():
    attention = random_attention(LARGE + 40)
    value = picture(attention, "a-run")
    assert value["tokens"] == attention.tokens[:LARGE]
    assert unpack(value["weights"], "<u2").size == 2 * 3 * LARGE * (LARGE + 1) // 2
    assert value["side"] <= SMALL
    assert f"the first {LARGE} tokens" in value["summary"]
    assert "mean over up to 3 × 3 weights" in value["summary"]


# ── the tab, served ──


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a token that would be markup if it were not text."""
    path = tmp_path_factory.mktemp("workspace") / "models" / "tiny"
    save_with_markup(path)
    return path


@pytest.fixture(scope="module")
def server(folder):
    access = Access(Workspace(folder.parents[1]))
    with gr.Blocks(analytics_enabled=False) as page, gr.Tabs(), gr.Tab("Attention"):
        build(access, tab_picker.build(access))
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True)
    yield url
    page.close()


@pytest.fixture(scope="module")
def client(server):
    return Client(server, verbose=False)


def test_one_endpoint_with_typed_arguments(client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/attention"]
    arguments = {one["parameter_name"]: one["python_type"]["type"] for one in endpoints["/attention"]["parameters"]}
    assert arguments == {"model": "str", "prompt": "str", "layer": "int", "head": "int"}
    assert "What one head of a model attends to" in endpoints["/attention"]["description"]


def test_a_program_gets_one_head_and_the_numbers_of_all(client, folder):
    found = client.predict(str(folder), PROMPT, 1, 3, api_name="/attention")
    expected = patterns(*open_model(folder), PROMPT)
    assert found["tokens"] == expected.tokens
    assert MARKUP in found["tokens"]
    np.testing.assert_allclose(found["weights"], expected.pattern(1, 3), atol=1e-4)
    assert found["layers"] == [0, 1]
    for name, values in statistics(expected.weights, expected.windows).items():
        np.testing.assert_allclose(found["statistics"][name], values, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("", "a cat", 0, 0), "nothing is chosen"),
        (("no-such-run", "a cat", 0, 0), "no-such-run"),
        (("/etc", "a cat", 0, 0), "not in the workspace"),
        ((None, "", 0, 0), "the prompt is empty"),
        ((None, "a cat", 9, 0), "layers that have it: 0 to 1"),
    ],
)
def test_mistakes_come_back_as_sentences(client, folder, arguments, sentence):
    model, *rest = arguments
    with pytest.raises(AppError, match=sentence):
        client.predict(str(folder) if model is None else model, *rest, api_name="/attention")


# ── in a browser ──


@pytest.fixture
def page(chromium, server, folder):
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.problems = []
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.goto(server)
    page.set_default_timeout(60_000)
    page.locator("#inspect-model input").fill(str(folder))  # not in the list: typed
    page.locator("#inspect-model input").press("Enter")
    page.locator("#inspect-prompt textarea").fill(PROMPT)
    page.click("#attention-show")
    page.wait_for_selector("#attention-view button[data-head]")
    yield page
    page.close()


@pytest.mark.browser
def test_looking_around_in_the_browser(page, folder):
    expected = patterns(*open_model(folder), PROMPT)
    asked = []
    page.on("request", lambda request: None if request.url.startswith("data:") else asked.append(request.url))
    view = page.locator("#attention-view")
    assert view.locator("button[data-head]").count() == 8

    # a head, by keyboard: three arrows from layer 0, head 0
    view.locator('button[data-layer="0"][data-head="0"]').focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert view.locator(".attention-name").inner_text() == "layer 1, head 2"
    assert view.locator('button[aria-pressed="true"][data-head]').get_attribute("data-layer") == "1"
    # and that is the part that the panel below would remove
    expect(page.locator("#attention-part").locator("input, textarea")).to_have_value("L1H2")

    # a token: its strongest, by name and number, and a line for each that is worth one
    i = expected.tokens.index(MARKUP) + 2
    row = expected.pattern(1, 2)[i]
    strongest = int(row.argmax())
    view.locator(f'button[data-token="{i}"]').click()
    words = view.locator(".attention-words")
    assert "attends to" in words.inner_text()
    assert f"{100 * row[strongest]:.1f} %" in words.locator("li").first.inner_text()
    assert view.locator(".attention-lines line").count() == (np.rint(1000 * row[: i + 1]) >= 10).sum()

    # the same by pointing at the large picture, and nothing sees what comes later
    cell = view.locator(".attention-map image").bounding_box()
    middle = [(k + 0.5) / len(expected.tokens) for k in (strongest, i, i + 1)]
    page.mouse.move(cell["x"] + middle[0] * cell["width"], cell["y"] + middle[1] * cell["height"])
    assert view.locator(".attention-cell").inner_text().endswith(f"{100 * row[strongest]:.1f} %")
    page.mouse.move(cell["x"] + middle[2] * cell["width"], cell["y"] + middle[1] * cell["height"])
    assert "comes later" in view.locator(".attention-cell").inner_text()

    assert asked == []  # everything was there already
    assert page.problems == []


@pytest.mark.browser
def test_a_token_that_is_markup_stays_text(page):
    view = page.locator("#attention-view")
    shown = view.locator("button[data-token]", has_text="<script>")
    assert shown.inner_text() == MARKUP
    shown.focus()
    assert MARKUP in view.locator(".attention-words").inner_text()
    assert view.locator("script").count() == 0
    assert page.title() != "taken"
    assert view.locator("button[data-token]", has_text="↵").count() == 1  # a line end is visible


@pytest.mark.browser
def test_it_fits_a_phone_and_a_mistake_is_a_sentence(page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")
    image, panel = (
        page.locator(f"#attention-view {one}").bounding_box() for one in (".attention-map svg", ".attention")
    )
    assert image["x"] + image["width"] <= panel["x"] + panel["width"]
    page.locator("#inspect-prompt textarea").fill(" ")
    page.click("#attention-show")
    page.get_by_text("the prompt is empty").wait_for()
