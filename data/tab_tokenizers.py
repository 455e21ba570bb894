"""The Data tab's second half: tokenizers, their vocabularies, and how they cut a text.

May import `page`, Gradio and the other modules of `data`; `page.tokenizers` draws. Handlers are plain functions of
plain values, each name they are given checked by `access`; `build` binds them to components.
"""

from collections.abc import Sequence
from functools import partial

import gradio as gr

from data.access import Access
from data.console import nearest
from data.corpora import list_corpora, open_corpus, snapshot
from data.preview import stamp, where
from data.tokenizer_kinds import KINDS
from data.tokenizer_measures import SAMPLE, compare_two
from data.tokenizer_options import NORMALIZATIONS, SPECIAL_LIMIT, Options, flags
from data.tokenizer_report import (
    LONGEST,
    PAGE,
    Cut,
    Vocabulary,
    cut,
    describe,
    differences,
    list_tokenizers,
    open_vocabulary,
)
from page import tokenizers as draw
from page.html import Markup, note
from page.tab import MODEL, QUICK, WORK, answer, html

SECONDS = 2.0  # between two looks at the workspace's folders
VOCAB_SIZE = 1024  # offered for a new one, as a training's default is
EXAMPLE = "Once upon a time, a little fox said: “I don't know 3,141 words, naïve or not — 你好!”"
PROGRESS = gr.Progress(track_tqdm=True)  # as a handler's default: its tqdm bars are shown in the page
# A click on a token says below the text what hovering says, so that a finger can ask, too.
PICK = """
element.addEventListener("click", (event) => {
  const token = event.target.closest(".lab-token"), said = element.querySelector(".lab-data-picked");
  if (!token || !said) return;
  element.querySelectorAll("[aria-pressed]").forEach((one) => one.removeAttribute("aria-pressed"));
  token.setAttribute("aria-pressed", "true");
  said.textContent = token.title;
});
"""


def build(access: Access) -> None:
    """Lay the half out."""
    listing, seen = html(elem_id="data-tokenizers"), gr.State(None)
    corpus, train, given, done = build_training(access)
    with gr.Row(equal_height=True):
        left = gr.Dropdown(
            [], value=None, allow_custom_value=True, label="Tokenizer", elem_id="data-tokenizer", min_width=200,
            info="From the list above; or a folder, or an id on the Hub",
        )  # fmt: skip
        right = gr.Dropdown(
            [], value=None, allow_custom_value=True, label="Compare with", min_width=200,
            info="Another one, on the same text", elem_id="data-tokenizer-right",
        )  # fmt: skip
    train.click(answer(partial(train_one, access)), given, [done, left], show_progress_on=done, **WORK)
    text = gr.Textbox(
        EXAMPLE, label="Text", lines=3, max_lines=10, elem_id="data-text", info=f"Its first {LONGEST:,} characters"
    )
    tokens = html(js_on_load=PICK, elem_id="data-tokens")
    compared = html(js_on_load=PICK, elem_id="data-compare")
    cutting = {"fn": answer(partial(show_text, access)), "inputs": [left, right, text], "outputs": [tokens, compared]}
    gr.on([right.change, text.change], **cutting, trigger_mode="always_last", **QUICK)
    build_comparison(access, left, right)
    # one after the other, so that a wrong name is told once
    build_vocabulary(access, left).success(**cutting, **QUICK)

    def open_one(event: gr.EventData) -> str:
        return access.reference(event.name)

    listing.act(answer(open_one), None, left, **QUICK)
    watched = [listing, seen, left, right, corpus]
    gr.Timer(SECONDS).tick(answer(partial(watch, access)), [seen, left], watched, **QUICK)


def build_training(access: Access) -> tuple[gr.Dropdown, gr.Button, list, gr.HTML]:
    """The form that trains one. Returns the list of corpora, the button, what is given, and where it says what came."""
    with gr.Accordion("Train a tokenizer", open=False, visible=not access.read_only, elem_id="data-tokenizer-new"):
        with gr.Row(equal_height=True):
            corpus = gr.Dropdown([], value=None, label="Corpus", elem_id="data-tokenizer-corpus", min_width=150)
            kind = gr.Radio([*KINDS], value="bpe", label="Kind", elem_id="data-tokenizer-kind", min_width=210)
            size = gr.Number(VOCAB_SIZE, label="Entries", elem_id="data-tokenizer-size", min_width=110)
            name = gr.Textbox(
                label="Name", placeholder="corpus-kind-entries", elem_id="data-tokenizer-name", min_width=150
            )
        kinds = "; ".join(f"{name}: {kind.about}" for name, kind in KINDS.items())
        gr.HTML(f'<p class="lab-data-hint">{kinds}. The text decides how many entries char has.</p>', padding=False)
        options = build_options()
        train = gr.Button("Train", variant="primary", elem_id="data-tokenizer-train")
        done = html(elem_id="data-tokenizer-done")
    return corpus, train, [corpus, kind, size, name, *options], done


