"""`python -m finetune.lora_rank`: what the rank of an adapter is worth, at constant alpha/rank and at constant alpha.

May import `training`, `hub` and `data`. The update of a matrix is scaled by alpha / rank: with alpha kept, a larger
rank takes smaller steps, so that the two ways of raising it are two questions.
"""

from matplotlib.figure import Figure

from data.console import cli
from finetune.experiment import Experiment, parser_of, run_command
from finetune.experiment_figures import LOSS, MARKS, finish, panels, points
from finetune.experiment_plan import Setting
from finetune.experiment_report import figure as figure_of
from finetune.experiment_report import table, with_interval
from finetune.experiment_results import difference, excludes_zero, summary

RANKS = (4, 8, 16, 32, 64)
RATIO, ALPHA = 2.0, 32.0  # alpha / rank kept, and alpha kept: the recipe's default rank of 16 lies on both lines
SERIES = {f"alpha / rank = {RATIO:g}": lambda rank: RATIO * rank, f"alpha = {ALPHA:g}": lambda rank: ALPHA}


def settings(parts: dict, options: dict) -> list[Setting]:
    pairs = dict.fromkeys((rank, alpha_of(rank)) for alpha_of in SERIES.values() for rank in RANKS)  # each once
    return [
        Setting(f"{rank}-{alpha:g}", f"rank {rank}, alpha {alpha:g}", {"model": {"rank": rank, "alpha": alpha}})
        for rank, alpha in pairs
    ]


def findings(found: dict) -> dict:
    by_pair = {
        (one["parts"]["model"]["rank"], one["parts"]["model"]["alpha"]): one["runs"] for one in found["settings"]
    }
    series = {
        name: [point(rank, alpha_of(rank), by_pair[rank, alpha_of(rank)]) for rank in RANKS]
        for name, alpha_of in SERIES.items()
    }
    changes = {name: difference(line[-1]["losses"], line[0]["losses"]) for name, line in series.items()}
    said = "; ".join(f"with {name} {effect(change)}" for name, change in changes.items())
    few, many = (line_end["trainable"] for line_end in (series[next(iter(SERIES))][0], series[next(iter(SERIES))][-1]))
    return {
        "conclusion": f"From rank {RANKS[0]} to {RANKS[-1]} ({few:,} to {many:,} trained parameters) {said}.",
        "series": series,
        "tables": [rows_of(name, line) for name, line in series.items()],
    }


def point(rank: int, alpha: float, runs: list[dict]) -> dict:
    losses = [run["val_loss"] for run in runs]
    seconds = [run["seconds"] for run in runs if run["seconds"] is not None] or [None]
    trainable = next((run["trainable"] for run in runs if run["trainable"]), None)
    return {
        "rank": rank, "alpha": alpha, "trainable": trainable, "losses": losses, "loss": summary(losses),
        "seconds": min(seconds), "diverged": sum(loss is None for loss in losses),
    }  # fmt: skip


def effect(change: dict) -> str:
    """A difference of losses as a clause."""
    if change["mean"] is None:
        return "no pair of runs came to its end"
    word = "falls" if change["mean"] < 0 else "rises"
    size = f"the validation loss {word} by {abs(change['mean']):.3f}"
    if change["interval"] is None:
        return f"{size} (one seed, no interval)"
    low, high = change["interval"]
    told = "" if excludes_zero(change) else ", which the seeds' scatter does not tell from nothing"
    return f"{size} (change {low:+.3f} to {high:+.3f}{told})"


def rows_of(name: str, line: list[dict]) -> dict:
    rows = [
        [
            f"{one['rank']}", f"{one['alpha']:g}", f"{one['alpha'] / one['rank']:g}", with_interval(one["loss"]),
            f"{one['trainable']:,}", figure_of(one["seconds"], 1), f"{one['diverged']} of {len(one['losses'])}",
        ]
        for one in line
    ]  # fmt: skip
    columns = [
        "rank",
        "alpha",
        "alpha / rank",
        "validation loss",
        "trained parameters",
        "seconds, fastest run",
        "diverged",
    ]
    return table(f"Constant {name.partition(' =')[0]}", columns, rows)


def figures(found: dict) -> dict[str, tuple[Figure, str]]:
    figure, (losses, sizes) = panels(1, 2, width=4.8, height=3.8)
    for (name, line), mark in zip(found["series"].items(), MARKS, strict=False):
        ranks, look = [one["rank"] for one in line], {"marker": mark, "markersize": 5, "label": name}
        points(losses, ranks, [one["loss"] for one in line], [one["losses"] for one in line], **look)
    sizes.plot(ranks, [one["trainable"] / 1000 for one in line], "o-", color="tab:gray")  # of either line
    for axes in (losses, sizes):
        axes.set_xscale("log", base=2)
        axes.set_xticks(RANKS, [str(rank) for rank in RANKS])
    sizes.set_ylim(bottom=0)
    finish(losses, "validation loss at the end", "rank", LOSS)
    finish(sizes, "trained parameters, whatever alpha is", "rank", "thousands")
    losses.legend(fontsize=8, frameon=False)
    caption = (
        "Validation loss over the rank: means with 95 % intervals (bars), single runs (dots); and the adapter's size."
    )
    return {"rank": (figure, caption)}


EXPERIMENT = Experiment(
    name="lora_rank",
    title="The rank of an adapter",
    question="How much does a larger rank lower the validation loss at the same number of steps, with alpha / rank "
    "kept and with alpha kept, and what does it cost?",
    settings=settings,
    findings=findings,
    figures=figures,
    limits=(
        "One learning rate for all ranks. Where alpha is kept, a larger rank also learns more slowly (the update is "
        "scaled by alpha / rank), and a rate chosen for it could make up for that.",
        "A narrow task and a small model: a rank of 64 is a large share of such a width. What rank a harder task wants "
        "is not shown.",
        "At a fixed number of steps a larger rank is judged by how fast it learns as well as by how far it could get.",
        "The seconds are those of the fastest run of each, evaluations included; the machine had other work to do.",
    ),
)


def main() -> int:
    return run_command(EXPERIMENT, parser_of(EXPERIMENT))


if __name__ == "__main__":
    cli(main)
