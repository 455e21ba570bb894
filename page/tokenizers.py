"""How tokenizers are drawn: the list, a vocabulary, a text cut into coloured tokens, two ways to cut it.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself. Entries and
cuts are as in `data.tokenizer_report`.
"""

from collections.abc import Iterable, Mapping, Sequence

from page.corpora import digest, opener, terminal, title
from page.html import Markup, escape, facts, note, table
from page.tokens import coloured_tokens, visible

COLUMNS = ("tokenizer", "kind", "corpus", "parent", "entries", "bytes per token")
STRETCHES = 40  # places cut differently that are listed
LONGEST = 10  # entries, and words cut differently, that are listed


def tokenizer_list(reports: Sequence[Mapping]) -> Markup:
    """A line for each tokenizer of the workspace; choosing one is the event `open`."""
    if not reports:
        return note("There are no tokenizers yet. Train one below; a training that needs one makes it, too.")
    return table(COLUMNS, map(line, reports), numbers=2)


def line(report: Mapping) -> list:
    return [
        opener(report["name"]),
        report["settings"]["kind"],
        report["corpus"]["name"],
        report["parent"] or "",
        f"{report['vocab_size']:,}",
        f"{report['bytes_per_token']:.3f}",
    ]


def report(facts_of: Mapping, commands: Sequence[str]) -> Markup:
    """One tokenizer, as `data.tokenizer_report.describe` has it; less is known of one that the lab did not train."""
    corpus, trained = facts_of.get("corpus"), "corpus" in facts_of
    rows = [
        ("kind", facts_of["settings"]["kind"]),
        ("trained with", asked(facts_of["settings"])),
        ("entries", f"{facts_of['vocab_size']:,}"),
        ("trained on", f"{corpus['name']} (SHA-256 {corpus['sha256'][:12]})" if trained else ""),
        ("parent", facts_of.get("parent") or ("none" if trained else "")),
        (
            "on held-out text",
            f"{facts_of['bytes_per_token']:.3f} bytes per token, {facts_of['tokens_per_word']:.3f} tokens per word"
            if trained
            else "",
        ),
        *(measured(facts_of) if "coverage" in facts_of else ()),
        ("never used", f"{facts_of['unused_entries']:,} entries on the training text" if trained else ""),
        ("SHA-256", digest(facts_of["sha256"])),
    ]
    details = ""
    if "coverage" in facts_of:  # reports of earlier versions lack the rest
        details = f"{special_table(facts_of['special_found'])}{scripts_table([facts_of])}{longest_table(facts_of)}"
    return Markup(f"{title(facts_of['name'])}{facts(rows)}{loss_note(facts_of)}{details}{terminal(commands)}")


def asked(settings: Mapping) -> str:
    """The options of a training in words."""
    names = {name: value for name, value in settings.items() if name not in ("kind", "algorithm", "vocab_size")}
    return ", ".join(f"{name.replace('_', ' ')}{'' if value is True else f' {value}'}" for name, value in names.items())


def measured(facts_of: Mapping) -> list[tuple[str, str]]:
    coverage, back = facts_of["coverage"], facts_of["round_trip"]
    return [
        ("characters", f"{coverage['characters']:.2%} in entries for whole characters, the others by bytes"),
        ("words", f"{coverage['words']:.2%} are not cut"),
        ("unknown", f"{facts_of['unknown_share']:.2%} of the tokens; {facts_of['byte_share']:.2%} spell bytes"),
        ("round trip", f"{back['texts'] - back['changed']:,} of {back['texts']:,} texts come back as they were"),
    ]


def loss_note(facts_of: Mapping) -> Markup:
    if not facts_of.get("loses_information"):
        return Markup("")
    return note(
        "Its normalisation loses information: a text does not always come back as it was, and bits per byte are of the "
        "changed text.",
        "warning",
    )


def special_table(found: Mapping) -> Markup:
    """The entries that a pattern made, and how often the training text has them."""
    if not found:
        return Markup("")
    rows = [[piece(text), f"{times:,}"] for text, times in found.items()]
    return table(("never split", "times in the training text"), rows, caption="found by the pattern", numbers=1)


def scripts_table(rows: Sequence[Mapping]) -> Markup:
    """Fertility by script, of one tokenizer or of several on the same words."""
    figures = {"tokens per word": "tokens_per_word", "characters per token": "characters_per_token", "not cut": "whole"}
    if len(rows) > 1:
        figures.pop("characters per token")
    head = [f"{figure}, {row['name']}" if len(rows) > 1 else figure for figure in figures for row in rows]
    lines = [
        [name, f"{counts['words']:,}"]
        + [
            f"{row['scripts'][name][key]:.1%}" if key == "whole" else f"{row['scripts'][name][key]:.3f}"
            for key in figures.values()
            for row in rows
        ]
        for name, counts in rows[0]["scripts"].items()
    ]
    return table(("script", "words", *head), lines, caption="words by script", numbers=len(head) + 1)


def longest_table(facts_of: Mapping) -> Markup:
    rows = [
        [one["id"], piece(one["text"]), f"{one['characters']:,}", f"{one['times']:,}"]
        for one in facts_of["longest_entries"][:LONGEST]
    ]
    head = ("id", "entry", "characters", "times in the training text")
    return table(head, rows, caption="longest entries", numbers=2)


