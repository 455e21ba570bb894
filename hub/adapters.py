"""Adapters and the bases they stand on: which base it is, that it is the same one, and the two opened together.

May import `data`. An adapter's folder holds `base.json`: the base's run id or Hub id, its revision, the SHA-256 of its
weights, and how they were quantised in training. Where a base was given as a folder of this machine, the workspace
remembers by that hash where it lies (`bases.json`): no path is ever part of a model. `peft` and `bitsandbytes` are
imported where they are used.
"""

import hashlib
import logging
import re
import warnings
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from transformers import AutoTokenizer, GenerationConfig

from data.console import one_line
from data.workspace import Workspace, read_json, sha256_file, write_json
from hub.checkpoints import COMPLETE, checkpoints, verify
from hub.models import ADAPTER, open_model, resolve, run_of

BASE = "base.json"
KNOWN_BASES = "bases.json"  # in the workspace: where a base that was given as a folder lies, by its weights' hash
WEIGHTS = ("*.safetensors", "*.bin")  # the second where there are none of the first
MODEL_PATTERNS = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.py"]
BLOB = re.compile(r"[0-9a-f]{64}")  # the Hub's cache calls a large file by its SHA-256
QUANTIZATIONS = ("nf4", "int8", "none")

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of faster kernels that are not installed
warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks by the old name


def identify(place: Path | str, workspace: Workspace) -> tuple[Path, dict]:
    """The folder of a base, fetched where it is on the Hub, and its record: id, revision, sha256.

    Args:
        place: what `hub.models.resolve` gave.

    Raises ValueError where it is an adapter itself, or has no weights.
    """
    if isinstance(place, str):
        name, _, revision = place.partition("@")
        folder = _fetched(name, revision or None)
        record = {"id": name, "revision": folder.name}
    else:
        run = run_of(place)
        folder = checkpoints(run)[-1] if run and place == run.path and checkpoints(run) else place
        if run is not None:
            record = {"id": run.id, "revision": folder.name if folder != run.path else None}
        else:
            record = {"id": place.resolve().name, "revision": None}
    if (folder / ADAPTER).is_file():
        raise ValueError(f"{place} is an adapter itself: merge it first with python -m finetune.merge, and adapt that")
    record["sha256"] = weights_sha256(folder)
    if isinstance(place, Path) and run_of(place) is None:
        remember(record["sha256"], place, workspace)
    return folder, record


def weights_sha256(folder: Path) -> str:
    """One hash of a model's weight files: their names and SHA-256. Raises ValueError where there are none."""
    files = next((found for pattern in WEIGHTS if (found := sorted(folder.glob(pattern)))), [])
    if not files:
        raise ValueError(f"{folder} holds no weights: neither *.safetensors nor *.bin")
    content = hashlib.sha256()
    for file in files:
        blob = file.resolve().name
        content.update(f"{file.name} {blob if BLOB.fullmatch(blob) else sha256_file(file)}\n".encode())
    return content.hexdigest()


def read_base(folder: Path) -> dict:
    """What `base.json` of an adapter's folder says; of an adapter made elsewhere what its own configuration does."""
    if (folder / BASE).is_file():
        return read_json(folder / BASE)
    config = read_json(folder / ADAPTER)
    return {
        "id": config.get("base_model_name_or_path"), "revision": config.get("revision"), "sha256": None,
        "quantization": "none",
    }  # fmt: skip


def find_base(base: dict, workspace: Workspace) -> Path:
    """The base's folder, its weights being those that are named. Raises ValueError where it cannot be had."""
    name = "@".join(filter(None, (base["id"], base["revision"])))
    folder = remembered(base["sha256"], workspace)
    if folder is None:
        try:
            place = resolve(name, workspace)
        except ValueError as error:
            raise ValueError(f"the adapter's base {name} cannot be found: {error}") from error
        folder = place if isinstance(place, Path) else _fetched(*_parted(place))
    if base["sha256"] is not None and weights_sha256(folder) != base["sha256"]:
        raise ValueError(
            f"the adapter was trained on {name} with weights {base['sha256'][:12]}, and what is called so here has "
            f"others ({weights_sha256(folder)[:12]}): fetch or restore that base"
        )
    return folder


