"""What a recipe will cost, before anything is made: parameters, memory, tokens, floating-point operations, time.

May import `hub`, `data` and `modeling`. Each figure says how it was got. What was made before (a tokenizer, packed
tokens, runs on this machine) is looked at; nothing is made or fetched.
"""

import dataclasses
import math
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
import psutil
import torch
from transformers import AutoTokenizer

from data.corpora import default_name
from data.prepare import DataRecipe
from data.tokenizer import KINDS, saved_versions, trained_name
from data.tokens import Tokens
from data.workspace import Workspace, read_json
from hub.live import read
from hub.metrics import METRICS
from hub.overview import records
from hub.process import cpu_name
from training.gpus import OnGPU, on_gpus
from training.launch import known_corpus
from training.machine import choose_device, core_count, has_compiler, matrix_peak
from training.recipe import Recipe, TrainRecipe, read_recipe
from training.setup import COMPILE_WORTH_STEPS, DEFAULT_STEPS, make_batches, typical_start
from training.sketch import Sketch, check_size, sketch

PROCESS = 600_000_000  # bytes of a training process without a model: Python, torch, transformers
# On the CPU freed memory stays between blocks in use: of what comes and goes in a step so much more is resident, by
# six recipes measured (benchmarks/LOG.md). CUDA's allocator keeps less.
HEAP = {"cpu": 1.4, "cuda": 1.1, "mps": 1.1}
ASCII_CHARACTERS = 247  # entries of a `char` tokenizer on a text of ASCII alone
LIKE_SIZE = 2.0  # runs of up to so many times the parameters, or as many times fewer, tell this one's speed
UTILISATION = 0.35  # of the matrix peak: 33 % eager to 50 % compiled were measured on two cores (benchmarks/LOG.md)

_lock = threading.Lock()


class Unknown(ValueError):  # noqa: N818 - nothing is wrong with the recipe
    """There is no estimate yet; the sentence says what is missing."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Figures of a run to be; None where one cannot be known yet. `how` says by name how each was got."""

    parameters: int
    non_embedding: int
    vocabulary: int
    memory: dict[str, int]
    """Bytes by part."""
    memory_total: int
    """Bytes at the fullest moment. Less than the sum of the parts where they are not there at once."""
    tensor_bytes: int
    """Of these the tensors alone, however they are allocated."""
    memory_free: int
    steps: int | None
    epochs: float | None
    tokens: int | None
    flops: float | None
    seconds: float | None
    device: str
    how: dict[str, str]
    cpu_seconds: float | None = None
    """CPU time of all threads, known where steps were measured."""

    @property
    def on_gpus(self) -> list[OnGPU]:
        """The same run on well-known GPUs; empty while its length is not known."""
        return [] if self.flops is None else on_gpus(self.flops, self.tensor_bytes)

    @property
    def warning(self) -> str:
        """Empty where it fits the memory."""
        if self.memory_total <= self.memory_free:
            return ""
        return (
            f"it needs about {self.memory_total / 1e9:.1f} GB, and {self.memory_free / 1e9:.1f} GB are free on "
            f"{self.device} now: lower train.batch_size, raise train.accumulate, switch train.activation_checkpointing "
            "on, or choose a smaller model"
        )