def vocabulary(entries: Sequence, start: int, total: int) -> Markup:
    """Some entries of a vocabulary: id, text, bytes, and how its file spells it."""
    if not total:
        return note("No entry has this in it, and none has it as its id.")
    rows = [
        [entry.id, piece(entry.text), Markup(f"<code>{entry.data.hex(' ')}</code>"), piece(entry.piece), remark(entry)]
        for entry in entries
    ]
    said = f"{start + 1:,} to {start + len(entries):,} of {total:,} entries"
    return table(("id", "text", "bytes", "as spelled in the file", ""), rows, caption=said)


def remark(entry) -> Markup:
    if entry.reserved:
        return Markup('<span title="never made from text: it ends documents, separates turns">reserved</span>')
    return Markup('<span title="part of a character, or one byte of it">bytes</span>' if entry.spells_bytes else "")


def piece(text: str) -> Markup:
    return Markup(f'<span class="lab-data-piece">{escape(visible(text))}</span>')


def tokens(name: str, cut, cut_off: str) -> Markup:
    """A text as coloured tokens with its counts.

    Args:
        cut_off: what is said where only the beginning of a text was taken.
    """
    counts = [
        ("tokens", f"{len(cut.tokens):,}"),
        ("characters", f"{cut.characters:,}"),
        ("bytes", f"{cut.bytes:,}"),
        ("bytes per token", f"{cut.bytes_per_token:.3f}"),
    ]
    figures = " · ".join(f"<b>{value}</b> {what}" for what, value in counts)
    inexact = (
        "" if cut.exact else note("This tokenizer changes a text before it cuts it: these tokens are what it read.")
    )
    return Markup(
        f'<p class="lab-data-figures"><span>{escape(name)}</span> {figures}</p>'
        f"{note(cut_off, 'warning') if cut_off else ''}{inexact}"
        f"{coloured_tokens([token.text for token in cut.tokens], [hint(token) for token in cut.tokens])}"
        '<p class="lab-data-hint lab-data-picked" aria-live="polite">Click a token for its id and bytes.</p>'
    )


def hint(token) -> str:
    data = token.data.hex(" ")
    return f"{token.text!r}: id {token.id}, {len(token.data)} byte{'s' * (len(token.data) != 1)}: {data}"


def comparison(rows: Sequence[Mapping], different: Sequence | None, right: Markup) -> Markup:
    """Two tokenizers on the same text.

    Args:
        rows: as `data.tokenizer_measures.compare_two` has them.
        different: the stretches that they cut differently; None where that cannot be said.
        right: the text in the second one's tokens.
    """
    if different is None:
        cuts = note("One of the two changes the text, so that their cuts cannot be set side by side.")
    elif not different:
        cuts = note("Both cut this text at the same places.", "good")
    else:
        listed = [[whole(ours), joined(ours), joined(theirs)] for ours, theirs in different[:STRETCHES]]
        said = f"{len(different):,} stretches of the text are cut differently"
        said += f"; the first {STRETCHES}:" if len(different) > STRETCHES else ":"
        cuts = table(("text", *(row["name"] for row in rows)), listed, caption=said)
    return Markup(f"{figures_table(rows)}{right}{cuts}")


def corpus_comparison(rows: Sequence[Mapping], corpus: str) -> Markup:
    """Two tokenizers on a corpus's validation text: figures, scripts, and the words that they cut most differently."""
    longer = "".join(longer_table(row, other) for row, other in (rows, rows[::-1]))
    said = f"{rows[0]['bytes']:,} bytes of the validation text of {corpus}"
    return Markup(f'<p class="lab-data-hint">{escape(said)}</p>{figures_table(rows)}{scripts_table(rows)}{longer}')


def figures_table(rows: Sequence[Mapping]) -> Markup:
    head = (
        "tokenizer", "entries", "tokens", "bytes per token", "tokens per word", "unknown", "spelled as bytes",
        "words not cut",
    )  # fmt: skip
    return table(head, map(compared, rows), numbers=len(head) - 1)


def longer_table(row: Mapping, other: Mapping) -> Markup:
    """The words for which one tokenizer needs more tokens than the other, the largest sums first."""
    words = row["longer_words"]
    if not words:
        return note(f"No word takes {row['name']} more tokens than {other['name']}.")
    lines = [
        [piece(one["word"]), f"{one['times']:,}", f"{one['tokens']:,}", f"{one['other_tokens']:,}"]
        for one in words[:LONGEST]
    ]
    head = ("word", "times", f"tokens in {row['name']}", f"in {other['name']}")
    return table(head, lines, caption=f"more tokens in {row['name']}", numbers=3)


def compared(row: Mapping) -> list:
    return [
        row["name"],
        f"{row['vocab_size']:,}",
        f"{row['tokens']:,}",
        f"{row['bytes_per_token']:.3f}",
        f"{row['tokens_per_word']:.3f}",
        f"{row['unknown_share']:.2%}",
        f"{row['byte_share']:.2%}",
        f"{row['coverage']['words']:.2%}",
    ]


def whole(entries: Iterable) -> Markup:
    """The text that tokens stand for together."""
    return piece(b"".join(entry.data for entry in entries).decode("utf-8", "backslashreplace"))


def joined(entries: Iterable) -> Markup:
    """Tokens in a row, a bar where they were cut."""
    return Markup('<i class="lab-data-cut">|</i>'.join(piece(entry.text) for entry in entries))
