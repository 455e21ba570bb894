"""The Data tab's forms for text from elsewhere: corpora of the Hub, fetched by a process of their own, and mixtures.

May import `page`, Gradio and the other modules of `data`; `page.fetches` draws. The page starts a fetch and reads what
its process leaves word of; it runs on when the page is closed, and a page that was started again finds it.
"""

import re
from functools import partial

import gradio as gr

from data import fetch_jobs, preview
from data.access import Access
from data.corpora import list_corpora
from data.hub_corpora import HUB, ID, PREFIX, Choice, command_words, parse_bytes, request_for, snapshot_name
from data.mixtures import mix, parse_weights
from page import corpora as draw_corpora
from page import fetches as draw
from page.html import Markup, note
from page.tab import QUICK, WORK, answer, html

SECONDS = 1.0  # between two looks at the fetches
LONGEST = 200  # characters of a field
DOCUMENTS = re.compile(r"(\d+)\s*documents?")
PROGRESS = gr.Progress(track_tqdm=True)


def build_fetches(access: Access) -> gr.HTML:
    """What is being fetched; nothing where nothing is."""
    shown, seen = html(elem_id="data-fetches"), gr.State(None)
    gr.Timer(SECONDS).tick(answer(partial(watch, access)), seen, [shown, seen], **QUICK)

    def act(event: gr.EventData) -> tuple:
        return decide(access, event.act, event.id)

    shown.act(answer(act), None, [shown, seen], **QUICK)
    return shown


def build_forms(access: Access, corpus: gr.Textbox, listing: gr.HTML, seen: gr.State, shown: gr.HTML) -> None:
    """The two forms: fetch and mix."""
    with gr.Accordion("Fetch from the Hugging Face Hub", open=False, visible=not access.read_only, elem_id="data-hub"):
        with gr.Row():
            name = gr.Dropdown(
                [*HUB], value="tinystories", allow_custom_value=True, label="Corpus, or OWNER/NAME of a dataset",
                elem_id="data-hub-name", min_width=220,
            )  # fmt: skip
            limit = gr.Textbox(
                label="At most", placeholder="20 MB, or 5000 documents", elem_id="data-hub-limit", min_width=180
            )
        with gr.Row():
            config = gr.Textbox(label="Configuration", placeholder="the only one", min_width=120)
            split = gr.Textbox(label="Split", placeholder="train", min_width=120)
            field = gr.Textbox(label="Column with the text", placeholder="text, or the only one", min_width=120)
            revision = gr.Textbox(label="Revision", placeholder="the newest", min_width=120)
        go = gr.Button("Fetch", variant="primary", elem_id="data-hub-fetch")
        said = gr.HTML(padding=False, elem_id="data-hub-said")
        given = [name, config, split, field, revision, limit]
        go.click(answer(partial(start, access)), given, [said, shown], show_progress_on=said, **QUICK)
    with gr.Accordion("Mix corpora", open=False, visible=not access.read_only, elem_id="data-mix"):
        with gr.Row():
            mixed = gr.Textbox(label="Name", placeholder="bedtime", elem_id="data-mix-name", min_width=120)
            weights = gr.Textbox(
                label="Corpora and their shares of the bytes", placeholder="tales=0.7 shakespeare=0.3",
                elem_id="data-mix-weights", scale=2, min_width=240,
            )  # fmt: skip
            most = gr.Textbox(label="At most", placeholder="2 MB; empty: all there is", min_width=140)
            seed = gr.Number(0, label="Seed", precision=0, min_width=80)
        blend = gr.Button("Mix", variant="primary", elem_id="data-mix-go")
        done = gr.HTML(padding=False, elem_id="data-mix-said")
        made = blend.click(
            answer(partial(make_mixture, access)), [mixed, weights, most, seed], [done, corpus],
            show_progress_on=done, **WORK,
        )  # fmt: skip
        made.success(answer(partial(relist, access)), None, [listing, seen], **QUICK)


