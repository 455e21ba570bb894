"""A run's life: what is inside its model, checkpoint after checkpoint, measured once each and kept beside them.

May import `hub` and `data`; of ours here `interpret.timeline_measure`. A point lies in the run's folder as
`timeline/<key of the settings>/step-000500.json` and names the weights it was measured on; what is there is never
measured again, so that a timeline that was interrupted goes on where it was.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from data.console import cli
from data.snapshots import Corpus, open_snapshot
from data.workspace import Workspace, read_json, sha256_json, write_json
from hub.checkpoints import COMPLETE, checkpoints, step_of
from hub.metrics import finite, read_metrics
from hub.models import open_model
from hub.runs import Run
from interpret.heads import KINDS, SURE
from interpret.timeline_measure import BY_HEAD, BY_LEVEL, SINGLE, Settings, measure

FOLDER = "timeline"
TEXTS, CHARACTERS = 16, 8_000  # of the held-out text read by default: as many documents, from all over the split


@dataclass(frozen=True)
class Timeline:
    """A run's points, oldest first: arrays by the names of BY_HEAD (S, L, H), BY_LEVEL (S, L + 1) and SINGLE (S,).

    `curve` is the run's own record of its loss: step -> nats per token, of the training and of the validation text.
    """

    run: str
    steps: list[int]
    layers: list[int]
    values: dict[str, np.ndarray]
    curve: dict[str, tuple[list[int], list[float]]]


def default_texts(run: Run, workspace: Workspace) -> tuple[str, ...]:
    """Documents of the text that the run held out. Raises ValueError where that is not here."""
    told = run.info()["inputs"].get("corpus") or {}
    path = workspace.root / "corpora" / str(told.get("name"))
    if not (path / "manifest.json").is_file() or (corpus := open_snapshot(path)).sha256 != told["sha256"]:
        raise ValueError(f"the corpus that {run.id} was trained on is not in the workspace: give a prompt to read")
    return _sample(corpus)


def _sample(corpus: Corpus) -> tuple[str, ...]:
    texts = [text for text in corpus.texts("validation", CHARACTERS) if len(text) > 1]
    chosen = np.linspace(0, len(texts) - 1, min(TEXTS, len(texts))).astype(int)
    return tuple(texts[i][: CHARACTERS // len(chosen)] for i in chosen)


def revisions(run: Run, every: int = 1) -> list[Path]:
    """Every `every`-th checkpoint, oldest first, and always the newest. Raises ValueError where there is none."""
    if every < 1:
        raise ValueError(f"every {every}-th checkpoint cannot be taken: 1 or more")
    found = checkpoints(run)
    if not found:
        raise ValueError(f"run {run.id} has no checkpoint yet: there is nothing to lay out in time")
    return [path for i, path in enumerate(found) if i % every == 0 or i == len(found) - 1]


def place(run: Run, settings: Settings, checkpoint: Path) -> Path:
    """Where the point of a checkpoint lies."""
    return run.path / FOLDER / settings.key / f"{checkpoint.name}.json"


def kept(run: Run, settings: Settings, checkpoint: Path) -> dict | None:
    """The point that was measured on these very weights, None where there is none."""
    path = place(run, settings, checkpoint)
    try:
        point = read_json(path)
    except (OSError, ValueError):  # not there, or not whole: measured again
        return None
    return point["measured"] if point.get("weights") == _weights(checkpoint) else None


def missing(run: Run, settings: Settings, paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if kept(run, settings, path) is None]


def compute(run: Run, settings: Settings, paths: Sequence[Path]) -> Iterator[Path]:
    """Measure the checkpoints that lack a point, one at a time; each is kept before the next begins."""
    for path in missing(run, settings, paths):
        point = measure(*open_model(path), settings)
        at = place(run, settings, path)
        at.parent.mkdir(parents=True, exist_ok=True)
        write_json(at, finite({"settings": asdict(settings), "weights": _weights(path), "measured": point}))
        yield path


def collect(run: Run, settings: Settings, paths: Sequence[Path]) -> Timeline:
    """The points that are there. Raises ValueError where there is none."""
    found = [(step_of(path), point) for path in paths if (point := kept(run, settings, path)) is not None]
    if not found:
        raise ValueError(f"nothing of run {run.id} has been measured with these settings yet")
    names = [name for name in (*BY_HEAD, *BY_LEVEL, *SINGLE) if name in found[0][1]]
    return Timeline(
        run=run.id,
        steps=[step for step, _ in found],
        layers=found[0][1]["layers"],
        values={name: np.array([point[name] for _, point in found], dtype=float) for name in names},
        curve=loss_curve(run),
    )


def loss_curve(run: Run) -> dict[str, tuple[list[int], list[float]]]:
    """`training` and `validation`: the steps at which a loss was recorded, and that loss."""
    columns = read_metrics(run.path)
    curve = {}
    for name, column in (("training", "train_loss"), ("validation", "val_loss")):
        told = zip(columns["step"], columns.get(column, []), strict=False)
        pairs = [(step, loss) for step, loss in told if loss is not None]
        curve[name] = ([step for step, _ in pairs], [loss for _, loss in pairs])
    return curve


def formed(timeline: Timeline) -> list[dict]:
    """Heads that end as one of KINDS, in the order in which they became it: head, kind, step, score.

    `step` is the first point from which on the score stays at SURE or above.
    """
    found = []
    for kind in KINDS:
        for row, head in np.argwhere(timeline.values.get(kind, np.empty((1, 0, 0)))[-1] >= SURE):
            scores = timeline.values[kind][:, row, head]
            below = np.flatnonzero(~(scores >= SURE))
            first = 0 if not len(below) else below[-1] + 1
            name = f"L{timeline.layers[row]}H{head}"
            found.append({"head": name, "kind": KINDS[kind][0], "step": timeline.steps[first], "score": scores[-1]})
    return sorted(found, key=lambda one: (one["step"], -one["score"]))


def _weights(checkpoint: Path) -> str:
    """The hash of the model's files as the checkpoint's own record has them."""
    return sha256_json(read_json(checkpoint / COMPLETE)["model"])


if __name__ == "__main__":
    from interpret.timeline_cli import main  # it imports this module

    cli(main)
