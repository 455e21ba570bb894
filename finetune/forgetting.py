"""`python -m finetune.forgetting`: what a model can no longer do once it is fine-tuned, and what helps against that.

May import `training`, `hub` and `data`. Suites of questions before, during and after (`finetune.experiment_suites`),
against what was gained on the new task; with replay, a lower rank and a smaller learning rate as remedies.
"""

from data.console import cli, nearest
from finetune.experiment import Experiment, parser_of, run_command
from finetune.experiment_plan import SMALL_BASE, Setting, rate_of
from finetune.experiment_report import table, with_interval
from finetune.experiment_results import difference, excludes_zero, summary
from finetune.experiment_suites import LIMIT, TASKS, measure
from finetune.forgetting_figures import figures
from finetune.suites import LEVELS

PLAIN = "as it is"
SHARE, LOW_RANK, LOWER_RATE = 0.5, 2, 1 / 4  # of replayed examples; of the adapter; of the learning rate
FAST = 4.0  # times the usual rate: in a hurry
LOOKS = 4  # checkpoints in the course of a run that are asked everything


def settings(parts: dict, options: dict) -> list[Setting]:
    if options["level"] not in (None, *LEVELS):
        raise ValueError(f"--level {options['level']!r} is none of the suites'; {nearest(options['level'], LEVELS)}")
    replay = options["replay"] or (SMALL_BASE if options["base"] is None else None)
    kept = {"data": {"replay": replay, "replay_share": SHARE}}
    found = [Setting("plain", PLAIN, {})]
    found += [Setting("replay", f"{SHARE:.0%} replay", kept)] if replay else []
    return [
        *found,
        Setting("low-rank", f"rank {LOW_RANK}", {"model": {"rank": LOW_RANK, "alpha": 2 * LOW_RANK}}),
        Setting(
            "low-rate", f"1/{1 / LOWER_RATE:g} of the rate", {"train": {"learning_rate": rate_of(parts) * LOWER_RATE}}
        ),
    ]


