"""`python -m hub.push`: publish a run on the Hub, or on another server that speaks its language ($HF_ENDPOINT).

May import `data`. What is published is the model with its card and what was measured, in one commit. Training state,
logs, and run.json, which names folders and processes of this machine, stay here.
"""

import json
import sys
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import disable_progress_bars, validate_repo_id

from data.console import Parser, cli, one_line
from data.workspace import Workspace
from hub.adapter_card import on_hub
from hub.card import write_card
from hub.checkpoints import COMPLETE, best, checkpoints, step_name, verify
from hub.runs import Run
from hub.words import reference

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json", "base.json")
MODEL = (
    *WEIGHTS, "generation_config.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json",
    "added_tokens.json", "chat_template*", "*.py",
)  # fmt: skip
RECORD = ("README.md", "curve.png", "recipe.yaml", "metrics.csv", "metrics.jsonl", "samples.jsonl")


def push(
    ref: str, repo: str, workspace: Workspace, private: bool = False, api: HfApi | None = None
) -> dict[str, object]:
    """Make the repository what the run is, or one of its checkpoints; returns its url, the commit, and the files.

    Args:
        ref: a run, with `@revision` if wanted.
        repo: `owner/name`; made where there is none.
        api: of the server; None: the one that the environment names.

    Raises ValueError where there is nothing to publish, and where the server refuses it.
    """
    check_repo(repo)
    run, folder = find(ref, workspace)
    files, api = published(run, folder), api or HfApi()
    disable_progress_bars()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        there = api.list_repo_files(repo)
        # weights of what lay there before would be taken for a part of this model
        stale = [name for name in there if name not in files and any(fnmatch(name, pattern) for pattern in WEIGHTS)]
        done = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, str(path)) for name, path in files.items()),
                *map(CommitOperationDelete, stale),
            ],
            commit_message=f"{run.id} at {folder.name if folder != run.path else 'its end'}",
        )
    except HfHubHTTPError as error:
        raise ValueError(
            f"{api.endpoint} refused {repo}: {one_line(error)[:300]}; log in with `hf auth login`, or set HF_TOKEN"
        ) from error
    except Exception as error:  # the network's errors belong to whichever HTTP library the client uses
        raise ValueError(f"{api.endpoint} cannot be reached: {one_line(error)[:300]}") from error
    return {
        "run": run.id, "repo": repo, "url": f"{api.endpoint}/{repo}", "commit": done.oid, "files": sorted(files),
        "remark": remark(run),
    }  # fmt: skip


def check_repo(repo: str) -> None:
    """Raises ValueError for what is no id of a repository with its owner."""
    try:
        validate_repo_id(repo)
        owned = repo.count("/") == 1
    except HFValidationError:
        owned = False
    if not owned:
        raise ValueError(f"{repo!r} cannot be a repository's id: write owner/name, as in ada/tales")


def find(ref: str, workspace: Workspace) -> tuple[Run, Path]:
    """The run and the folder of its revision, whole. Raises ValueError where there is no model in it."""
    name, _, revision = ref.partition("@")
    run = Run.open(workspace, name)
    kept = {path.name: path for path in checkpoints(run)}
    if revision in ("", "main"):
        folder = list(kept.values())[-1] if kept else run.path  # a checkpoint does not change while it is read
    elif revision == "best":
        folder = best(run)
    else:
        digits = revision.removeprefix("step-")
        folder = kept.get(step_name(int(digits))) if digits.isdecimal() else None
    if folder is None:
        raise ValueError(f"run {run.id} has no complete revision {revision!r}; it has {', '.join(['main', *kept])}")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"run {run.id} is {run.status} and has no model to publish yet")
    if (folder / COMPLETE).is_file():
        verify(folder, state=False)
    return run, folder


def published(run: Run, folder: Path) -> dict[str, Path]:
    """What goes into the repository, by its name there."""
    if not (run.path / "README.md").is_file():
        write_card(run)
    model = {path.name: path for pattern in MODEL for path in folder.glob(pattern) if path.is_file()}
    record = {name: run.path / name for name in RECORD if (run.path / name).is_file()}
    return model | record


def remark(run: Run) -> str | None:
    """What whoever loads an adapter has to know, where its base is not to be had."""
    info = run.info()
    base = info["inputs"].get("base") or {}
    if info["kind"] != "finetune" or not base.get("id") or on_hub(base):
        return None
    return (
        f"its base {reference(base)} is not of the Hub: publish that too, or merge the adapter into it with "
        f"python -m finetune.merge {run.id} and publish the merged run"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m hub.push",
        description="Publish a run's model, its card and its measurements on the Hub.",
        epilog="examples:\n  python -m hub.push tales ada/tales\n  python -m hub.push tales@best ada/tales --private",
    )
    add = parser.add_argument
    add("run", metavar="RUN[@REVISION]", help="a run's id, name or `latest`; `@best` or `@step-000500` if wanted")
    add("repo", metavar="REPO_ID", help="owner/name; made where there is none")
    add("--private", action="store_true", help="a new repository that only its owner sees")
    add("--json", action="store_true", help="print the result for programs")
    add("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    given = parser.parse_args(arguments)
    result = push(given.run, given.repo, Workspace(given.workspace), given.private)
    if given.json:
        print(json.dumps(result, indent=2))
        return 0
    print(f"{result['run']} is at {result['url']}: {len(result['files'])} files")
    if result["remark"]:
        print(result["remark"], file=sys.stderr)
    return 0


if __name__ == "__main__":
    cli(main)
