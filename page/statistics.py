"""How the statistics of a corpus are drawn: counts, lengths, what validation shares with training, frequent words.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself.
"""

from collections.abc import Iterator, Mapping

from page.chart import bar_chart
from page.html import Markup, escape, note, table

LISTED = 20  # frequent words shown
COUNTS = {
    "documents": "documents",
    "bytes": "bytes",
    "words": "words",
    "distinct_words": "distinct words",
    "duplicates": "exact duplicates",
}
QUANTILES = {
    "0": "shortest",
    "0.05": "5 %",
    "0.25": "25 %",
    "0.5": "median",
    "0.75": "75 %",
    "0.95": "95 %",
    "1": "longest",
}
SUSPICIOUS = 0.01  # share of validation documents in training to the letter above which the figure is set off


def view(found: Mapping) -> Markup:
    """All of it, as `data.statistics.statistics` has it."""
    splits, shared = found["splits"], found["overlap"]
    charts = "".join(length_chart(name, one["lengths"]["histogram"]) for name, one in splits.items())
    return Markup(
        f"{counts_table(splits)}{overlap_table(shared)}{overlap_note(shared)}{lengths_table(splits)}"
        f'<div class="lab-charts">{charts}</div>{frequent_table(splits)}'
    )


def counts_table(splits: Mapping) -> Markup:
    rows = [[name, *(f"{one[what]:,}" for what in COUNTS)] for name, one in splits.items()]
    return table(("split", *COUNTS.values()), rows, numbers=len(COUNTS))


def overlap_table(shared: Mapping) -> Markup:
    n, documents = shared["n"], shared["documents"]
    rows = [
        ["documents that are in training to the letter", f"{documents:,}", f"{shared['exact']:.2%}"],
        [f"documents with {n} words in a row that are", f"{documents:,}", f"{shared['ngram_documents']:.2%}"],
        [f"runs of {n} words ({n}-grams) that are", f"{shared['ngrams_counted']:,}", f"{shared['ngrams']:.2%}"],
    ]
    said = "validation text in training; case and punctuation do not count in words"
    if shared["short_documents"]:
        said += f"; {shared['short_documents']:,} documents have fewer than {n} words"
    return table(("of the validation split", "counted", "in training"), rows, caption=said, numbers=2)


def overlap_note(shared: Mapping) -> Markup:
    if shared["exact"] <= SUSPICIOUS:
        return Markup("")
    return note(
        f"{shared['exact']:.1%} of the validation documents are in training as they stand. Unless these are short ones "
        "that come twice by chance, a validation loss measures in part what was memorised.",
        "warning",
    )


def lengths_table(splits: Mapping) -> Markup:
    rows = [
        [name, f"{one['lengths']['mean']:,.1f}", *(f"{one['lengths']['quantiles'][share]:,}" for share in QUANTILES)]
        for name, one in splits.items()
    ]
    head = ("split", "mean", *QUANTILES.values())
    return table(head, rows, caption="lengths of documents in characters", numbers=len(head) - 1)


def length_chart(split: str, histogram: Mapping) -> Markup:
    if len(histogram["counts"]) == 1:  # all alike: the table says it
        return Markup("")
    title = f"Lengths, {split}"
    chart = bar_chart(histogram["edges"], histogram["counts"], "characters in a document", "documents", title)
    beyond = histogram["beyond"]
    said = f"{beyond:,} longer than {histogram['edges'][-1]:,} characters are not drawn." if beyond else ""
    return Markup(f'<div>{chart}<p class="lab-data-hint">{said}</p></div>')


def frequent_table(splits: Mapping) -> Markup:
    """The most frequent words of each split, each with its share of all words."""

    def cells(place: int) -> Iterator:
        for one in splits.values():
            if place < len(one["frequent"]):
                word, times = one["frequent"][place]
                yield from (
                    Markup(f'<span class="lab-data-piece">{escape(word)}</span>'),
                    f"{times / one['words']:.2%}",
                )
            else:
                yield from ("", "")

    longest = min(LISTED, max(len(one["frequent"]) for one in splits.values()))
    head = ("", *(word for name in splits for word in (name, "of its words")))
    return table(head, [[f"{place + 1}", *cells(place)] for place in range(longest)], caption="most frequent words")