def build_options() -> list[gr.components.Component]:
    """What `Options` asks for, in its order."""
    with gr.Row(equal_height=True):
        pattern = gr.Textbox(
            label="Special entries by pattern", placeholder=r"<\|[a-z_]+\|>", elem_id="data-tokenizer-pattern",
            info="A regular expression: what it finds is never split", min_width=210,
        )  # fmt: skip
        limit = gr.Number(
            SPECIAL_LIMIT, label="The most of them", elem_id="data-tokenizer-limit", min_width=110, precision=0,
            info="Most frequent first",
        )  # fmt: skip
        normalization = gr.Dropdown(
            [*NORMALIZATIONS], value="none", label="Normalisation", elem_id="data-tokenizer-normalization",
            info="All but none lose what they change", min_width=150,
        )  # fmt: skip
    with gr.Row():
        digits = gr.Checkbox(label="Each digit by itself", elem_id="data-tokenizer-digits", min_width=150)
        space = gr.Checkbox(label="A space before each text", elem_id="data-tokenizer-space", min_width=150)
    return [pattern, limit, digits, space, normalization]


def build_comparison(access: Access, left: gr.Dropdown, right: gr.Dropdown) -> None:
    """Both chosen tokenizers on the validation text of a corpus."""
    with gr.Accordion("Compare both on a corpus", open=False, elem_id="data-compare-corpus-part"):
        corpus = gr.Dropdown(
            [], value=None, allow_custom_value=True, label="Corpus", elem_id="data-compare-corpus",
            info="A snapshot; its validation text is taken",
        )  # fmt: skip
        compare = gr.Button("Compare", elem_id="data-compare-go")
        shown = html(elem_id="data-compare-shown")
    corpus.focus(answer(partial(made_corpora, access)), None, corpus, **QUICK)
    asked = [left, right, corpus]
    compare.click(answer(partial(compare_on_corpus, access)), asked, shown, show_progress_on=shown, **MODEL)


def made_corpora(access: Access) -> dict:
    return gr.update(choices=[row["name"] for row in list_corpora(access.workspace) if row["made"]])


def build_vocabulary(access: Access, left: gr.Dropdown) -> gr.events.Dependency:
    """What the chosen tokenizer is, and its entries. Returns the event that has opened it."""
    with gr.Accordion("About it, and its vocabulary", open=True, elem_id="data-vocabulary-part"):
        shown = html(elem_id="data-tokenizer-detail")
        search = gr.Textbox(label="Search", placeholder="a piece of text or an id", elem_id="data-vocabulary-search")
        start = gr.State(0)
        page = html(elem_id="data-vocabulary")
        with gr.Row():
            earlier = gr.Button("Earlier", size="sm", elem_id="data-vocabulary-earlier")
            later = gr.Button("Later", size="sm", elem_id="data-vocabulary-later")
    found = {"fn": answer(partial(show_vocabulary, access)), "inputs": [left, search]}
    found["outputs"] = [page, start, earlier, later]
    opening = left.change(answer(partial(show_report, access)), left, shown, **QUICK)
    opening.success(**found, **QUICK)
    search.change(**found, trigger_mode="always_last", **QUICK)
    for button, step in ((earlier, -PAGE), (later, PAGE)):
        button.click(answer(partial(turn, access, step)), [left, search, start], found["outputs"], **QUICK)
    return opening


def watch(access: Access, seen: Sequence[int] | None, chosen: str | None) -> tuple:
    """(list, what was seen, both choices of tokenizers, corpora), anew only where something was made or deleted."""
    now = [stamp(access.workspace, "tokenizers"), stamp(access.workspace, "corpora")]
    if now == seen:
        return (gr.skip(),) * 5
    reports = list_tokenizers(access.workspace)
    names = [report["name"] for report in reports]
    first = gr.update(choices=names, value=chosen or (names[0] if names else None))
    corpora = corpora_at_hand(access)
    return draw.tokenizer_list(reports), now, first, gr.update(choices=names), gr.update(choices=corpora)


def corpora_at_hand(access: Access) -> list[str]:
    """Those that are here or made in moments; what has to be fetched first is fetched by the other half."""
    return [row["name"] for row in list_corpora(access.workspace) if row["made"] or row["built_in"]]


def opened(access: Access, name: str | None) -> Vocabulary:
    """A tokenizer by a name that somebody typed, which is checked."""
    return open_vocabulary(access.reference(name or ""), access.workspace)


def cut_text(access: Access, name: str | None, text: str) -> tuple[Vocabulary, Cut, str]:
    """(the tokenizer, the text in its tokens, what was left out)."""
    vocabulary = opened(access, name)
    left_out = f"The text has {len(text):,} characters; its first {LONGEST:,} are cut here." * (len(text) > LONGEST)
    return vocabulary, cut(vocabulary, text[:LONGEST]), left_out


