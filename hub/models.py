"""Open any model by what a person calls it: a run, a revision of one, a folder, a Hub id.

May import `data` and `modeling`; importing this registers LabGPT, so that runs open without trusting code beside the
weights. This is the only place that reads `RUN@REVISION`: `from_pretrained` ignores the revision of a local folder.
"""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

import modeling  # noqa: F401 - registers LabGPT with the library's Auto classes
from data.console import one_line
from data.workspace import Workspace
from hub.checkpoints import COMPLETE, best, checkpoints, step_name, verify
from hub.runs import Run, UnknownRun

ADAPTER = "adapter_config.json"
MODEL_FILES = ("config.json", ADAPTER)  # one of them makes a folder a model
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
HUB_SECONDS = 10.0  # to learn whether the Hub answers at all

logging.disable_progress_bar()  # the library draws one for every file of weights, through a command's own output


def open_model(
    ref: str | Path,
    workspace: Workspace | str | Path | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    **kwargs,
) -> tuple[torch.nn.Module, object]:
    """A causal language model in evaluation mode, and its tokenizer.

    Args:
        ref: a run's id, name, or `latest`, each with `@best`, `@main`, `@step-000500` or `@500` if wanted; a folder;
            an id on the Hub.
        revision: what may stand after the `@` as well.
        trust_remote_code: run the code that a model brings along; LabGPT needs no such trust.
        kwargs: for `from_pretrained` (of an adapter: its base's): `dtype`, `attn_implementation`, `device_map`,
            `quantization_config` …
    """
    place = resolve(ref, workspace, revision)
    if isinstance(place, Path) and (place / ADAPTER).is_file():
        from hub.adapters import open_adapter  # it stands on this module

        return open_adapter(place, workspace_of(place, workspace), trust_remote_code=trust_remote_code, **kwargs)
    if isinstance(place, Path) and (place / COMPLETE).is_file():
        verify(place, state=False)

    def load(name: str, **where):
        return AutoModelForCausalLM.from_pretrained(name, **where, **kwargs, output_loading_info=True)

    model, loading = _open(load, place, trust_remote_code)
    if loading["missing_keys"]:  # the library fills them with random numbers and goes on
        names = sorted(loading["missing_keys"])
        raise ValueError(f"{place} lacks {len(names)} of the model's weights, such as {names[0]}")
    return model.eval(), _open(AutoTokenizer.from_pretrained, place, trust_remote_code)


def open_tokenizer(ref: str | Path, workspace=None, revision: str | None = None, trust_remote_code: bool = False):
    """The tokenizer alone of anything `open_model` opens."""
    return _open(AutoTokenizer.from_pretrained, resolve(ref, workspace, revision), trust_remote_code)


def open_config(ref: str | Path, workspace=None, revision: str | None = None, trust_remote_code: bool = False):
    """The configuration alone, without reading weights; of an adapter its base's."""
    place = resolve(ref, workspace, revision)
    if isinstance(place, Path) and (place / ADAPTER).is_file():
        from hub.adapters import find_base, read_base  # it stands on this module

        place = find_base(read_base(place), workspace_of(place, workspace))
    return _open(AutoConfig.from_pretrained, place, trust_remote_code)


def resolve(
    ref: str | Path, workspace: Workspace | str | Path | None = None, revision: str | None = None
) -> Path | str:
    """The folder that `ref` means, or a Hub id with its `@revision`. Raises ValueError where it is neither.

    Runs come before folders and folders before the Hub; what has a slash or begins with a dot is no run.
    """
    if Path(ref).expanduser().is_dir() and ("/" in str(ref) or isinstance(ref, Path)):  # may have an @ in its name
        return _in_folder(Path(ref).expanduser(), revision)
    name, at, inline = str(ref).rpartition("@") if "@" in str(ref) else (str(ref), "", "")
    if at and revision:
        raise ValueError(f"{ref!r} names a revision already; {revision!r} is one too many")
    revision = revision or inline or None
    workspace = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
    unknown = None
    if "/" not in name and not name.startswith((".", "~")):
        try:
            return _of_run(Run.open(workspace, name), revision)
        except UnknownRun as error:
            unknown = error
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _in_folder(folder, revision)
    if not HUB_ID.fullmatch(name) or name.startswith("."):
        raise ValueError(f"{name!r} is no folder and cannot be a Hub id")
    _ask_hub(name, revision, unknown)
    return f"{name}@{revision}" if revision else name


