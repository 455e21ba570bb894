"""One run's details as plain values: facts, checkpoints, origin, logs, and what tells that one of them changed.

May import `data`. Everything may be missing, because a run may have been stopped at any moment.
"""

import math
import shlex
from dataclasses import dataclass
from pathlib import Path

from data.workspace import Workspace, read_json
from hub.adapter_card import opening
from hub.checkpoints import COMPLETE, STATE, checkpoints, step_of
from hub.findings import FINDINGS
from hub.live import Live
from hub.registry import figures
from hub.runs import Run

LOG_LINES = 200
LOG_END = 131_072  # bytes of a log's end in which its last lines are looked for
LOGS = ("train.log", "output.log")  # what the run says of itself, and what its process printed
LOADERS = """from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({place!r}{trust})
tokenizer = AutoTokenizer.from_pretrained({place!r})"""


@dataclass(frozen=True)
class Kept:
    """One complete checkpoint: its bytes, the losses measured at its step, and what else it is called."""

    revision: str
    step: int
    size: int
    resumable: bool
    train_loss: float | None
    val_loss: float | None
    also: tuple[str, ...]


def kept(run: Run, info: dict, live: Live) -> list[Kept]:
    """The run's checkpoints, newest first; `main` is the newest, `best` the one of the lowest validation loss."""
    found = checkpoints(run)
    place = {step: i for i, step in enumerate(live.columns["step"])}

    def at(name: str, step: int) -> float | None:
        value = live.columns[name][place[step]] if name in live.columns and step in place else None
        return value if value is not None and math.isfinite(value) else None

    steps = [step_of(path) for path in found]
    measured = [(loss, step) for step in steps if (loss := at("val_loss", step)) is not None]
    recorded = info["result"].get("best_step")  # as `hub.checkpoints.best` decides, from metrics that are read already
    best = recorded if recorded in steps else min(measured, default=(None, None))[1]

    def names(step: int) -> tuple[str, ...]:
        return tuple(name for name, it in (("main", steps[-1]), ("best", best)) if it == step)

    whole = []
    for path, step in zip(reversed(found), reversed(steps), strict=True):
        losses = at("train_loss", step), at("val_loss", step)
        whole.append(Kept(path.name, step, _size(path), (path / STATE).is_dir(), *losses, names(step)))
    return whole


def card(info: dict, status: str) -> list[tuple[str, object]]:
    """What a run is and what came out: (name, value) for people, None where nothing is known."""
    inputs, model, progress = info["inputs"], info["model"], info["progress"]
    speed, left = progress.get("tokens_per_second"), progress.get("eta_seconds")
    return [
        ("kind", info.get("kind")),
        *((what, (inputs.get(what) or {}).get("name")) for what in ("corpus", "tokenizer")),
        ("parameters", model.get("parameters")),
        ("without embeddings", model.get("parameters_non_embedding")),
        ("steps", progress.get("step")),
        ("tokens seen", progress.get("tokens")),
        ("tokens a second", speed and round(speed)),
        ("seconds left", round(left) if left and status == "running" else None),
        ("at the moment", progress.get("phase") if status == "running" else None),
        *figures(info["result"]),
        ("seconds of training", info["result"].get("seconds")),
        ("estimate", _estimated(info.get("estimate") or {})),
    ]


def _estimated(expected: dict) -> str | None:
    """What was measured over what had been estimated; None where nothing was compared."""
    names = {"memory": "memory", "seconds": "time", "cpu_seconds": "CPU time"}
    ratio = expected.get("ratio") or {}
    said = [f"{words} {ratio[name] - 1:+.0%}" for name, words in names.items() if ratio.get(name)]
    return f"measured against it: {', '.join(said)}" if said else None


def origin(info: dict) -> list[tuple[str, object]]:
    """Where a run came from, exactly enough to make it again. Runs it came from are in `relatives`."""
    git, machine = info.get("git"), info["machine"]
    inputs = [
        (what, " · ".join(filter(None, [item.get("name") or item.get("id"), item.get("sha256")])))
        for what, item in info["inputs"].items()
        if item and what != "parent"
    ]
    memory = machine.get("memory")
    return [
        ("made", info["created_at"]),
        ("begun", info.get("started_at")),
        ("ended", info.get("ended_at")),
        ("command", shlex.join(info.get("command") or [])),
        ("seed", info.get("seed")),
        *inputs,
        ("commit", git and git["sha"] + (" with uncommitted changes" if git["dirty"] else "")),
        ("model code", info.get("code_sha")),
        ("processor", machine.get("cpu")),
        ("accelerators", ", ".join(machine.get("gpus") or [])),
        ("threads", machine.get("threads")),
        ("memory", memory and f"{memory / 2**30:.3g} GB"),
        *info["versions"].items(),
    ]


