"""The Data tab's first half: corpora, what is in them, and adding one's own.

May import `page`, Gradio and the other modules of `data`; `page.corpora` draws. Handlers are plain functions of plain
values, each name they are given checked by `access`; `build` binds them to components.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import gradio as gr

from data import preview, tab_fetch, tab_statistics
from data.access import Access
from data.builtin import BUILT_IN
from data.console import nearest
from data.corpora import NOT_STATED, add_corpus, default_name, list_corpora, open_corpus, snapshot, snapshot_names
from data.hub_corpora import HUB
from data.snapshots import SPLITS, VALIDATION_FRACTION, Corpus, delete_snapshot
from data.sources import READERS
from page import corpora as draw
from page.html import Markup, note
from page.tab import QUICK, WORK, answer, html

SECONDS = 2.0  # between two looks at the workspace's folder
PROGRESS = gr.Progress(track_tqdm=True)  # as a handler's default: its tqdm bars are shown in the page
TO_DETAIL = "() => document.getElementById('data-detail')?.scrollIntoView({behavior: 'smooth', block: 'start'})"


def build(access: Access) -> tuple[gr.Textbox, gr.Button]:
    """Lay the half out. Returns what holds the chosen corpus's name, and the button that takes it to a training."""
    corpus = gr.Textbox(visible="hidden", elem_id="data-corpus", label="chosen corpus")
    listing, seen = html(elem_id="data-corpora"), gr.State(None)
    gr.Timer(SECONDS).tick(answer(partial(watch_corpora, access)), seen, [listing, seen], **QUICK)
    fetching = tab_fetch.build_fetches(access)
    build_upload(access, corpus, listing, seen)
    tab_fetch.build_forms(access, corpus, listing, seen, fetching)
    with gr.Column(visible=False, elem_id="data-detail", elem_classes="lab-data-panel") as panel:
        head = html()
        make = gr.Button("Make it now", variant="primary", elem_id="data-make")
        with gr.Row() as actions:
            to_train = gr.Button("Train on this", variant="primary", size="sm", elem_id="data-to-train")
            ask = gr.Button("Delete", size="sm", elem_id="data-delete", visible=not access.read_only)
        with gr.Column(visible=False) as asked:
            question = html()
            with gr.Row():
                confirm = gr.Button("Delete it", variant="stop", size="sm", elem_id="data-delete-yes")
                keep = gr.Button("Keep it", size="sm", elem_id="data-delete-no")
        body = html()
        tab_statistics.build(access, corpus)
        with gr.Column() as there:
            again = build_documents(access, corpus)

    def open_one(event: gr.EventData) -> str:
        return access.reference(event.name)

    opening = {"fn": answer(partial(open_detail, access)), "inputs": corpus, **QUICK}
    opening["outputs"] = [head, body, panel, make, asked, actions, there]
    listing.act(answer(open_one), None, corpus, **QUICK).success(None, js=TO_DETAIL, api_visibility="private")
    corpus.change(**opening).success(**again)
    making = make.click(answer(partial(make_now, access)), corpus, [body, listing, seen], show_progress_on=body, **WORK)
    making.success(**opening).success(**again)
    ask.click(answer(partial(ask_delete, access)), corpus, [question, asked], **QUICK)
    keep.click(lambda: gr.Column(visible=False), None, asked, **QUICK)
    confirm.click(answer(partial(delete, access)), corpus, [corpus, listing, seen], **WORK)
    return corpus, to_train