def run_of(place: Path | str) -> Run | None:
    """The run that a resolved model belongs to: the folder itself, or the one its checkpoint lies in."""
    folders = (place, *place.parents[1:2]) if isinstance(place, Path) else ()
    return next((Run(folder) for folder in folders if (folder / "run.json").is_file()), None)


def workspace_of(folder: Path, workspace: Workspace | str | Path | None) -> Workspace:
    """Where an adapter's base is looked for: in the workspace given, else in that of the run it belongs to."""
    run = run_of(folder)
    if workspace is None and run is not None:
        return Workspace(run.path.absolute().parents[1])
    return workspace if isinstance(workspace, Workspace) else Workspace(workspace)


def _in_folder(folder: Path, revision: str | None) -> Path:
    if (folder / "run.json").is_file():
        return _of_run(Run(folder), revision)
    if revision:
        raise ValueError(f"{folder} is no run and has no revision {revision!r}")
    if not _is_model(folder):
        raise ValueError(f"{folder} holds no model: there is no config.json in it")
    return folder


def _of_run(run: Run, revision: str | None) -> Path:
    """The folder of one revision: the run's own for `main`, a complete checkpoint's for the others."""
    found = checkpoints(run)
    if revision in (None, "main"):
        if _is_model(run.path):
            return run.path
        if not found:
            raise ValueError(f"run {run.id} is {run.status} and has no checkpoint yet")
        return found[-1]
    if revision == "best":
        if path := best(run):
            return path
        raise ValueError(f"run {run.id} has no validation loss at any checkpoint, so none is `best`")
    digits = revision.removeprefix("step-")
    path = run.path / "checkpoints" / step_name(int(digits)) if digits.isdecimal() else None
    if path not in found:
        names = ["main", *(["best"] if best(run) else []), *(path.name for path in found[-5:])]
        raise ValueError(f"run {run.id} has no complete revision {revision!r}; it has {', '.join(names)}")
    return path


def _is_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in MODEL_FILES)


def _ask_hub(name: str, revision: str | None, unknown: UnknownRun | None) -> None:
    """Raises ValueError where neither the cache nor the Hub has `name`.

    One question with a short limit: `from_pretrained` itself tries an unreachable Hub six times in half a minute.
    """
    try:
        if any(isinstance(try_to_load_from_cache(name, file, revision=revision), str) for file in MODEL_FILES):
            return
        HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS)
        return
    except (RepositoryNotFoundError, GatedRepoError, RevisionNotFoundError, HFValidationError) as error:
        why = one_line(error).split(". ")[0] if isinstance(error, GatedRepoError) else "the Hub has no such model"
    except Exception:  # the network's errors belong to whichever HTTP library the client uses
        why = "the Hub cannot be reached and its cache on this machine lacks it"
    here = f"{unknown}; " if unknown else ""
    raise ValueError(f"{here}no folder {name!r}; {why}" if unknown else f"no model {name!r}: no such folder, and {why}")


def _open(load: Callable, place: Path | str, trust_remote_code: bool):
    """Call one of the library's `from_pretrained`, its many ways to fail made one sentence that names the place."""
    name, _, revision = (str(place), "", "") if isinstance(place, Path) else place.partition("@")
    try:
        return load(name, trust_remote_code=trust_remote_code, **({"revision": revision} if revision else {}))
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        if "trust_remote_code" in str(error) and not trust_remote_code:
            raise ValueError(
                f"{place} brings code of its own: read it, then allow it with trust_remote_code=True"
            ) from error
        raise ValueError(f"{place} cannot be opened: {one_line(error)[:300]}") from error
