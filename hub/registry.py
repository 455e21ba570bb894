"""`python -m hub.runs`: list, show, compare and delete runs. May import `data`.

Each command has a plain function that returns its result as data; `--json` prints that, a table otherwise.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data.console import Parser
from data.workspace import Workspace
from hub.adapter_card import adapter_facts
from hub.checkpoints import STATE, checkpoints
from hub.comparison import compare_runs, show_comparison
from hub.runs import Run, all_runs, status_of
from hub.words import commit, named, reference, table, text

# What a result is called for people, in the order it is told.
RESULTS = {
    "train_loss": "training loss (nats per token)",
    "val_loss": "validation loss (nats per token)",
    "bits_per_byte": "bits per byte",
    "floor": "the corpus's own entropy (nats per token)",
    "excess": "excess over it (nats per token)",
    "excess_interval": "its 95 % interval",
    "merge_difference": "largest change of a logit by merging, base dequantised",
    "merge_difference_quantised": "largest change of a logit by merging, base as in training",
}
# How a run is akin to one that it names: by what it names it as, and its own kind.
AKIN = {
    ("parent", "pretrain"): "fork",
    ("parent", "import"): "merged model",
    ("base", "pretrain"): "successor",
    ("base", "finetune"): "fine-tuned run",
}


@dataclass(frozen=True)
class Command:
    """One verb: what it computes and how that is shown."""

    help: str
    example: str
    runs: tuple[str, ...]  # the names of the runs it is given
    compute: Callable
    show: Callable[[object], str]


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m hub.runs", description="The runs of a workspace.", epilog=_example("list"))
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|show|compare|delete")
    for verb, command in COMMANDS.items():
        one = verbs.add_parser(verb, help=command.help, description=command.help, epilog=_example(command.example))
        for name in command.runs:
            one.add_argument(name, metavar="RUN", help="an id, the beginning of one, a name (its newest) or `latest`")
        one.add_argument("--json", action="store_true", help="print the result for programs")
        one.add_argument("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
        if verb == "delete":
            one.add_argument("--yes", action="store_true", help="do not ask")
    given = parser.parse_args(arguments)
    command, workspace = COMMANDS[given.verb], Workspace(given.workspace)
    runs = [Run.open(workspace, getattr(given, name)) for name in command.runs]
    if given.verb == "delete" and not given.yes and not _confirmed(workspace, runs[0]):
        return 0
    result = command.compute(workspace, *runs)
    print(json.dumps(result, indent=2, ensure_ascii=False) if given.json else command.show(result))
    return 0


def list_runs(workspace: Workspace) -> list[dict]:
    return [_row(run) for run in all_runs(workspace)]


def show_run(workspace: Workspace, run: Run) -> dict:
    """run.json with the status that holds now, the checkpoints that lie there, and the runs that began with it."""
    found = [{"revision": path.name, "resumable": (path / STATE).is_dir()} for path in checkpoints(run)]
    descent = {"children": children(workspace, run)}
    return {**run.info(), "status": run.status, "path": str(run.path), "checkpoints": found, **descent}


def children(workspace: Workspace, run: Run) -> list[dict]:
    """Runs that began with this one's weights or stand on them, newest first; what each is to it is its `kind`."""
    found = []
    for other in all_runs(workspace):
        info = _record(other)
        for what, key in (("parent", "run"), ("base", "id")):
            origin, kind = info["inputs"].get(what) or {}, AKIN.get((what, info["kind"]))
            if kind and origin.get(key) == run.id:
                found.append({"id": other.id, "kind": kind, "revision": origin.get("revision")})
    return found


def loss_of_base(workspace: Workspace, run: Run) -> str:
    """A sentence to ask with before a run is deleted that adapters stand on; empty where none does."""
    needy = [child["id"] for child in children(workspace, run) if child["kind"] == AKIN["base", "finetune"]]
    if not needy:
        return ""
    what = "a fine-tuned run that does" if len(needy) == 1 else f"{len(needy)} fine-tuned runs that do"
    more = f" and {len(needy) - 3} more" if len(needy) > 3 else ""
    return f"It is the base of {what} not open without it: {', '.join(needy[:3])}{more}."


def delete_run(workspace: Workspace, run: Run) -> dict:
    run.delete()
    return {"deleted": run.id}


def figures(result: dict) -> list[tuple[str, str]]:
    """What came out, as (words, value), for the terminal and for the card."""
    rows = [(words, text(result[name])) for name, words in RESULTS.items() if result.get(name) is not None]
    if result.get("accepted") is not None:
        of = f" of {result['accepted_of']}" if result.get("accepted_of") else ""
        rows.append(("sampled stories accepted whole", text(result["accepted"]) + of))
    return rows