def relatives(info: dict) -> list[tuple[str, str, str | None]]:
    """What a run began with: (`parent` or `base`, the run or model, its revision)."""
    found = []
    for what, name in (("parent", "run"), ("base", "id")):
        item = info["inputs"].get(what)
        if item and item.get(name):
            found.append((what, str(item[name]), item.get("revision")))
    return found


def resume_command(run: Run, info: dict) -> str | None:
    """What to type to go on; None for a run that was trained to its end, or that no training made."""
    ended = info["status"] == "completed" or info.get("kind") == "import" or not info.get("command")
    return None if ended else run.resume_command()


def floor(run: Run, info: dict) -> float | None:
    """The entropy of the run's corpus in nats per token: of its result or, before it has one, of the packed tokens."""
    known, inputs = info["result"].get("floor"), info["inputs"]
    wanted = {kind: (inputs.get(kind) or {}).get("sha256") for kind in ("corpus", "tokenizer")}
    if known is not None or None in wanted.values():
        return known
    for path in (run.path.parents[1] / "tokens").glob(f"{inputs['corpus']['name']}-*/meta.json"):
        try:
            meta = read_json(path)
            if all(meta[kind]["sha256"] == sha256 for kind, sha256 in wanted.items()):
                return meta["splits"]["validation"]["floor"]
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being made, or made by another version
    return None


def log(run: Run) -> dict[str, str]:
    """The last lines of each log, by its file's name."""
    return {name: _end(run.path / name) for name in LOGS if (run.path / name).is_file()}


def recipe(run: Run) -> str:
    """recipe.yaml as it stands, empty where there is none."""
    path = run.path / "recipe.yaml"
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""


def loading(run: Run) -> str:
    """The lines of Python that open the run's model; empty where it has none yet. An adapter asks for the lab."""
    if (run.path / "adapter_config.json").is_file():
        root = run.path.absolute().parents[1]
        return opening(run, "" if root == Workspace().root else str(root))
    if not (run.path / "config.json").is_file():
        return ""
    own_code = any(run.path.glob("modeling_*.py"))
    return LOADERS.format(place=str(run.path), trust=", trust_remote_code=True" if own_code else "")


def stamps(run: Run, info: dict | None, status: str) -> dict[str, tuple]:
    """For each part of a run's page something that is equal as long as there is nothing new to show in it."""
    record, metrics, samples, checkpoint = (
        _stamp(run.path / name) for name in ("run.json", "metrics.jsonl", "samples.jsonl", "checkpoints")
    )
    has_model = any((run.path / name).is_file() for name in ("config.json", "adapter_config.json"))
    return {
        "head": (record, status),
        "card": (record, status),
        "use": (has_model, status),
        "curves": (metrics, bool(info and info["result"])),
        "findings": (_stamp(run.path / FINDINGS),),
        "samples": (samples,),
        "checkpoints": (checkpoint, bool(info and info["result"])),
        "recipe": (_stamp(run.path / "recipe.yaml"),),
        "origin": tuple(map(str, origin(info))) if info else (),
        "log": tuple(_stamp(run.path / name) for name in LOGS),
    }


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _size(checkpoint: Path) -> int:
    """Bytes of a checkpoint, by what COMPLETE says of its files; of the state only where it is still there."""
    try:
        made = read_json(checkpoint / COMPLETE)
        parts = ("model", "state") if (checkpoint / STATE).is_dir() else ("model",)
        return sum(file["bytes"] for part in parts for file in made[part].values())
    except (OSError, ValueError, KeyError, TypeError):
        return sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())


def _end(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(file.tell() - LOG_END, 0))
        lines = file.read().decode("utf-8", errors="replace").rstrip().split("\n")
    # a progress bar draws over its own line: what it showed last is what counts
    lines = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
    return "\n".join(lines[-LOG_LINES:])