def adjust(parts: dict) -> dict:
    """A rate at which there is something to be seen, and checkpoints on the way, to be asked."""
    return {"train": {"learning_rate": FAST * rate_of(parts), "save_every": parts["train"]["steps"] // LOOKS}}


def findings(found: dict) -> dict:
    whole = [one for one in found["settings"] if all(run["measured"] for run in one["runs"])]
    lines = [line_of(one) for one in whole]
    plain = next((line for line in lines if line["label"] == PLAIN), None)
    if plain is None:
        return {
            "conclusion": "A run of the plain setting diverged: nothing can be compared.",
            "lines": [],
            "tables": [],
        }
    for line in lines:
        line["saved"] = difference(plain["forgotten"], line["forgotten"])
        line["gain_lost"] = difference(plain["gained"], line["gained"])
    left_out = [one["label"] for one in found["settings"] if one not in whole]
    missing = f" Left out, because a run of theirs diverged: {', '.join(left_out)}." if left_out else ""
    return {
        "conclusion": conclusion(lines, plain) + missing,
        "lines": lines,
        "attention": plain["attention"],
        "tables": [suites_table(lines), remedies_table(lines), *task_table(lines)],
    }


def line_of(one: dict) -> dict:
    """What one setting forgot and gained, run by run."""
    measured = [run["measured"] for run in one["runs"]]
    suites = {
        name: {"kind": suite["kind"], "each": [lost(looked["suites"][name]) for looked in measured],
               "before": suite["values"][0], "after": [looked["suites"][name]["values"][-1] for looked in measured]}
        for name, suite in measured[0]["suites"].items()
    }  # fmt: skip
    exact = [suite["each"] for suite in suites.values() if suite["kind"] == "exact"]
    forgotten = [sum(values) / len(exact) for values in zip(*exact, strict=True)]
    gained = [run["measured"]["loss"] - run["val_loss"] for run in one["runs"]]
    tasks = [looked["task"] for looked in measured]
    return {
        "label": one["label"], "suites": suites, "steps": measured[0]["steps"],
        "courses": {name: [looked["suites"][name]["values"] for looked in measured] for name in suites},
        "forgotten": forgotten, "forgotten_summary": summary(forgotten),
        "gained": gained, "gained_summary": summary(gained),
        "tasks": tasks if all(tasks) else None,
        "attention": next((looked["attention"] for looked in measured if looked["attention"]), None),
    }  # fmt: skip


def lost(suite: dict) -> float:
    """How much worse it is at the end: share of right answers lost, or nats per token more."""
    first, last = suite["values"][0], suite["values"][-1]
    return first - last if suite["kind"] == "exact" else last - first


def conclusion(lines: list[dict], plain: dict) -> str:
    seen = plain["forgotten_summary"]
    shown = "Forgetting is seen" if excludes_zero(seen) and seen["mean"] > 0 else "Forgetting is not shown"
    said = f"{shown}: right answers drop by {share(seen)} over the suites of questions, while the new task's loss "
    said += f"falls by {with_interval(plain['gained_summary'])}"
    helping = [line for line in lines if excludes_zero(line["saved"]) and line["saved"]["mean"] > 0]
    others = [
        f"{line['label']} ({share(line['saved'])})" for line in lines if line not in helping and line is not plain
    ]
    if helping:
        each = "; ".join(
            f"{line['label']} saves {share(line['saved'])} and gives up {with_interval(line['gain_lost'])} of the gain"
            for line in helping
        )
        unshown = f" Not shown to help: {', '.join(others)}." if others else ""
        return f"{said}. Of the remedies, with an interval above 0: {each}.{unshown}"
    return f"{said}. No remedy is shown to reduce it."


def share(found: dict) -> str:
    """A summary of shares in percentage points, with its interval."""
    if found["mean"] is None:
        return "–"
    mean = f"{100 * found['mean']:.1f}"
    ends = found["interval"]
    return f"{mean} points" + (f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if ends else "")


def suites_table(lines: list[dict]) -> dict:
    names = list(lines[0]["suites"])
    rows = []
    for name in names:
        suite = lines[0]["suites"][name]
        exact = suite["kind"] == "exact"
        before = f"{suite['before']:.0%}" if exact else f"{suite['before']:.3f} nats"
        cells = [
            share(summary(line["suites"][name]["each"]))
            if exact
            else with_interval(summary(line["suites"][name]["each"]))
            for line in lines
        ]
        rows.append([name, before, *cells])
    mean = ["mean of the questions", "", *(share(line["forgotten_summary"]) for line in lines)]
    return table(
        "What is forgotten",
        ["suite", "before", *(line["label"] for line in lines)],
        [*rows, mean],
        "Questions: how many percentage points fewer are answered to the letter at the end (positive: forgotten). "
        f"Text: how many nats per token it costs more. {LIMIT} items of each suite at most.",
    )


def remedies_table(lines: list[dict]) -> dict:
    rows = [
        [
            line["label"], with_interval(line["gained_summary"]), share(line["forgotten_summary"]),
            "–" if line["label"] == PLAIN else share(line["saved"]),
            "–" if line["label"] == PLAIN else with_interval(line["gain_lost"]),
        ]
        for line in lines
    ]  # fmt: skip
    return table(
        "Gain, forgetting, and what each remedy saves",
        ["setting", "gain: fall of the new task's loss", "forgotten, mean of the questions", "saved, seed by seed",
         "gain given up, seed by seed"],
        rows,
        "Saved and given up: differences to the plain setting within each seed, which shares the order of the "
        "examples. The gain is the fall of the validation loss, from the base's to that at the end.",
    )  # fmt: skip


def task_table(lines: list[dict]) -> list[dict]:
    """Requests answered as asked, where that can be judged."""
    known = [line for line in lines if line["tasks"]]
    rows = []
    for line in known:
        after = summary([task["after"] for task in line["tasks"]])
        ends = "–" if after["interval"] is None else " to ".join(f"{100 * end:.0f} %" for end in after["interval"])
        rows.append([line["label"], f"{line['tasks'][0]['before']:.0%}", f"{after['mean']:.0%}", ends])
    note = (
        f"Of {TASKS} held-out requests at most, answered greedily: a whole story with every wish in it, and an end. "
        "Where all seeds agree, the interval is empty, which says nothing of more requests."
    )
    return [table("The new task, answered", ["setting", "before", "after", "interval"], rows, note)] if rows else []


EXPERIMENT = Experiment(
    name="forgetting",
    title="What a fine-tuning forgets",
    question="What can a model no longer do after it was fine-tuned on one task, and do replay, a lower rank or a "
    "smaller learning rate reduce that?",
    settings=settings,
    findings=findings,
    figures=figures,
    limits=(
        "A suite asks in the very wording of the base's own training. What is not answered any more may still be "
        "known: a model that now answers everything with a story was not asked in a story.",
        f"The learning rate is {FAST:g} times the usual one, so that there is something to be seen: a hurried "
        "fine-tuning. What the usual rate forgets was not measured.",
        "The suite of plain text, of the small base, has stories of the kind that the new task writes: what becomes of "
        "its loss says little about other texts.",
        "One strength of each remedy. A remedy that also gives up gain may do no more than stopping earlier would: "
        "compare at equal gain, as the second figure lets one do by eye.",
        "Replay has the base's own training text. Of a model from the Hub that text is seldom at hand, and what stands "
        "in for it may help less.",
        "A short training on one narrow task, of a small model. How much a large one forgets is another question.",
        "Which heads look elsewhere says where something changed, not that it was forgotten there.",
    ),
    options={
        "replay": f"a corpus or a source of examples to replay (default: {SMALL_BASE} for the small base, else none)",
        "level": "which questions: primer or general (default: primer for the small base, else general)",
    },
    adjust=adjust,
    measure=measure,
)


def main() -> int:
    return run_command(EXPERIMENT, parser_of(EXPERIMENT))


if __name__ == "__main__":
    cli(main)