def estimate(recipe: Recipe, workspace: Workspace) -> Estimate:
    """The figures of a checked recipe on this machine.

    Raises ValueError where its model cannot be, and Unknown where its tokenizer is not here yet.
    """
    train, device = recipe.train, choose_device(recipe.train.device)
    for name in ("steps", "epochs", "batch_size", "context"):
        check_size(f"train.{name}", getattr(train, name))
    check_size("data.vocab_size", recipe.data.vocab_size)
    vocabulary, vocabulary_how = vocabulary_size(recipe.data, workspace)
    made = sketch(recipe.model, vocabulary, train.context, train.batch_size // train.accumulate, train)
    steps, epochs, steps_how = count_steps(recipe, workspace)
    tokens = None if steps is None else steps * train.batch_size * train.context
    seconds, time_how = expected_time(made, tokens, train, steps, device, workspace)
    process = PROCESS if device == "cpu" else 0  # a GPU's memory holds tensors only
    return Estimate(
        parameters=made.parameters,
        non_embedding=made.non_embedding,
        vocabulary=vocabulary,
        memory=made.memory() | ({"process": process} if process else {}),
        memory_total=int(process + made.lasting_bytes + made.looked_at_bytes + HEAP[device] * made.passing_bytes),
        tensor_bytes=made.lasting_bytes + made.passing_bytes,
        memory_free=free_memory(device),
        steps=steps,
        epochs=epochs,
        tokens=tokens,
        flops=None if tokens is None else tokens * made.flops_per_token,
        seconds=seconds,
        device=device,
        how={"vocabulary": vocabulary_how, "steps": steps_how, "time": time_how},
    )


def vocabulary_size(data: DataRecipe, workspace: Workspace) -> tuple[int, str]:
    """Entries of the recipe's tokenizer, and how that is known."""
    folder = made_tokenizer(data, workspace)
    if folder is not None:
        return read_json(folder / "report.json")["vocab_size"], f"of {folder.name}"
    if data.tokenizer == "char":
        return ASCII_CHARACTERS, "of an ASCII text; each other character of the text adds one"
    if data.tokenizer in KINDS:
        return data.vocab_size, "as asked for; a short text may give fewer"
    try:  # of the Hub only what was fetched before: this is asked while somebody types
        return len(AutoTokenizer.from_pretrained(data.tokenizer, local_files_only=True)), f"of {data.tokenizer}"
    except Exception as error:  # whatever a damaged file makes the library raise
        raise Unknown(f"tokenizer {data.tokenizer} is not here yet: what it costs is known once it is") from error


def made_tokenizer(data: DataRecipe, workspace: Workspace) -> Path | None:
    """The folder of the tokenizer that the recipe names, or that was trained for it before."""
    name = data.tokenizer
    if name in KINDS:
        name = trained_name(corpus_name(data, workspace), name, data.vocab_size, data.tokenizer_options)
    return next(reversed(saved_versions(name, workspace)), None)


def corpus_name(data: DataRecipe, workspace: Workspace) -> str:
    return data.corpus if known_corpus(data.corpus, workspace) else default_name(Path(data.corpus))


def made_tokens(data: DataRecipe, workspace: Workspace) -> Tokens | None:
    """The packed text, where corpus and tokenizer have met before."""
    tokenizer = made_tokenizer(data, workspace)
    if tokenizer is None:
        return None
    folder = workspace.root / "tokens" / f"{corpus_name(data, workspace)}-{tokenizer.name}"
    return Tokens(folder, read_json(folder / "meta.json")) if (folder / "meta.json").is_file() else None


def count_steps(recipe: Recipe, workspace: Workspace) -> tuple[int | None, float | None, str]:
    """(steps, the epochs they are, how that is known). Raises ValueError where the text is shorter than one context."""
    train, tokens = recipe.train, made_tokens(recipe.data, workspace)
    if tokens is None:
        if train.epochs:
            return None, train.epochs, "counted once the text is packed"
        return train.steps or DEFAULT_STEPS, None, "as asked for" if train.steps else "of the first run"
    start = train.start if train.start != "auto" else typical_start(tokens, train.context)
    per_epoch = make_batches(tokens, dataclasses.replace(train, start=start)).steps_per_epoch
    steps = max(1, round(train.epochs * per_epoch)) if train.epochs else train.steps or DEFAULT_STEPS
    return steps, steps / per_epoch, f"one epoch is {per_epoch:,.4g} steps"


def free_memory(device: str) -> int:
    """Bytes that a new process may have there now."""
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    if device == "mps":
        return torch.mps.recommended_max_memory()
    free = psutil.virtual_memory().available
    try:  # a container's share
        return min(free, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # none, or `max`
        return free


def expected_time(
    made: Sketch, tokens: int | None, train: TrainRecipe, steps: int | None, device: str, workspace: Workspace
) -> tuple[float | None, str]:
    """(seconds, how they were got): from a like run on this machine, else from its matrix peak."""
    if tokens is None:
        return None, "known once the text is packed"
    compiled = train.compile is True or (train.compile == "auto" and has_compiler() and steps >= COMPILE_WORTH_STEPS)
    threads = train.threads or core_count()
    settings = {"device": device, "precision": train.precision, "threads": threads, "compile": compiled}
    like = like_run(made.parameters, settings, workspace)
    if like is not None:
        usual = usual_speed(workspace.root / "runs" / like["id"])
        speed = usual * like["model"]["parameters"] / made.parameters
        besides = (like["result"].get("seconds") or 0.0) - like["progress"]["tokens"] / usual
        more = f", and {besides:.0f} s for compiling, evaluating and saving" if besides >= 1 else ""
        return tokens / speed + max(besides, 0.0), f"as in {like['id']}, for its size: {speed:,.0f} tokens/s{more}"
    peak = measured_peak(device) * (min(1.0, threads / core_count()) if device == "cpu" else 1.0)
    return tokens * made.flops_per_token / (peak * UTILISATION), (
        f"no like run was measured here: from the machine's matrix peak ({peak / 1e9:,.0f} GFLOP/s when it was last "
        f"measured), of which training reaches about {UTILISATION:.0%}"
    )


def like_run(parameters: int, settings: dict, workspace: Workspace) -> dict | None:
    """run.json of the run nearest in size, of those trained on this machine with the same settings."""
    here, near = _this_cpu(), []
    for path, info in records(workspace):
        if info is None or info.get("kind") != "pretrain" or info["machine"].get("cpu") != here:
            continue
        size, standing = info["model"].get("parameters"), info["progress"]
        if size and standing.get("tokens") and (path / METRICS).is_file():
            distance = abs(math.log(size / parameters))
            if distance <= math.log(LIKE_SIZE):
                near.append((distance, len(near), path, info))  # of two equally near, the newer
    for _, _, path, info in sorted(near)[:5]:  # reading a recipe takes milliseconds
        trained = read_recipe(path / "recipe.yaml").get("train", {})
        if all(trained.get(name) == value for name, value in settings.items()) and usual_speed(path):
            return info
    return None


def usual_speed(run_path: Path) -> float:
    """The median of a run's tokens a second; 0 where none were measured."""
    _, speeds = read(run_path).measured("tokens_sec")
    return float(np.median(speeds)) if len(speeds) else 0.0


def measured_peak(device: str) -> float:
    """Measured once for each device, in a quarter of a second."""
    with _lock:  # two at once would halve each other
        return _peak(device)


@lru_cache(maxsize=4)
def _peak(device: str) -> float:
    return matrix_peak(device, seconds=0.1, size=1024)


@lru_cache(maxsize=1)
def _this_cpu() -> str:
    return cpu_name()