def watch(access: Access, seen: str | None) -> tuple:
    """(fetches, what was drawn), drawn again only where something has changed."""
    now = draw.fetches(fetch_jobs.fetches(access.workspace), preview.where(access.workspace))
    return (gr.skip(), gr.skip()) if now == seen else (now, str(now))


def decide(access: Access, act: str, wanted: str) -> tuple:
    """Stop, continue or remove a fetch: (fetches, what was drawn)."""
    access.check_write()
    acts = {"stop": fetch_jobs.stop, "go_on": fetch_jobs.go_on, "discard": fetch_jobs.discard}
    acts[act](fetch_jobs.by_id(access.workspace, wanted))
    return watch(access, None)


def asked(name: str, **fields: str | None) -> tuple[str, Choice]:
    """(name of a corpus on the Hub, what else is asked for), the texts of a form checked."""
    name = (name or "").strip().removeprefix(PREFIX)
    if name not in HUB and not ID.fullmatch(name):
        raise ValueError(f"{name[:LONGEST]!r} is none of {', '.join(HUB)}, and no id of a dataset, such as owner/name")
    texts = {key: (text or "").strip() or None for key, text in fields.items()}
    for key, text in {"name": name, **texts}.items():
        if text and len(text) > LONGEST:
            raise ValueError(f"the {key} is {len(text):,} characters long: it has at most {LONGEST}")
    return name if name in HUB else f"{PREFIX}{name}", Choice(**texts)


def cap(limit: str | None) -> dict[str, int]:
    """What somebody typed as the most to fetch: nothing, `20 MB`, `5000 documents`."""
    text = (limit or "").strip().replace(",", "")
    if not text:
        return {}
    match = DOCUMENTS.fullmatch(text.lower())
    return {"documents": int(match[1])} if match else {"bytes": parse_bytes(text)}


def start(
    access: Access,
    name: str,
    config: str | None = None,
    split: str | None = None,
    field: str | None = None,
    revision: str | None = None,
    limit: str = "",
) -> tuple:
    """Leave a process fetching a corpus: (what came of it, the fetches)."""
    access.check_write()
    name, choice = asked(name, config=config, split=split, field=field, revision=revision)
    choice = Choice(**choice.given(), **cap(limit))
    request = request_for(name, choice)
    called = snapshot_name(name, request.config)
    fetch_jobs.start(called, request, access.workspace)
    return note(f"{called} is being fetched; it goes on when this page is closed.", "good"), watch(access, None)[0]


def unfetched(access: Access, row: dict) -> Markup:
    """An entry of the table whose text is not here yet."""
    entry = HUB[row["name"]]
    words = command_words(row["name"], request_for(row["name"], Choice()))
    command = f"python -m data.corpora {' '.join(words)}{preview.where(access.workspace)}"
    return draw.entry(row, entry.config, entry.cap_bytes, [command])


def make_mixture(
    access: Access,
    name: str,
    weights: str,
    limit: str,
    seed: float | None,
    progress: gr.Progress = PROGRESS,
) -> tuple:
    """A mixture: (what came of it, its name)."""
    access.check_write()
    parsed = parse_weights((weights or "").replace(",", " ").split())
    for parent in parsed:
        if parent.startswith(PREFIX) or (parent in HUB and parent not in made(access)):
            raise ValueError(f"{parent} is not here yet: fetch it first")
        access.reference(parent)
    if not (name or "").strip():
        raise ValueError("the mixture has no name: type one, such as bedtime")
    most = cap(limit)
    said: list[str] = []
    caps = most.get("documents"), most.get("bytes")
    corpus = mix(name.strip(), parsed, access.workspace, *caps, int(seed or 0), said.append)
    return note(". ".join(said) or f"{corpus.name} is there already, mixed of the same texts", "good"), corpus.name


def made(access: Access) -> list[str]:
    return [row["name"] for row in list_corpora(access.workspace) if row["made"]]


def relist(access: Access) -> tuple:
    """(the list of corpora, its stamp)."""
    return draw_corpora.corpus_list(list_corpora(access.workspace)), preview.stamp(access.workspace, "corpora")
