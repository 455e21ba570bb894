"""How a fine-tuning is drawn: what will be trained on, what a merge changed, the experiments and their reports.

As everywhere in this room: plain values in, HTML text out, nothing of ours imported but this room itself.
"""

import base64
from collections.abc import Mapping, Sequence

from page.html import Markup, badge, code, escape, facts, note, table
from page.runs import figure

COLUMNS = ("experiment", "status", "runs", "result")


def merged(run_id: str, result: Mapping) -> Markup:
    """What came of a merge: the new run, and how far its logits are from the adapter's.

    Args:
        result: that of the new run.
    """
    same, trained = result["merge_difference"], result["merge_difference_quantised"]
    said = (
        f"{run_id} is the base with the adapter in its weights, one model that opens anywhere. Over "
        f"{result['merge_tokens']:,} tokens no logit is further than {same:.2g} from the adapter's on its weights, "
        f"and {trained:.2g} from the adapter's on the base as it was in training."
    )
    return note(said, "good")


def elsewhere(rows: Sequence[tuple[str, object]], commands: Mapping[str, str]) -> Markup:
    """A fine-tuned run: what its adapter is, and what to type for what a page does not do."""
    typed = "".join(f'<p class="lab-train-hint">{escape(what)}</p>{code(words)}' for what, words in commands.items())
    known = facts((name, figure(value)) for name, value in rows if value is not None)
    return Markup(f'<div class="lab-tune-columns"><div>{known}</div><div>{typed}</div></div>')


def experiment_list(rows: Sequence[tuple[str, str, str, str]]) -> Markup:
    """(id, status, runs, conclusion) of each experiment; choosing one is the event `open`."""
    if not rows:
        return note("There are no experiments yet: choose one below and start it.")
    return table(COLUMNS, [(_opener(one), badge(status), *others) for one, status, *others in rows])


def report(found: Mapping, images: Mapping[str, bytes]) -> Markup:
    """What an experiment found: the sentence first, tables, figures, what it does not show, its command.

    Args:
        found: as in its results.json.
        images: the PNG of each figure by its file's name; one that is gone is left out.
    """
    parts = [f'<h3 class="lab-train-h">{escape(found["title"])}</h3>']
    if not found.get("conclusion"):
        done = f"{found['finished']} of {found['runs']} runs are finished; the result comes with the last."
        return Markup(parts[0] + note(done))
    parts.append(note(found["conclusion"], "good"))
    parts += [_table(one) for one in found["tables"]]
    shown = "".join(_figure(one["caption"], images[one["file"]]) for one in found["figures"] if one["file"] in images)
    limits = "".join(f"<li>{escape(sentence)}</li>" for sentence in found["limits"])
    parts.append(f'<div class="lab-tune-figures">{shown}</div>')
    parts.append(f'<h4 class="lab-train-h">What it does not show</h4><ul class="lab-tune-limits">{limits}</ul>')
    parts.append(f'<p class="lab-train-hint">In a terminal, this does the same:</p>{code(found["command"])}')
    return Markup("".join(parts))


def _table(one: Mapping) -> str:
    remark = f'<p class="lab-train-hint">{escape(one["note"])}</p>' if one.get("note") else ""
    words = [any(cell[:1].isalpha() for cell in column) for column in zip(*one["rows"], strict=True)]
    figures = next((i for i, are_words in enumerate(reversed(words)) if are_words), len(words))
    return f"{table(one['columns'], one['rows'], one['title'], numbers=figures)}{remark}"


def _figure(caption: str, image: bytes) -> str:
    coded = base64.b64encode(image).decode()
    return (
        f'<figure class="lab-tune-figure"><img alt="{escape(caption)}" src="data:image/png;base64,{coded}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _opener(name: str) -> Markup:
    shown = escape(name)
    return Markup(
        f'<button type="button" class="lab-sweep-open" data-act="open" data-experiment="{shown}">{shown}</button>'
    )