def build_documents(access: Access, corpus: gr.Textbox) -> dict:
    """The documents of the chosen corpus, in pages. Returns the event that shows the first page."""
    gr.HTML('<h3 class="lab-data-h">Documents</h3>', padding=False)
    with gr.Row(equal_height=True):
        split = gr.Radio([*SPLITS], value=SPLITS[0], label="Split", elem_id="data-split", min_width=200)
        search = gr.Textbox(label="Search", placeholder="words, then Enter", elem_id="data-search", min_width=160)
        number = gr.Number(1, label="From document", elem_id="data-number", min_width=120)
    starts, following = gr.State([0]), gr.State(None)
    documents = html(elem_id="data-documents")
    with gr.Row():
        earlier = gr.Button("Earlier", size="sm", elem_id="data-earlier")
        later = gr.Button("Later", size="sm", elem_id="data-later")
    chosen, shown = [corpus, split, search], [documents, starts, following, earlier, later]
    first = {"fn": answer(partial(look, access)), "inputs": chosen, "outputs": shown, **QUICK}
    gr.on([split.change, search.submit], **first)
    number.submit(answer(partial(go_to, access)), [*chosen, number], shown, **QUICK)
    earlier.click(answer(partial(earlier_page, access)), [*chosen, starts], shown, **QUICK)
    later.click(answer(partial(later_page, access)), [*chosen, starts, following], shown, **QUICK)
    return first


def build_upload(access: Access, corpus: gr.Textbox, listing: gr.HTML, seen: gr.State) -> None:
    with gr.Accordion("Add text of your own", open=False, visible=not access.read_only, elem_id="data-new"):
        with gr.Row():
            known = ", ".join(READERS)
            files = gr.File(
                label=f"Files: {known}", file_count="multiple", file_types=[*READERS], height=150, scale=2,
                elem_id="data-upload",
            )  # fmt: skip
            with gr.Column(scale=3):
                with gr.Row():
                    name = gr.Textbox(label="Name", placeholder="the first file's", elem_id="data-name", min_width=140)
                    licence = gr.Textbox(label="Licence", placeholder=NOT_STATED, elem_id="data-licence", min_width=140)
                with gr.Row():
                    fraction = gr.Number(VALIDATION_FRACTION, label="Validation fraction", step=0.05, min_width=110)
                    seed = gr.Number(0, label="Seed of the split", elem_id="data-seed", min_width=110)
                    field = gr.Textbox(label="Field with the text", placeholder="text, or the only one", min_width=110)
        add = gr.Button("Make the corpus", variant="primary", elem_id="data-add")
        done = gr.HTML(padding=False, elem_id="data-added")
    given = [files, name, fraction, seed, field, licence]
    made_of = [done, corpus, files, listing, seen]
    add.click(answer(partial(upload, access)), given, made_of, show_progress_on=done, **WORK)


def watch_corpora(access: Access, seen: int | None) -> tuple:
    """(list, stamp), drawn again only where something has changed."""
    now = preview.stamp(access.workspace, "corpora")
    return (gr.skip(), gr.skip()) if now == seen else (draw.corpus_list(list_corpora(access.workspace)), now)


def made(access: Access, name: str) -> Corpus:
    """A snapshot by its name, which is checked."""
    return snapshot(access.reference(name), access.workspace)


def open_detail(access: Access, name: str) -> tuple:
    """(heading, all that is known, their panel, Make it now, no question, what a snapshot allows, its documents)."""
    hide, show = gr.update(visible=False), gr.update(visible=True)
    if not name:
        return "", "", *(hide,) * 5
    name = access.reference(name)
    row = next((row for row in list_corpora(access.workspace) if row["name"] == name), None)
    if row is None:
        raise ValueError(f"there is no corpus {name!r}; {nearest(name, [*BUILT_IN, *HUB])}")
    head = draw.heading(row)
    if row["hub"] and not row["made"]:
        button = gr.update(visible=not access.read_only, value="Fetch it")
        return head, tab_fetch.unfetched(access, row), show, button, hide, hide, hide
    if not row["made"]:
        command = f"python -m data.corpora fetch {name}{preview.where(access.workspace)}"
        button = gr.update(visible=not access.read_only, value="Make it now")
        return head, draw.unmade([command]), show, button, hide, hide, hide
    return head, draw_snapshot(access, name), show, hide, hide, show, show


def draw_snapshot(access: Access, name: str) -> Markup:
    corpus = made(access, name)
    measured = {split: preview.lengths(corpus, split) for split in SPLITS}
    return draw.snapshot(
        corpus.manifest,
        preview.how_split(corpus),
        {split: preview.spread(counts) for split, counts in measured.items()},
        {split: preview.histogram(counts) for split, counts in measured.items()},
        preview.commands(corpus, access.workspace),
    )


