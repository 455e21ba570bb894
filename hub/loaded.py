"""Models kept open for the page: the last two that were asked for, opened anew when their weights change.

May import `data`. Everything a person at the page types goes through `Access` here; the library that opens models is
imported when the first one is.
"""

import threading
from collections import OrderedDict
from pathlib import Path

from data.access import Access
from data.console import one_line
from data.workspace import Workspace
from hub.overview import find, record, records
from hub.registry import text

KEPT = 2  # two sides of a comparison
MODEL_FILES = ("*.safetensors", "*.bin", "config.json", "adapter_config.json", "tokenizer.json")

_models: OrderedDict[tuple, tuple] = OrderedDict()
_lock = threading.Lock()  # held while a model is opened: two who want the same one open it once


def loaded(ref: str, access: Access) -> tuple[object, object]:
    """The causal language model that `ref` names, in evaluation mode on the best device here, and its tokenizer.

    Shared by all callers: nobody changes it. Raises ValueError, one sentence, for whatever cannot be opened.

    Args:
        ref: a run, a run's revision (`run@step-000500`), a folder that `access` allows, or an id on the Hub.
    """
    ref = access.reference(ref)
    from hub.models import resolve  # takes seconds: transformers

    with _lock:
        place = resolve(ref, access.workspace)
        if isinstance(place, Path):
            access.path(str(place))  # a link inside the workspace may lead out of it
        key = (str(place), access.trust_remote_code, _identity(place))
        if key not in _models:
            for stale in [old for old in _models if old[:2] == key[:2]]:
                del _models[stale]
            while len(_models) >= KEPT:  # before the next is opened: memory may not hold three
                _models.popitem(last=False)
            _models[key] = _open(ref, access)
        _models.move_to_end(key)
        return _models[key]


def model_choices(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, reference) of every run that has weights, newest first."""
    choices = []
    for path, info in records(workspace):
        if info and ((path / "config.json").is_file() or (path / "adapter_config.json").is_file()):
            loss = (info.get("result") or {}).get("val_loss")
            parts = [info.get("name"), path.name, None if loss is None else f"loss {text(loss)}"]
            choices.append((" · ".join(filter(None, parts)), path.name))
    return choices


def chosen(access: Access, first: str | None, second: str | None) -> list[str]:
    """The one or two models that were named at the page, as they may be opened."""
    return [access.reference(first), *([access.reference(second)] if second and second.strip() else [])]


def base_of(ref: str | None, access: Access) -> str | None:
    """What the fine-tuned run that `ref` names stands on, as a model is named; None for any other model."""
    try:
        info = record(find(access, (ref or "").partition("@")[0]).path) or {}
    except (ValueError, OSError):  # a folder, a model of the Hub, nothing yet
        return None
    base = info["inputs"].get("base") if info.get("kind") == "finetune" else None
    if not base or not base.get("id"):
        return None
    if "/" not in base["id"] and not (access.workspace.root / "runs" / base["id"]).is_dir():
        from hub.adapters import remembered  # takes seconds: transformers

        if folder := remembered(base.get("sha256"), access.workspace):  # it was given as a folder
            return _allowed(folder, access)
    return "@".join(filter(None, (base["id"], base.get("revision"))))


def _allowed(folder: Path, access: Access) -> str | None:
    """The folder where the page may open it: one that it may not is not offered."""
    try:
        return str(access.path(str(folder)))
    except ValueError:
        return None


def _open(ref: str, access: Access) -> tuple[object, object]:
    import torch

    from hub.models import open_model

    try:
        model, tokenizer = open_model(ref, access.workspace, trust_remote_code=access.trust_remote_code)
        is_quantised = getattr(model, "hf_quantizer", None) is not None  # and then where it computes already
        if torch.accelerator.is_available() and not is_quantised:
            model = model.to(torch.accelerator.current_accelerator())
        return model, tokenizer
    except (ValueError, OSError):
        raise
    except Exception as error:  # a folder may hold anything, and the library fails on it in as many ways
        raise ValueError(f"{ref} cannot be opened: {one_line(error)[:300]}") from error


def _identity(place: Path | str) -> tuple:
    """What changes when the files of a model do; a model of the Hub is told by its name alone."""
    if not isinstance(place, Path):
        return ()
    found = []
    for pattern in MODEL_FILES:
        for path in place.glob(pattern):
            stat = path.stat()
            found.append((path.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
    return tuple(sorted(found))