def _row(run: Run) -> dict:
    try:
        info = run.info()
        status = status_of(info)
    except (ValueError, KeyError):
        info, status = {}, "unreadable"
    progress, result = info.get("progress", {}), info.get("result", {})
    return {
        "id": run.id,
        "kind": info.get("kind"),
        "status": status,
        "step": progress.get("step"),
        "steps": progress.get("steps"),
        "val_loss": result.get("val_loss"),
        "created_at": info.get("created_at"),
    }


def _show_list(rows: list[dict]) -> str:
    if not rows:
        return "no runs yet; `python -m training.pretrain` makes the first"
    head = ["run", "kind", "status", "step", "val. loss", "made"]
    body = [
        [row["id"], text(row["kind"]), row["status"], _steps(row), text(row["val_loss"]), _when(row["created_at"])]
        for row in rows
    ]
    return table([head, *body])


def _show_run(info: dict) -> str:
    """The card in the terminal: what it is, how it stands, what came out, where it came from."""
    progress, inputs, git = info["progress"], info["inputs"], info["git"]
    rows = [["status", info["status"]], ["error", info["error"]], ["kind", info["kind"]]]
    rows += [[what, named(inputs.get(what))] for what in ("corpus", "tokenizer")]
    begun, made = ("base", "merged from") if info["kind"] == "import" else ("initialised from", "forked from")
    if info["kind"] != "finetune":  # whose base is among its facts
        rows += [[begun, reference(inputs.get("base"))]]
    rows += [[made, reference(inputs.get("parent"))]]
    rows += [[f"{child['kind']} of @{child['revision'] or 'main'}", child["id"]] for child in info["children"]]
    rows += adapter_facts(Run(Path(info["path"])), info)
    rows += [
        ["parameters", info["model"].get("parameters")],
        ["step", _steps(progress) if progress.get("step") else None],
    ]
    rows += [["tokens", progress.get("tokens")], ["tokens a second", progress.get("tokens_per_second")]]
    rows += figures(info["result"])
    kept = [item["revision"] + (" (resumable)" if item["resumable"] else "") for item in info["checkpoints"]]
    rows += [["checkpoints", ", ".join(kept[-3:]) + (f" of {len(kept)}" if len(kept) > 3 else "")]]
    rows += [["made", _when(info["created_at"])], ["seed", info["seed"]], ["command", " ".join(info["command"])]]
    rows += [["commit", git and commit(git)]]
    rows += [["machine", info["machine"].get("cpu")], ["folder", info["path"]]]
    return info["id"] + "\n" + table([[f"  {name}", text(value)] for name, value in rows if value not in (None, "")])


def _record(run: Run) -> dict:
    """What of a run's record tells its origin; one that cannot be read names none."""
    try:
        info = run.info()
        return {"inputs": info["inputs"], "kind": info["kind"]}
    except (ValueError, KeyError):
        return {"inputs": {}, "kind": None}


def _steps(row: dict) -> str:
    return text(row.get("step")) + (f" of {row['steps']:,}" if row.get("steps") else "")


def _when(created_at: str | None) -> str:
    return datetime.fromisoformat(created_at).astimezone().strftime("%Y-%m-%d %H:%M") if created_at else "–"


def _confirmed(workspace: Workspace, run: Run) -> bool:
    warning = loss_of_base(workspace, run)
    if not sys.stdin.isatty():
        sure = f"deleting {run.id} cannot be undone; add --yes where nobody can be asked"
        raise ValueError(f"{sure}. {warning}" if warning else sure)
    if warning:
        print(warning)
    return input(f"delete {run.id} with all its checkpoints? [y/N] ").strip().lower() in ("y", "yes")


def _example(arguments: str) -> str:
    return f"example:\n  python -m hub.runs {arguments}"


COMMANDS = {
    "list": Command("every run, newest first", "list --json", (), list_runs, _show_list),
    "show": Command("what one run is, how it stands, what came out", "show latest", ("run",), show_run, _show_run),
    "compare": Command(
        "where two runs differ, and their results", "compare tales verdict", ("first", "second"), compare_runs,
        show_comparison,
    ),
    "delete": Command(
        "remove a run and its checkpoints", "delete tales-1a2b3c --yes", ("run",), delete_run,
        lambda result: f"deleted {result['deleted']}",
    ),
}  # fmt: skip
