"""How corpora are drawn: the list, one snapshot with its counts, lengths and provenance, its documents.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from page.chart import bar_chart
from page.html import Markup, code, escape, facts, note, table

COLUMNS = ("corpus", "what it is", "licence", "documents", "size", "floor, bits per byte")
UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
SOURCES = 20  # files of a corpus that are listed
DIGITS = 12  # of a SHA-256 that are shown; the rest is its title


def corpus_list(rows: Iterable[Mapping]) -> Markup:
    """A line for each corpus, as `data.corpora.list_corpora` has them; choosing one is the event `open`."""

    def line(row: Mapping) -> list:
        if not row["made"] and row.get("hub"):
            published = f"≈ {size(row['published']['bytes'])}"
            return [opener(row["name"]), row["about"], row["licence"], Markup("<em>on the Hub</em>"), published, ""]
        if not row["made"]:
            return [opener(row["name"]), row["about"], row["licence"], Markup("<em>not made yet</em>"), "", ""]
        documents, floor = row["documents"], row["floor_bits_per_byte"]
        return [
            opener(row["name"]),
            row["about"],
            row["licence"],
            "" if documents is None else f"{documents:,}",
            "" if documents is None else size(row["bytes"]),
            "" if floor is None else f"{floor:.4f}",
        ]

    return table(COLUMNS, map(line, rows), numbers=3)


def opener(name: str) -> Markup:
    """A name that can be clicked: the event `open`, with the name as `name`."""
    name = escape(name)
    return Markup(f'<button type="button" class="lab-data-open" data-act="open" data-name="{name}">{name}</button>')


def heading(row: Mapping) -> Markup:
    """Name, kind and licence of the chosen corpus, a row of the list."""
    return Markup(f"{title(row['name'])}{facts([('what', row['about']), ('licence', row['licence'])])}")


def unmade(commands: Sequence[str]) -> Markup:
    """A built-in corpus that is not here yet."""
    return Markup(f"{note('Built in, and not made yet. A training that names it makes it, too.')}{terminal(commands)}")


def snapshot(manifest: Mapping, how: str, spreads: Mapping, histograms: Mapping, commands: Sequence[str]) -> Markup:
    """One snapshot: its splits, how long its documents are, where it came from.

    Args:
        manifest: as it lies beside the texts.
        how: the split in words.
        spreads: by split: shortest, median and longest document in characters.
        histograms: by split, as `data.preview.Histogram`.
        commands: what makes and shows it in a terminal.
    """
    charts = "".join(length_chart(name, one) for name, one in histograms.items())
    came = facts(
        [
            ("split", how),
            ("field", manifest.get("field")),
            *published(manifest.get("hub")),
            ("parents", ", ".join(map(parent, manifest["parents"]))),
            ("made", manifest["created_at"].replace("T", " ").replace("+00:00", " UTC")),
            ("SHA-256 of the texts", digest(manifest["sha256"])),
        ]
    )
    return Markup(
        f"{splits_table(manifest, spreads)}{floor_note(manifest['floor'])}"
        f'<div class="lab-charts">{charts}</div>'
        f'<h3 class="lab-data-h">Where it came from</h3>{came}{sources_table(manifest["sources"])}'
        f"{terminal(commands)}"
    )


def published(hub: Mapping | None) -> list[tuple[str, object]]:
    """Where on the Hub it came from, and how much of it was taken."""
    if hub is None:
        return []
    caps = [f"{hub['documents']:,} documents"] if hub["documents"] else []
    caps += [f"{size(hub['bytes'])} of text"] if hub["bytes"] else []
    source = " ".join(filter(None, (hub["dataset"], hub["config"])))
    revision = Markup(f'<code title="{escape(hub["revision"])}">{escape(hub["revision"][:DIGITS])}</code>')
    return [("dataset", source), ("revision", revision), ("taken at most", " or ".join(caps) or "all of it")]


def parent(one: Mapping) -> str:
    share = f"{100 * one['weight']:.3g} % " if "weight" in one else ""
    return f"{share}{one['name']} ({one['sha256'][:DIGITS]})"


def splits_table(manifest: Mapping, spreads: Mapping) -> Markup:
    head = ("split", "documents", "characters", "bytes", "shortest", "median", "longest")
    rows = [
        [name, *(f"{counts[what]:,}" for what in ("documents", "characters", "bytes"))]
        + [f"{spreads[name][what]:,}" for what in ("shortest", "median", "longest")]
        for name, counts in manifest["splits"].items()
    ]
    return table(head, rows, caption="shortest, median and longest document in characters", numbers=6)


def floor_note(floor: Mapping | None) -> Markup:
    if not floor:
        return Markup("")
    figures = "; ".join(
        f"{one['nats_per_document']:.2f} nats a document and {one['bits_per_byte']:.4f} bits per byte in {name}"
        for name, one in floor.items()
    )
    return note(f"Entropy floor: {figures}. It knows how likely each text was: no model does better on average.")


def length_chart(split: str, histogram) -> Markup:
    name = f"Lengths, {split}"
    if len(histogram.counts) == 1:  # all alike: the table says it
        return Markup("")
    chart = bar_chart(histogram.edges, histogram.counts, "characters in a document", "documents", name)
    if not histogram.beyond:
        return Markup(f"<div>{chart}</div>")
    beyond = f"{histogram.beyond:,} longer than {histogram.edges[-1]:,} characters are not drawn."
    return Markup(f'<div>{chart}<p class="lab-data-hint">{beyond}</p></div>')


def sources_table(sources: Sequence[Mapping]) -> Markup:
    rows = [
        [one["name"], digest(one["sha256"]), one.get("url") or (size(one["bytes"]) if one["bytes"] else "made here")]
        for one in sources[:SOURCES]
    ]
    more = f"and {len(sources) - SOURCES:,} more" if len(sources) > SOURCES else ""
    return Markup(f'{table(("source", "SHA-256", "size or origin"), rows)}<p class="lab-data-hint">{more}</p>')


def documents(page, split: str, total: int, search: str) -> Markup:
    """Documents one below another.

    Args:
        page: as `data.preview.Page`.
        total: documents in the split.
        search: what was searched for; marked in the texts.
    """
    shown = "".join(document(one, total, search) for one in page.excerpts)
    if not search:
        first, last = page.excerpts[0].number + 1, page.excerpts[-1].number + 1
        range_ = f"document {first:,}" if first == last else f"documents {first:,} to {last:,}"
        said = f"{range_} of {total:,} in {split}"
    else:
        went = f"in the {page.looked:,} documents gone through of {total:,} in {split}"
        said = f"{len(page.excerpts)} with {search!r} {went}" if page.excerpts else f"nothing with {search!r} {went}"
        said += "; go on with Later" if page.next is not None else ""
    return Markup(f'<p class="lab-data-hint">{escape(said)}</p>{shown}')


def document(one, total: int, search: str) -> Markup:
    """As `data.preview.Excerpt`."""
    end = one.begin + len(one.text)
    part = "" if one.is_whole else f"; shown are characters {one.begin + 1:,} to {end:,}"
    head = f"document {one.number + 1:,} · {one.characters:,} characters{part}"
    cut_before, cut_after = "… " if one.begin else "", " …" if end < one.characters else ""
    return Markup(
        f'<article class="lab-data-document"><h4>{head}</h4>'
        f'<div class="lab-sample">{cut_before}{marked(one.text, search)}{cut_after}</div></article>'
    )


def marked(text: str, search: str) -> Markup:
    """The text with every place that holds `search` marked, in whichever case it is written."""
    if not search:
        return escape(text)
    parts = re.split(f"({re.escape(search)})", text, flags=re.IGNORECASE)
    return Markup("".join(f"<mark>{escape(part)}</mark>" if i % 2 else escape(part) for i, part in enumerate(parts)))


def terminal(commands: Sequence[str]) -> Markup:
    return Markup(f'<h3 class="lab-data-h">In a terminal</h3>{code(chr(10).join(commands))}')


def title(name: str) -> Markup:
    return Markup(f'<h2 class="lab-data-title">{escape(name)}</h2>')


def digest(sha256: str) -> Markup:
    return Markup(f'<code title="{escape(sha256)}">{escape(sha256[:DIGITS])}</code>')


def size(count: int) -> str:
    """Bytes as a person writes them: 18.4 MB."""
    unit, name = next(((unit, name) for unit, name in UNITS if count >= unit), (1, "bytes"))
    return f"{count / unit:.3g} {name}" if unit > 1 else f"{count:,} {name}"