def look(access: Access, name: str, split: str, search: str, starts: Sequence[int] = (0,)) -> tuple:
    """(documents, first documents of the pages up to this one, that of the next or None, Earlier, Later)."""
    if name not in snapshot_names(access.workspace):
        return "", [0], None, gr.skip(), gr.skip()
    corpus = made(access, name)
    page = preview.page(corpus, split, starts[-1], search)
    drawn = draw.documents(page, split, corpus.manifest["splits"][split]["documents"], search)
    back, on = gr.update(interactive=starts[-1] > 0), gr.update(interactive=page.next is not None)
    return drawn, list(starts), page.next, back, on


def earlier_page(access: Access, name: str, split: str, search: str, starts: Sequence[int]) -> tuple:
    return look(access, name, split, search, starts[:-1] or [max(0, starts[-1] - preview.PAGE)])


def later_page(
    access: Access, name: str, split: str, search: str, starts: Sequence[int], following: int | None
) -> tuple:
    return look(access, name, split, search, starts if following is None else [*starts, following])


def go_to(access: Access, name: str, split: str, search: str, number: float | None) -> tuple:
    return look(access, name, split, search, [whole(number, "the number of a document", 1) - 1])


def whole(value: float | None, what: str, example: int) -> int:
    """A whole number out of a number's field, which is None where nothing or no number was typed."""
    if value is None or value != value // 1:  # // also refuses infinity
        raise ValueError(f"{what} should be a whole number, such as {example:,}")
    return int(value)


def make_now(access: Access, name: str, progress: gr.Progress = PROGRESS) -> tuple:
    """A built-in corpus, made, or one of the Hub, being fetched: (what came of it, the list, its stamp)."""
    access.check_write()
    if name in HUB:
        return tab_fetch.start(access, name)[0], *watch_corpora(access, None)
    if access.reference(name) not in BUILT_IN:
        raise ValueError(f"{name!r} is not a built-in corpus; {nearest(name, BUILT_IN)}")
    open_corpus(name, access.workspace)
    return "", *watch_corpora(access, None)


def upload(
    access: Access,
    files: Sequence[str] | None,
    name: str,
    fraction: float | None,
    seed: float | None,
    field: str,
    licence: str,
    progress: gr.Progress = PROGRESS,
) -> tuple:
    """A snapshot of uploaded files: (what came of it, its name, no files, the list, its stamp).

    The uploads are removed once they are a corpus; after a mistake they stay, so that it can be mended.
    """
    access.check_write()
    if not files:
        raise ValueError(f"no file is chosen: add one or several of {', '.join(READERS)}")
    if fraction is None:
        raise ValueError(f"the validation fraction should be a share between 0 and 1, such as {VALIDATION_FRACTION}")
    paths = sorted(map(Path, set(files)), key=lambda path: path.name)  # the same file may have been chosen twice
    said: list[str] = []
    try:
        corpus = add_corpus(
            name.strip() or default_name(paths[0]),
            paths,
            access.workspace,
            fraction,
            whole(seed, "the seed", 0),
            field.strip() or None,
            licence.strip() or NOT_STATED,
            said.append,
        )
    except ValueError as error:  # say "notes.txt", not where the server keeps it
        raise ValueError(without_folders(str(error), paths)) from error
    for path in paths:
        path.unlink(missing_ok=True)
        if path.parent.is_dir() and not any(path.parent.iterdir()):  # one folder for each content, named by its hash
            path.parent.rmdir()
    done = note(". ".join(said) or f"{corpus.name} is there already, made of the same files", "good")
    return done, corpus.name, None, *watch_corpora(access, None)


def without_folders(text: str, paths: Sequence[Path]) -> str:
    for path in paths:
        text = text.replace(str(path), path.name)
    return text


def ask_delete(access: Access, name: str) -> tuple:
    """(question, its panel)."""
    access.check_write()
    made(access, name)
    return note(f"Delete the snapshot {name}? This cannot be undone.", "warning"), gr.update(visible=True)


def delete(access: Access, name: str) -> tuple:
    """(no corpus, the list, its stamp)."""
    access.check_write()
    delete_snapshot(made(access, name), access.workspace)
    return "", *watch_corpora(access, None)
