"""`python -m finetune.learning_rate`: the validation loss after fine-tuning, over learning rates from 1e-5 to 5e-3.

May import `training`, `hub` and `data`.
"""

from matplotlib.figure import Figure

from data.console import cli
from finetune.experiment import Experiment, parser_of, run_command
from finetune.experiment_figures import LOSS, finish, panels, points
from finetune.experiment_plan import Setting
from finetune.experiment_report import table, with_interval
from finetune.experiment_results import difference, excludes_zero, summary
from finetune.experiment_verdict import ABOVE

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 2e-3, 5e-3)
SMALL_RATES = (1e-5, 5e-5, 2e-4, 1e-3, 5e-3, 2e-2, 1e-1)  # a small model stands more: the upper end is to be seen


def settings(parts: dict, options: dict) -> list[Setting]:
    rates = SMALL_RATES if options["base"] is None else RATES
    return [Setting(f"{rate:g}", f"{rate:g}", {"train": {"learning_rate": rate}}) for rate in rates]


def diverged(run: dict) -> bool:
    """Whether the rate was too much for it: its loss is no longer a number, or clearly above what it began with."""
    return run["val_loss"] is None or run["end"] > (1 + ABOVE) * run["start"]


def findings(found: dict) -> dict:
    rates = [
        {
            "label": one["label"],
            "rate": one["parts"]["train"]["learning_rate"],
            "diverged": sum(map(diverged, one["runs"])),
            "losses": [None if diverged(run) else run["val_loss"] for run in one["runs"]],
        }
        for one in found["settings"]
    ]
    whole = [one for one in rates if not one["diverged"]]
    if not whole:
        return {"conclusion": "At every rate a run diverged: there is no best one.", "rates": rates, "tables": []}
    best = min(whole, key=lambda one: summary(one["losses"])["mean"])
    for one in rates:
        one |= {"summary": summary(one["losses"]), "worse": difference(one["losses"], best["losses"])}
        one["as_good"] = one is best or (not one["diverged"] and not excludes_zero(one["worse"]))
    return {"conclusion": conclusion(rates, best), "rates": rates, "best": best["label"], "tables": [rows_of(rates)]}


def conclusion(rates: list[dict], best: dict) -> str:
    good = [one["label"] for one in rates if one["as_good"]]
    lost = sum(one["diverged"] for one in rates)
    first, last = rates[0], rates[-1]
    said = f"The lowest validation loss, {with_interval(best['summary'])}, is reached at a rate of {best['label']}"
    said += (
        f"; within the noise of it are {', '.join(good)}" if len(good) > 1 else "; no other rate is within its noise"
    )
    said += f"; {lost} of {sum(len(one['losses']) for one in rates)} runs diverged"
    if best in (first, last):
        said += (
            f"; the best is the {'lowest' if best is first else 'highest'} rate tried, so a better one may lie beyond"
        )
    return said + "."


def rows_of(rates: list[dict]) -> dict:
    rows = []
    for one in rates:
        lost = f"{one['diverged']} of {len(one['losses'])}"
        worse = "best" if one["label"] and one["worse"]["mean"] == 0 else with_interval(one["worse"])
        rows.append([one["label"], with_interval(one["summary"]), worse, lost, "yes" if one["as_good"] else "no"])
    return table(
        "Validation loss by learning rate",
        ["learning rate", "validation loss", "above the best, seed by seed", "diverged", "within noise of the best"],
        rows,
        f"Diverged: the loss was no number, or the training loss ended {ABOVE:.0%} above its start; the mean is over "
        "the others, and such a rate cannot be the best. Within noise: the interval of the difference to the best, "
        "taken seed by seed, reaches 0.",
    )


def figures(found: dict) -> dict[str, tuple[Figure, str]]:
    figure, (axes,) = panels(1, 1, width=7.0, height=4.2)
    known = [one for one in found["rates"] if one.get("summary", {}).get("mean") is not None]
    at, losses = [one["rate"] for one in known], [one["losses"] for one in known]
    points(axes, at, [one["summary"] for one in known], losses, marker="D", label="validation loss at the end")
    starts = summary([run["start"] for one in found["settings"] for run in one["runs"]])["mean"]
    axes.axhline(starts, color="0.4", linestyle=":", label="training loss of the first batch")
    good = [one for one in known if one["as_good"]]
    if good:
        axes.axvspan(good[0]["rate"] / 1.15, good[-1]["rate"] * 1.15, color="tab:green", alpha=0.10, lw=0,
                     label="within noise of the best")  # fmt: skip
    lost = [(one["rate"], one["diverged"]) for one in found["rates"] if one["diverged"]]
    for place, count in lost:
        axes.annotate(f"{count} diverged", (place, 0.97), xycoords=("data", "axes fraction"), ha="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(found["rates"][0]["rate"] / 1.6, found["rates"][-1]["rate"] * 1.6)  # where all diverged, too
    finish(axes, "", "peak learning rate", LOSS)
    axes.legend(fontsize=8, frameon=False)
    caption = "Validation loss at the end over the peak rate: means (diamonds), 95 % intervals (bars), runs (dots)."
    return {"learning-rate": (figure, caption)}


EXPERIMENT = Experiment(
    name="learning_rate",
    title="The learning rate of a fine-tuning",
    question="Which learning rate gives the lowest validation loss after a fixed number of steps, and how exactly does "
    "one have to hit it?",
    settings=settings,
    findings=findings,
    figures=figures,
    limits=(
        "The best rate belongs to this number of steps, batch, rank and alpha; others may want another.",
        "Small models stand higher rates than large ones. The shape of the curve is what carries over, not the number.",
        "The validation loss is not the quality of answers, and says nothing of what is forgotten: the rate that is "
        "best here may forget most.",
        "A few seeds. They change the adapter's first weights and the order of the examples, neither the examples nor "
        "the base.",
    ),
)


def main() -> int:
    return run_command(EXPERIMENT, parser_of(EXPERIMENT))


if __name__ == "__main__":
    cli(main)
