"""`python -m finetune.loss_curve`: four loss curves of a fine-tuning, each made on purpose and named by a rule.

May import `training`, `hub` and `data`. Healthy, over-fitted, too high a rate, too low a rate: the rule
(`finetune.experiment_verdict`) sees a run's own losses and not its settings. It judges any fine-tuning: `--judge RUN`.
"""

from collections import Counter

from matplotlib.figure import Figure

from data.console import cli
from data.workspace import Workspace
from finetune.experiment import Experiment, parser_of, run_command
from finetune.experiment_figures import LOSS, band, finish, panels
from finetune.experiment_plan import Setting, rate_of
from finetune.experiment_report import table, with_interval
from finetune.experiment_results import summary
from finetune.experiment_verdict import HEALTHY, OVER_FITTED, TOO_HIGH, TOO_LOW, curve_of, verdict
from hub.runs import Run

FEW = {"documents": 16, "validation_fraction": 0.5}  # as many to judge by as to learn, and few of both
HIGHER, LOWER = 60.0, 1 / 250  # of the healthy rate
CHANGES = {
    HEALTHY: "nothing",
    OVER_FITTED: f"{round(FEW['documents'] * FEW['validation_fraction'])} examples to learn, over and over",
    TOO_HIGH: f"{HIGHER:g} times the learning rate",
    TOO_LOW: f"1/{1 / LOWER:g} of the learning rate",
}


def settings(parts: dict, options: dict) -> list[Setting]:
    rate = rate_of(parts)
    return [
        Setting("healthy", HEALTHY, {}),
        Setting("over-fitted", OVER_FITTED, {"data": FEW}),
        Setting("too-high", TOO_HIGH, {"train": {"learning_rate": rate * HIGHER}}),
        Setting("too-low", TOO_LOW, {"train": {"learning_rate": rate * LOWER}}),
    ]


def findings(found: dict) -> dict:
    rows, right, every = [], Counter(), Counter()
    for one in found["settings"]:
        label, runs = one["label"], one["runs"]
        every[label], right[label] = len(runs), sum(run["verdict"]["name"] == label for run in runs)
        courses = [evaluated(run) for run in runs]
        columns = [[run["start"] for run in runs], [run["end"] for run in runs]]
        columns += [
            [min(course, default=None) for course in courses],
            [course[-1] if course else None for course in courses],
        ]
        rows.append([label, CHANGES[label], *(with_interval(summary(values)) for values in columns), named(runs)])
    reasons = [[one["label"], one["runs"][0]["verdict"]["reason"]] for one in found["settings"]]
    each = ", ".join(f"{label} {right[label]} of {every[label]}" for label in every)
    return {
        "conclusion": f"The rule gives {right.total()} of {every.total()} runs the name they were made for: {each}.",
        "tables": [
            table(
                "Four settings and what the rule calls them",
                ["made to be", "what is changed", "training loss at first", "at the end", "validation loss, lowest",
                 "at the end", "called (runs)"],
                rows,
                "The rule sees the losses alone. Its thresholds are in finetune/experiment_verdict.py. Validation "
                "losses are those of the course of the run, on the same few examples each time.",
            ),
            table("Why, in the first seed", ["made to be", "the rule's reason"], reasons),
        ],
    }  # fmt: skip


def evaluated(run: dict) -> list[float]:
    """The validation losses of a run's course, all of the same examples."""
    return [value for value in run["curve"]["evaluation"]["val_loss"] if value is not None]


def named(runs: list[dict]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in Counter(run["verdict"]["name"] for run in runs).items())


def figures(found: dict) -> dict[str, tuple[Figure, str]]:
    figure, axes = panels(2, 2)
    alike = []
    for place, one in zip(axes, found["settings"], strict=True):
        curves = [run["curve"] for run in one["runs"]]
        for part, name, label, look in (
            ("training", "train_loss", "training (each batch)", {"linewidth": 1.2}),
            ("evaluation", "val_loss", "validation", {"linewidth": 1.6, "marker": "o", "markersize": 3.5}),
        ):
            shared = min(len(curve[part]["step"]) for curve in curves)  # a run that diverges ends early
            values = [curve[part][name][:shared] for curve in curves]
            band(place, curves[0][part]["step"][:shared], values, label, **look)
        finish(place, f"{one['label']}; called {named(one['runs'])}", "optimizer step", LOSS)
        if one["label"] == TOO_HIGH:
            place.set_ylim(bottom=0)
        else:
            alike.append(place)
    low, high = (end([place.get_ylim()[i] for place in alike]) for i, end in enumerate((min, max)))
    for place in alike:
        place.set_ylim(low, high)
    axes[0].legend(fontsize=8, frameon=False)
    caption = (
        "Training and validation loss of each setting, mean and 95 % interval over seeds. One scale for all but the "
        "rate that is too high, which has its own."
    )
    return {"curves": (figure, caption)}


EXPERIMENT = Experiment(
    name="loss_curve",
    title="Four loss curves of a fine-tuning",
    question="What does a loss curve look like that is healthy, over-fitted, taught at too high a rate, or at too low "
    "a one, and can a rule tell them apart?",
    settings=settings,
    findings=findings,
    figures=figures,
    limits=(
        "The settings are extremes, made to be told apart. A rate that is twice too high, or a run that over-fits by a "
        "little, has a curve between these, and the rule may call it healthy.",
        "The thresholds were chosen on curves of this size of model and data. That they fit a large model is likely "
        "for ratios such as these, and not shown.",
        "A rule on one curve cannot know what a better setting would have reached: a healthy curve may still be far "
        "from the best one. The learning-rate experiment compares.",
        "The over-fitted setting has a validation split of its own, smaller and of other examples than the rest: its "
        "losses are not to be compared with theirs.",
    ),
)


def main() -> int:
    parser = parser_of(EXPERIMENT)
    parser.add_argument("--judge", metavar="RUN", help="name the curve of any fine-tuning instead")
    given, _ = parser.parse_known_args()
    if given.judge is None:
        return run_command(EXPERIMENT, parser)
    found = verdict(curve_of(Run.open(Workspace(given.workspace), given.judge)))
    print(f"{found.name}: {found.reason}")
    return 0


if __name__ == "__main__":
    cli(main)
