"""A fine-tuning in the making, as the page hands it in: what it may name, what it starts from, and its start.

May import `training`, `hub` and `data`. The command line trusts who types; here every base and every source of examples
that is named goes through `Access` before anything is opened.
"""

import hashlib
import re
import shlex
import shutil
from pathlib import Path

from data.access import Access
from data.console import nearest
from data.corpora import is_named
from data.workspace import Workspace, check_name
from finetune.launch import command_words, start
from finetune.recipe import SHIPPED, FinetuneRecipe, build_recipe
from finetune.sources import ALIASES, BUILT_IN
from hub.loaded import model_choices
from hub.overview import find, records
from hub.runs import Run
from training.recipe import read_recipe

NEWEST = 20  # runs offered by name; any other can be typed
DEFAULTS, RUN = "defaults", "run:"  # what a draft may start from: nothing, or what stands before a run's id
UPLOADS = "files"  # in the workspace: files that were handed in, kept for the runs that name them
READABLE = (".jsonl", ".json")
HUB = "hf:"  # before a dataset's id
LARGEST = 500 * 2**20  # bytes of an uploaded file; more is read where it lies


def bases(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, reference) of the workspace's models that stand by themselves, newest first."""
    runs = workspace.root / "runs"
    return [(label, ref) for label, ref in model_choices(workspace) if (runs / ref / "config.json").is_file()]


def sources(workspace: Workspace) -> list[str]:
    """The built-in sets, those that everyone calls by a short name, and the files that were handed in."""
    kept = sorted((workspace.root / UPLOADS).glob("[!.]*"))
    return [*BUILT_IN, *ALIASES, *(f"{UPLOADS}/{path.name}" for path in kept)]


def tuned_runs(workspace: Workspace) -> list[str]:
    """The newest fine-tunings that were begun here."""
    return [path.name for path, info in records(workspace) if info and info.get("kind") == "finetune"][:NEWEST]


def beginnings(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, reference) of what a draft may start from."""
    shipped = [(f"recipe {path.stem}", path.stem) for path in sorted(SHIPPED.glob("*.yaml"))]
    return [("the defaults", DEFAULTS), *shipped, *((f"as in run {one}", RUN + one) for one in tuned_runs(workspace))]


def beginning(access: Access, ref: str) -> dict:
    """The parts to start from: of `defaults`, of a recipe that came with the lab, or of `run:ID`."""
    if not ref or ref == DEFAULTS:
        return {}
    if ref.startswith(RUN):
        run = find(access, ref.removeprefix(RUN))
        if run.info()["kind"] != "finetune":
            raise ValueError(f"run {run.id} is no fine-tuning: its recipe has other parts")
        return read_recipe(run.path / "recipe.yaml")
    shipped = {path.stem: path for path in SHIPPED.glob("*.yaml")}
    if ref not in shipped:
        raise ValueError(f"there is no recipe {ref[:80]!r}; {nearest(ref[:80], [DEFAULTS, *shipped])}")
    return read_recipe(shipped[ref])


def complete(access: Access, parts: dict) -> tuple[dict, FinetuneRecipe]:
    """(the parts with their names checked, the recipe they make). Raises ValueError for what may not, or cannot, be."""
    parts = permitted(access, parts)
    return parts, build_recipe(parts)


def permitted(access: Access, parts: dict) -> dict:
    """The parts, the base and the sources of examples known by name or as true paths.

    Raises ValueError for what is not there and for what may not be read.
    """
    data, model = dict(parts.get("data") or {}), dict(parts.get("model") or {})
    for name in ("source", "replay"):
        if isinstance(data.get(name), str) and data[name].strip():
            data[name] = allowed_source(access, data[name].strip(), name)
    if isinstance(model.get("base"), str) and model["base"].strip():
        model["base"] = inside(access, model["base"].strip())
    return {**parts, **({"data": data} if data else {}), **({"model": model} if model else {})}


def check_there(access: Access, source: str) -> None:
    """Raises ValueError where a page that only shows would have to fetch the examples first."""
    made = access.workspace.root / "examples" / source
    if not (source in BUILT_IN or Path(source).exists() or made.exists()):
        access.check_write()


def allowed_source(access: Access, source: str, name: str) -> str:
    """A built-in set, a dataset's id, or the true path of a file or folder; for `replay` a corpus's name as well."""
    if source in BUILT_IN or (name == "replay" and is_named(source, access.workspace)):
        return source
    if source.startswith(HUB):
        reference = access.reference(source.removeprefix(HUB))
        if Path(reference).is_absolute():
            raise ValueError(f"data.{name} {source!r} should be a dataset's id behind {HUB}, such as tatsu-lab/alpaca")
        return HUB + reference
    return inside(access, source)


def inside(access: Access, name: str) -> str:
    """As `Access.reference`; a plain word that is no run may be a folder where the server stands, and is refused."""
    reference = access.reference(name)
    if Path(reference).exists() and not (access.workspace.root / "runs" / reference.partition("@")[0]).exists():
        return str(access.path(name))
    return reference


def keep_upload(access: Access, path: Path) -> str:
    """Move a file that was handed in to where runs find it; its name in the workspace, which is `data.source`.

    The same content twice is one file. Raises ValueError for what is no file of examples by its name or size.
    """
    access.check_write()
    if path.suffix.lower() not in READABLE:
        raise ValueError(f"{path.name} is no {' or '.join(READABLE)} file: hand in JSON lines, one example a line")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path.name} is larger than {LARGEST >> 20} MB: put it into the workspace and name its path")
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()[:6]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.")[:60] or "examples"
    room = access.workspace.root / UPLOADS
    room.mkdir(parents=True, exist_ok=True)
    kept = room / f"{stem}-{digest}{path.suffix.lower()}"
    shutil.move(path, kept)
    return f"{UPLOADS}/{kept.name}"


def command(workspace: Workspace, parts: dict, name: str | None) -> str:
    """What to type in a terminal for the same run."""
    words = command_words(parts, (name or "").strip() or None)
    return shlex.join(words + ([] if workspace.root == Workspace().root else ["--workspace", str(workspace.root)]))


def start_run(access: Access, parts: dict, name: str | None = None) -> Run:
    """Start what was drafted in a process of its own.

    Raises ValueError, with nothing left behind, for whatever can be known to be wrong without doing the work.
    """
    access.check_write()
    name = (name or "").strip() or None
    if name is not None:
        check_name(name, "run name")
    parts, _ = complete(access, parts)
    return start(parts, access.workspace, name)