def show_text(access: Access, left: str | None, right: str | None, text: str) -> tuple[Markup, Markup]:
    """(the text in one tokenizer's tokens, the comparison with the other)."""
    if not left:
        return note("Choose a tokenizer, or train one."), Markup("")
    if not text:
        return note("Type a text to see how it is cut."), Markup("")
    ours, our_cut, left_out = cut_text(access, left, text)
    drawn = draw.tokens(ours.tokenizer.name, our_cut, left_out)
    if not right:
        return drawn, Markup("")
    theirs, their_cut, _ = cut_text(access, right, text)
    rows = compare_two(ours, theirs, [text[:LONGEST]])
    different = differences(our_cut, their_cut) if our_cut.exact and their_cut.exact else None
    return drawn, draw.comparison(rows, different, draw.tokens(theirs.tokenizer.name, their_cut, ""))


def compare_on_corpus(access: Access, left: str | None, right: str | None, corpus: str | None) -> Markup:
    """Two tokenizers on a corpus: side by side, and the words on which they differ most."""
    if not left or not right:
        raise ValueError("choose two tokenizers above: one, and one to compare it with")
    made = snapshot(access.reference(corpus), access.workspace)
    rows = compare_two(opened(access, left), opened(access, right), made.texts("validation", SAMPLE))
    return draw.corpus_comparison(rows, made.name)


def show_report(access: Access, name: str | None) -> Markup:
    """What a tokenizer is, and the command that makes or shows it."""
    if not name:
        return Markup("")
    vocabulary = opened(access, name)
    report, at = describe(vocabulary.tokenizer), where(access.workspace)
    plain = report["name"].partition("@v")[0]
    commands = [f"python -m data.tokenizer compare {report['name']} OTHER{at}"]
    if "corpus" in report:
        settings = report["settings"]
        size = f" --vocab-size {settings['vocab_size']}" if "vocab_size" in settings else ""
        corpus = f"--corpus {report['corpus']['name']} --kind {settings['kind']}{size} {flags(settings)}".rstrip()
        commands.insert(0, f"python -m data.tokenizer train {plain} {corpus}{at}")
    return draw.report(report, commands)


def show_vocabulary(access: Access, name: str | None, search: str, start: int = 0) -> tuple:
    """(entries, the first of them, Earlier, Later)."""
    if not name:
        return "", 0, gr.update(interactive=False), gr.update(interactive=False)
    entries, total = opened(access, name).find(search, start)
    back, on = gr.update(interactive=start > 0), gr.update(interactive=start + PAGE < total)
    return draw.vocabulary(entries, start, total), start, back, on


def turn(access: Access, step: int, name: str | None, search: str, start: int) -> tuple:
    return show_vocabulary(access, name, search, max(0, start + step))


def train_one(
    access: Access,
    corpus: str | None,
    kind: str,
    size: float | None,
    name: str,
    pattern: str = "",
    limit: float | None = SPECIAL_LIMIT,
    digits: bool = False,
    space: bool = False,
    normalization: str = "none",
    progress: gr.Progress = PROGRESS,
) -> tuple:
    """(what came of it, the tokenizer), trained now or found where it has been done."""
    access.check_write()
    known = corpora_at_hand(access)
    if access.reference(corpus or "") not in known:
        raise ValueError(f"there is no corpus {corpus!r}: {nearest(corpus, known)}")
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r} of tokenizer: {nearest(kind or '', KINDS)}")
    if size is None or size != size // 1:
        raise ValueError(f"the number of entries should be a whole number, such as {VOCAB_SIZE:,}")
    if limit is None or limit != limit // 1:
        raise ValueError(f"the most special entries should be a whole number, such as {SPECIAL_LIMIT}")
    options = Options(pattern or None, int(limit), digits, space, normalization)
    from data.tokenizer import open_tokenizer, train_version  # seconds: imports transformers

    progress((1, 3), desc=f"opening {corpus}", unit="phases")
    text = open_corpus(corpus, access.workspace)
    progress((2, 3), desc=f"learning the vocabulary from {corpus}", unit="phases")
    if name.strip():
        trained = train_version(name.strip(), kind, text, int(size), access.workspace, options)
    else:  # named, and found again, as a training does it
        trained = open_tokenizer(kind, text, int(size), access.workspace, options)
    report = trained.report
    said = f"{trained.name}: {report['vocab_size']:,} entries, {report['bytes_per_token']:.3f} bytes per token"
    fewer = " (the text gives no more)" if report["vocab_size"] < report["settings"].get("vocab_size", 0) else ""
    return note(said + fewer, "good"), gr.update(value=trained.name)