def open_quantised(folder: Path, quantization: str, double: bool = True, dtype=torch.float32, device=None, **kwargs):
    """A base's model, its linear maps quantised, and its tokenizer.

    Args:
        quantization: nf4, int8 or none.
        dtype: of what is not quantised, and of the arithmetic.
        device: where quantised weights are put; they cannot be moved there afterwards.
        kwargs: for `hub.models.open_model`.
    """
    config = quantization_config(quantization, double, dtype)
    where = {"quantization_config": config} if config is not None else {}
    if config is not None and device is not None and torch.device(device).type != "cpu":
        where["device_map"] = {"": device}
    try:
        model, tokenizer = open_model(folder, dtype=dtype, **where, **kwargs)
    except (RuntimeError, AssertionError) as error:  # bitsandbytes', of a shape that it has no kernel for
        raise ValueError(f"{folder.name} cannot be opened in {quantization}: {one_line(error)[:300]}") from error
    for module in model.modules():
        # On a CPU with AVX512-BF16 an evaluation would repack 4-bit weights for good: no gradient passes through what
        # is packed so, and dequantising it gives noise (bitsandbytes 0.50).
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model, tokenizer


def quantization_config(quantization: str, double: bool, dtype):
    """What the library is told; None where nothing is quantised. Raises ValueError without bitsandbytes."""
    if quantization not in QUANTIZATIONS:
        raise ValueError(f"quantization {quantization!r} is not one of {', '.join(QUANTIZATIONS)}")
    if quantization == "none":
        return None
    from transformers import BitsAndBytesConfig

    if quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double, bnb_4bit_compute_dtype=dtype
    )


def open_adapter(folder: Path, workspace: Workspace, quantization: str | None = None, trainable=False, **kwargs):
    """An adapter on its base, as a `PeftModel`, and the adapter's tokenizer.

    Args:
        quantization: of the base; None: as in training.
        kwargs: for `hub.models.open_model` of the base.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise ValueError(f"{folder.name} is an adapter, which needs peft: pip install 'llm-lab[finetune]'") from None
    if (folder / COMPLETE).is_file():
        verify(folder, state=False)
    base = read_base(folder)
    place = find_base(base, workspace)
    if "quantization_config" in kwargs:
        model, _ = open_model(place, **kwargs)
    else:
        kind = quantization or base.get("quantization") or "none"
        model, _ = open_quantised(place, kind, base.get("double_quantization", True), **kwargs)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model = PeftModel.from_pretrained(model, folder, is_trainable=trainable).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def write_adapter(model, base: dict, weights: dict | None, tokenizer, folder: Path) -> None:
    """A `PeftModel`'s adapter, its base's record, its tokenizer and how it stops, as a repository.

    Args:
        weights: the model's own, gathered from all processes; None: as they are.
    """
    config = model.active_peft_config
    config.base_model_name_or_path, config.revision = base["id"], base["revision"]
    # its own tables are never asked of the Hub: no adapter here changes them
    model.save_pretrained(folder, state_dict=weights, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # the library's empty card; the run's own comes from its record
    write_json(folder / BASE, base)
    model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def remember(sha256: str, folder: Path, workspace: Workspace) -> None:
    known = _known(workspace)
    if known.get(sha256) != str(folder.resolve()):
        workspace.root.mkdir(parents=True, exist_ok=True)
        write_json(workspace.root / KNOWN_BASES, known | {sha256: str(folder.resolve())})


def remembered(sha256: str | None, workspace: Workspace) -> Path | None:
    """Where a base lies that was given as a folder, as far as it is still there."""
    folder = _known(workspace).get(sha256)
    return Path(folder) if folder and Path(folder).is_dir() else None


def _known(workspace: Workspace) -> dict[str, str]:
    try:
        return read_json(workspace.root / KNOWN_BASES)
    except (OSError, ValueError):
        return {}


def _fetched(name: str, revision: str | None) -> Path:
    """The folder of a model of the Hub in this machine's cache, fetched as far as it is not there."""
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=MODEL_PATTERNS))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*MODEL_PATTERNS, "*.bin"]))
        return folder
    except Exception as error:  # the network's errors belong to whichever HTTP library the client uses
        raise ValueError(f"{name} cannot be fetched: {one_line(error)[:300]}") from error


def _parted(place: str) -> tuple[str, str | None]:
    name, _, revision = place.partition("@")
    return name, revision or None
