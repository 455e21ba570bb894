"""The Generate tab: what is shown is what the model computed, shown as text; stopping stops; one endpoint."""

import math
import shlex
import time
from html.parser import HTMLParser

import gradio as gr
import pytest
import torch
import torch.nn.functional as F
from gradio_client import Client
from gradio_client.exceptions import AppError
from transformers import LlamaConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data.access import Access
from data.tokenizer_kinds import train_tokenizer
from data.workspace import Workspace
from hub.loaded import loaded
from hub.runs import Run
from interpret import continuation
from interpret.continuation import Settings, paced, settings_from, start, take_turns
from interpret.generate import main, parse
from interpret.sampling import Sampling
from interpret.tab_chat import clear_chat, converse, retry, say, stop_chat
from interpret.tab_generate import beside_its_base, build, check, choose, compare, stop_texts
from interpret.writing import prompt_ids, write
from modeling import LabGPTConfig
from page.generation import SHADES, percent, runners_up
from page.tokens import shade

MARKUP = "<script>document.title='taken'</script>"
PROMPT = f"the cat {MARKUP} sat"
FIELDS = (12, False, 1, None, None, 1, 5)  # as settings_from takes them; 5 is the seed
CONTEXT = 96


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """These models are so small that a second thread only gets in the way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def access(tmp_path_factory) -> Access:
    """A workspace of two runs. Their vocabulary has an entry that would be markup if it were not text."""
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    tokenizer = train_tokenizer("bpe", ["the cat sat on the mat.\n"] * 20, 280)
    tokenizer.add_special_tokens({"extra_special_tokens": [*tokenizer.extra_special_tokens, MARKUP]})
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"max_position_embeddings": CONTEXT, "initializer_range": 0.4, "eos_token_id": None, "bos_token_id": None}
    torch.manual_seed(3)
    for name, config in (("llama", LlamaConfig(**sizes, intermediate_size=64)), ("labgpt", LabGPTConfig(**sizes))):
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():  # so that it is written, often
            model.get_output_embeddings().weight[-1] *= 6
        run = Run.create(workspace, name, "pretrain", ["python"], "", 0, {})
        model.save_pretrained(run.path)
        tokenizer.save_pretrained(run.path)
    return Access(workspace)


class Tokens(HTMLParser):
    """The tokens of a drawn text: (class, title, words) of each button, and every tag there is."""

    def __init__(self, html: str):
        super().__init__()
        self.found, self.tags, self.within = [], set(), False
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.within = tag == "button"
        if self.within:
            self.found.append([dict(attributes).get("class"), dict(attributes).get("title"), ""])

    def handle_data(self, data):
        if self.within:
            self.found[-1][2] += data

    def handle_endtag(self, tag):
        self.within = False


def last(drawn) -> tuple:
    """The last outputs of a handler, where a skipped one is what was there before."""
    shown = None
    for outputs in drawn:
        skipped = [isinstance(output, dict) and output.get("__type__") == "update" for output in outputs]
        shown = [old if skip else new for old, new, skip in zip(shown or outputs, outputs, skipped, strict=True)]
    return tuple(shown)


def settings(count: int = 12, **sampling) -> Settings:
    return Settings(Sampling(**sampling), count, 5)


# ── what is shown ──


@pytest.mark.parametrize("name", ["llama", "labgpt"])
def test_the_shown_probabilities_are_the_softmax_of_the_models_logits(access, name):
    output, _, _, (text,) = last(compare(access, name, None, PROMPT, 30, False, 0.8, 50, 0.9, 1.1, 5))
    model, tokenizer = loaded(name, access)
    ids, written = prompt_ids(model, tokenizer, PROMPT), [token.id for token in text.tokens]
    with torch.no_grad():
        own = model(torch.tensor([ids + written])).logits[0, len(ids) - 1 : -1].softmax(-1)  # (tokens, V)
    shown = Tokens(output).found
    assert len(shown) == len(written) == 30
    for (css, title, _), probabilities, token in zip(shown, own, written, strict=True):
        probability, rank = probabilities[token].item(), 1 + int((probabilities > probabilities[token]).sum())
        told = title.split(",")[0]
        assert told == percent(probability) or float(told[:-1]) == pytest.approx(100 * probability, abs=0.06)
        assert f", rank {rank};" in title
        assert css == f"lab-token p{shade(probability)}"
    expected = F.nll_loss(own.log(), torch.tensor(written)).item()
    assert f"{expected:.2f} nats per token" in output


def test_markup_is_text_wherever_it_comes_from(access):
    output, after, panel, (text, _) = last(compare(access, "llama", "labgpt", PROMPT, 60, *FIELDS[1:]))
    special = next(token for token in text.tokens if token.token == MARKUP)
    for html in (output, after, panel, runners_up(special)):
        assert "script" not in Tokens(html).tags
    assert MARKUP in [words for _, _, words in Tokens(output).found]
    chat = last(say(access, "llama", None, "", MARKUP, [], *FIELDS))[2]
    assert "<" not in str(chat)
    assert "&lt;script&gt;" in chat[0]["content"]


def test_the_runners_up_fill_the_vocabulary(access):
    *_, texts = last(compare(access, "llama", None, PROMPT, *FIELDS))
    token = texts[0].tokens[3]
    panel = choose(texts, gr.EventData(None, {"text": "0", "token": "3"}))
    assert panel.count("<li") == 1 + len(token.runners_up) + 1  # itself, the others, all others
    widths = [float(part.split("%")[0]) for part in panel.split('style="width:')[1:]]
    assert sum(widths) == pytest.approx(100, abs=0.1)
    assert panel.count('<li class="chosen">') == 1
    assert f"width:{token.probability:.2%}" in panel
    with pytest.raises(ValueError, match="generate it again"):
        choose([], gr.EventData(None, {"text": "0", "token": "3"}))


def test_the_legend_names_the_bounds_of_the_shades():
    assert [shade(low) for low in SHADES] == list(range(len(SHADES)))
    assert [shade(low * 0.999) for low in SHADES[:-1]] == list(range(1, len(SHADES)))


def test_two_models_write_what_each_writes_alone(access):
    output, after, _, texts = last(compare(access, "llama", "labgpt", PROMPT, *FIELDS))
    for name, text in zip(("llama", "labgpt"), texts, strict=True):
        alone = list(write(*loaded(name, access), PROMPT, Sampling(), 12, seed=5))
        assert text.tokens == alone
        assert f"<h4>{name}</h4>" in output
        assert f"interpret.generate {name} " in after
    assert texts[0].tokens != texts[1].tokens


def test_a_text_beyond_the_context_says_so(access):
    output, *_ = last(compare(access, "labgpt", None, "the cat", CONTEXT, *FIELDS[1:]))
    length = len(prompt_ids(*loaded("labgpt", access), "the cat"))
    assert f"The last {length} tokens stand beyond the {CONTEXT}" in output


@pytest.mark.parametrize(
    "fields",
    [FIELDS, ("7", True, "", "", "", "1.3", ""), (7, False, "0.7", "9", "0.95", "1", str(2**64 - 1))],
)
@pytest.mark.parametrize("prompt", ["", "the cat's $HOME\n`x` \"", "-- the cat"])
def test_the_command_asks_for_the_same(access, fields, prompt):
    found = settings_from(*fields)
    given = parse(shlex.split(found.command("llama", prompt, access.workspace))[3:])
    sampling = Sampling(given.greedy, given.temperature, given.top_k, given.top_p, given.repetition_penalty)
    assert (given.run, given.prompt, given.workspace) == ("llama", prompt, str(access.workspace.root))
    assert (given.max_new_tokens, sampling) == (found.max_new_tokens, found.sampling)
    assert found.sampling.greedy or given.seed == found.seed


def test_the_command_writes_the_same(access, capsys):
    *_, (text,) = last(compare(access, "labgpt", None, "the cat", 12, False, 0.8, None, 0.9, 1, ""))
    main(shlex.split(text.settings.command("labgpt", "the cat", access.workspace))[3:])
    assert capsys.readouterr().out == f"the cat{text.text}\n"


# ── what is refused ──


@pytest.mark.parametrize(
    ("at", "value", "sentence"),
    [
        (0, "", "new tokens is empty"),
        (0, 0, "new tokens 0 must be from 1 to 2,000"),
        (0, 10**9, "must be from 1 to 2,000"),
        (0, "many", "new tokens 'many' is not a number"),
        (2, 0, "temperature=0 must be"),
        (2, "", "temperature is empty"),
        (2, "nan", "temperature=nan must be"),
        (2, 1e-30, "temperature=1e-30 must be"),
        (3, 2.5, "top-k 2.5 is not a whole number"),
        (3, 0, "top_k=0"),
        (4, 7, "top_p=7 must be above 0 and at most 1"),
        (4, [1], r"top-p \[1\] is not a number"),
        (5, "1e-30", "repetition_penalty=1e-30 must be from"),
        (6, -1, "seed -1 must be from 0"),
        (6, str(2**64), "seed '18446744073709551616' must be from 0|seed 18446744073709551616 must be from 0"),
        (6, float("inf"), "seed inf is not a whole number"),
    ],
)
def test_a_wrong_setting_is_named(at, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        settings_from(*FIELDS[:at], value, *FIELDS[at + 1 :])


def test_large_settings_that_mean_something_are_taken(access):
    for sampling in (Sampling(temperature=1e-4), Sampling(temperature=1e30), Sampling(repetition_penalty=0.01)):
        assert len(list(write(*loaded("labgpt", access), PROMPT, sampling, 5))) == 5
    assert len(list(write(*loaded("labgpt", access), PROMPT, Sampling(top_k=10**18), 5))) == 5


@pytest.mark.parametrize("refused", ["", None, "../../etc", "/etc/passwd", "no-such-run", "Qwen/Qwen3-0.6B", "x" * 999])
def test_a_model_that_cannot_be_had_is_one_sentence(access, refused):
    with pytest.raises(ValueError) as said:
        last(compare(access, refused, None, PROMPT, *FIELDS))
    assert 10 < len(str(said.value)) < 400
    if refused:
        with pytest.raises(ValueError):
            last(compare(access, "llama", refused, PROMPT, *FIELDS))


def test_a_prompt_that_does_not_fit_is_refused(access):
    with pytest.raises(ValueError, match=f"llama was made for {CONTEXT}"):
        last(compare(access, "llama", None, "the cat " * CONTEXT, *FIELDS))
    with pytest.raises(ValueError, match="shorten it to 100,000 at most"):
        last(compare(access, "llama", None, "x" * 100_001, *FIELDS))


def test_a_mistake_leaves_nothing_that_looks_like_writing(access):
    shown = []
    with pytest.raises(ValueError):
        shown.extend(compare(access, "llama", None, "the cat " * CONTEXT, *FIELDS))
    assert shown[-1] == ("", "", "", [])
    assert "Waiting for llama" in check(access, "llama", "", PROMPT, *FIELDS)[0]


def test_weights_that_are_not_numbers_are_named(access):
    for name in ("llama", "labgpt"):
        model, tokenizer = loaded(name, access)
        broken = AutoModelForCausalLM.from_config(model.config).eval()
        torch.nn.init.constant_(broken.get_output_embeddings().weight, math.nan)
        for sampling in (Sampling(), Sampling(greedy=True)):
            with pytest.raises(ValueError, match="its training diverged"):
                list(write(broken, tokenizer, "the cat", sampling, 3))


# ── stopping, and how often the page is drawn ──


@pytest.fixture
def reads(access):
    """How often the model has computed; each time takes a while, as in a large one."""
    model, seen = loaded("llama", access)[0], []

    def read(*_) -> None:
        seen.append(time.monotonic())
        time.sleep(0.02)

    hook = model.register_forward_hook(read)
    yield seen
    hook.remove()


def test_closing_the_stream_stops_the_model(access, reads):
    drawn = compare(access, "llama", None, PROMPT, 80, *FIELDS[1:])
    for _, _ in zip(range(3), drawn, strict=False):
        pass
    drawn.close()
    count = len(reads)
    assert 0 < count < 40
    time.sleep(0.2)
    assert len(reads) == count


def test_stop_ends_a_text_before_its_next_token(access, reads):
    text, tokens = start("llama", *loaded("llama", access), PROMPT, settings(80))
    rounds = take_turns([(text, tokens)])
    for _ in range(5):
        next(rounds)
    output, after = stop_texts(access, [text])
    assert list(rounds) == []
    assert len(reads) == len(text.tokens) == 5
    assert "· stopped ·" in output and "interpret.generate llama" in after
    assert stop_texts(access, []) == ("", "")


def test_the_page_is_drawn_no_more_than_fifteen_times_a_second(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(continuation.time, "monotonic", lambda: now[0])

    def rounds(seconds: float):
        while now[0] < seconds:
            now[0] += 0.001
            yield

    class Text:
        tokens = ()

    assert 10 <= sum(1 for _ in paced(rounds(1), [Text])) <= 15
    Text.tokens = range(2_000)  # all of it is sent each time
    now[0] = 0.0
    assert sum(1 for _ in paced(rounds(2), [Text])) <= 5


# ── the chat ──


def test_a_conversation_goes_on(access):
    _, talks, _, none, below, _ = last(say(access, "llama", None, "be brief", "hello", [], *FIELDS))
    assert [[message["role"] for message in talk] for talk in talks] == [["user", "assistant"]] and none == []
    assert "pretrained on plain text" in below and "seed 5" in below
    _, longer, *_ = last(say(access, "llama", "", "be brief", "more", talks, 3, *FIELDS[1:]))
    assert longer[0][:2] == talks[0] and longer[0][2]["content"] == "more"
    box, again, *_ = last(retry(access, "llama", None, "be brief", "typing", longer, 3, *FIELDS[1:-1], 6))
    assert again[0][:3] == longer[0][:3] and again[0][3] != longer[0][3]
    assert isinstance(box, dict)  # left as it is


def test_two_models_answer_as_each_does_alone(access):
    _, talks, first, second, below, texts = last(say(access, "llama", "labgpt", "", "hello", [], *FIELDS))
    assert [talk[0]["content"] for talk in talks] == ["hello", "hello"] and len(texts) == 2
    for name, talk, drawn in zip(("llama", "labgpt"), talks, (first, second), strict=True):
        _, alone, shown, *_ = last(say(access, name, None, "", "hello", [], *FIELDS))
        assert alone == [talk] and shown == drawn
    assert talks[0] != talks[1] and below.count("<section>") == 2
    _, longer, *_ = last(say(access, "llama", "labgpt", "", "more", talks, 3, *FIELDS[1:]))
    assert [talk[:2] for talk in longer] == talks  # each goes on from its own answer
    _, joined, *_ = last(say(access, "llama", "labgpt", "", "more", talks[:1], 3, *FIELDS[1:]))
    assert joined[1][:2] == talks[0]  # who joins later, from the first's
    _, left, _, gone, *_ = last(say(access, "llama", None, "", "more", talks, 3, *FIELDS[1:]))
    assert len(left) == 1 and gone == []


def test_stopping_a_chat_keeps_what_was_said(access, reads):
    drawn = say(access, "llama", "labgpt", "", "hello", [], 80, *FIELDS[1:])
    outputs = [next(drawn) for _ in range(4)]
    texts, talks = outputs[1][-1], outputs[-1][1]
    said, *_, below = stop_chat(access, talks, texts)
    assert all(text.stop for text in texts) and below.count("stopped") == 2
    assert [talk[-1]["content"] for talk in said] == [text.text for text in texts]
    assert clear_chat(texts) == ([], [], [], "", [])
    assert stop_chat(access, [], []) == ([], [], [], "")


def test_mistakes_in_a_chat_lose_nothing(access):
    talks = [[{"role": "user", "content": "the cat " * 60}]]
    shown = []
    with pytest.raises(ValueError, match="tokens to read"):
        shown.extend(say(access, "llama", None, "", "hello", talks, *FIELDS))
    assert shown[-1] == ("hello", talks, talks[0], [], "", [])
    with pytest.raises(ValueError, match="message is empty"):
        last(say(access, "llama", None, "", " \n", [], *FIELDS))
    with pytest.raises(ValueError, match="no message to answer"):
        last(retry(access, "llama", None, "", "", [], *FIELDS))


def test_the_system_prompt_is_read(access):
    asked = [[{"role": "user", "content": "hello"}]]
    told, alone = (last(converse(access, ["llama"], system, asked, *FIELDS))[-1][0] for system in ("be brief", ""))
    assert told.prompt_tokens > alone.prompt_tokens


def test_a_fine_tuned_run_is_shown_beside_its_base(tmp_path):
    workspace = Workspace(tmp_path)
    base = {"id": "cats-1a2b3c", "revision": "step-000010", "sha256": "0" * 64}
    (workspace.room("runs") / base["id"]).mkdir()
    runs = {}
    for name, kind, inputs in (("tuned", "finetune", {"base": base}), ("plain", "pretrain", {"base": base})):
        runs[name] = Run.create(workspace, name, kind, ["python"], "", 0, inputs).id
    access, ref = Access(workspace), "cats-1a2b3c@step-000010"
    second, offered, way = beside_its_base(access, runs["tuned"], None, None)
    assert (second, offered) == (ref, ref) and way == gr.skip()
    (workspace.root / "runs" / runs["tuned"] / "chat_template.jinja").write_text("x")
    assert beside_its_base(access, f"{runs['tuned']}@best", "", None)[2].selected == "chat"
    assert beside_its_base(access, runs["tuned"], "another", None)[:2] == (gr.skip(), ref)  # chosen by hand: kept
    assert beside_its_base(access, runs["plain"], ref, ref)[:2] == (None, None)  # what was offered goes
    assert beside_its_base(access, runs["plain"], "another", ref)[0] == gr.skip()
    for other in ("", None, "no-such-run", "Qwen/Qwen3-0.6B", "/etc/passwd"):
        assert beside_its_base(access, other, "another", None)[:2] == (gr.skip(), None)


# ── as a program and as a browser see it ──


@pytest.fixture(scope="module")
def server(access):
    with gr.Blocks(analytics_enabled=False) as page, gr.Tabs(), gr.Tab("Generate"):
        build(access)
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True)
    yield url
    page.close()


@pytest.fixture(scope="module")
def client(server):
    return Client(server, verbose=False)


def test_building_writes_nothing(tmp_path):
    with gr.Blocks(analytics_enabled=False):
        build(Access(Workspace(tmp_path / "none")))
    assert list(tmp_path.iterdir()) == []


def test_a_program_gets_the_text_and_its_tokens(client, access):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert list(endpoints) == ["/generate"]
    assert "Let a model continue a text" in endpoints["/generate"]["description"]
    found = client.predict("llama", "the cat", 6, seed=9, temperature=0.7, api_name="/generate")
    expected = list(write(*loaded("llama", access), "the cat", Sampling(temperature=0.7), 6, seed=9))
    assert found["text"] == "".join(token.text for token in expected)
    assert (found["seed"], found["stop"]) == (9, "length")
    assert [(one["token"], one["rank"]) for one in found["tokens"]] == [(one.token, one.rank) for one in expected]
    assert [one["probability"] for one in found["tokens"]] == pytest.approx([one.probability for one in expected])


def test_a_program_can_stop_what_it_started(client, reads):
    job = client.submit("llama", "the cat", 1500, seed=1, api_name="/generate")
    while not job.outputs():
        time.sleep(0.01)
    job.cancel()
    time.sleep(0.3)
    count = len(reads)
    time.sleep(0.3)
    assert len(reads) == count < 1500


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "../../etc"}, "not in the workspace"),
        ({"model": "no-such-run"}, "no-such-run"),
        ({"top_p": 7}, "top_p=7 must be"),
        ({"seed": "abc"}, "seed 'abc' is not a number"),
        ({"temperature": None}, "temperature is empty"),
        ({"prompt": ["a"]}, r"the prompt \['a'\] is no text"),
        ({"model": {"a": 1}}, "no file or folder"),
        ({"prompt": "the cat " * 200}, "shorten it"),
    ],
)
def test_mistakes_come_back_as_sentences(client, arguments, sentence):
    with pytest.raises(AppError, match=sentence):
        client.predict(**{"model": "llama", "prompt": "x", "max_new_tokens": 3} | arguments, api_name="/generate")


@pytest.fixture
def page(chromium, server):
    page = chromium.new_page()
    page.goto(server)
    page.set_default_timeout(60_000)
    yield page
    page.close()


@pytest.mark.browser
def test_writing_in_the_browser(page, reads):
    page.locator("#generate-second input").fill("labgpt")
    page.locator("#generate-second input").press("Enter")
    prompt = "{{value}} ${1+1} " + MARKUP  # nor is it a template
    page.locator("#generate-prompt textarea").fill(prompt)
    page.get_by_label("New tokens").fill("24")
    page.get_by_label("Seed").fill("5")  # with some others a text ends before its 24 tokens
    page.click("#generate-run")
    page.wait_for_selector("#generate-after .lab-code")
    assert page.locator("#generate-output .lab-generate-prompt").first.inner_text() == prompt
    assert page.locator("#generate-output [data-text] [data-token]").count() == 48

    count = len(reads)
    token = page.locator("#generate-output [data-text='1'] [data-token]").nth(4)
    token.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    chosen = page.locator("#generate-output [aria-pressed='true']")
    chosen.wait_for()
    assert chosen.get_attribute("data-token") == "5"
    page.wait_for_selector("#generate-runners-up li.chosen")
    assert chosen.get_attribute("title") in page.locator("#generate-runners-up").inner_text()
    assert len(reads) == count  # no model was asked
    assert page.title() != "taken"

    page.get_by_label("Greedy").check()  # drawn by lot, one of 1,500 tokens might end the text first
    page.get_by_label("New tokens").fill("1500")
    page.click("#generate-run")
    page.wait_for_function("document.querySelector('.lab-generate-how')?.innerText.includes('writing')")
    page.click("#generate-stop")
    page.wait_for_selector("#generate-after .lab-code")
    assert "stopped" in page.locator(".lab-generate-how").first.inner_text()
    time.sleep(0.2)  # for the token that was being computed
    count = len(reads)
    time.sleep(0.3)
    assert len(reads) == count < 1500


@pytest.mark.browser
def test_two_conversations_in_the_browser(page):
    page.get_by_role("tab", name="Chat").click()
    chats = [page.locator(f"#generate-chat{side}") for side in ("", "-second")]
    chats[0].wait_for()
    assert not chats[1].is_visible()
    page.locator("#generate-second input").fill("llama")
    page.locator("#generate-second input").press("Enter")
    chats[1].wait_for()
    page.get_by_label("New tokens").fill("8")
    page.locator("#generate-chat-message textarea").fill(f"hello {MARKUP}")
    page.locator("#generate-chat-send").click()
    for chat in chats:
        chat.locator(".bot").first.wait_for()
        assert MARKUP in chat.locator(".user").first.inner_text()
    assert page.locator("#generate-chat-how section").count() == 2
    assert page.title() != "taken"
    page.locator("#generate-chat-clear").click()
    chats[1].locator(".bot").first.wait_for(state="detached")
