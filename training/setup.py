"""From a checked recipe to everything the loop needs: machine, data, model, run folder.

May import `hub`, `data` and `modeling`. What a recipe leaves open (`auto`, epochs, threads) is decided here, once, and
recorded, so that the resolved recipe gives the same run again.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed
from transformers import PreTrainedConfig
from transformers.utils import logging

from data.prepare import prepare
from data.snapshots import Corpus
from data.tokenizer import Tokenizer
from data.tokens import Batches, Tokens
from data.workspace import Workspace, write_atomic
from hub.queue import turn
from hub.runs import Run
from training.architecture import build_config, build_model
from training.evaluate import Evaluator
from training.loop import Job
from training.machine import choose_attention, choose_device, core_count, has_compiler, supported_precisions
from training.recipe import Recipe, TrainRecipe
from training.sharding import check_sharding, name_blocks
from training.trackers import check_trackers

DEFAULT_STEPS = 680  # of the first run: minutes on two cores
COMPILE_WORTH_STEPS = 300  # compiling takes about as long as it saves on so many steps of a small model


@dataclasses.dataclass
class Data:
    """The data part of a recipe, made: text, its tokenizer, and its tokens."""

    corpus: Corpus
    tokenizer: Tokenizer
    tokens: Tokens


def check_machine(recipe: TrainRecipe, processes: int) -> str:
    """The device that the recipe means here. Raises ValueError for what this machine or so many processes cannot do."""
    device = choose_device(recipe.device)
    if recipe.precision not in supported_precisions(device):
        there = ", ".join(supported_precisions(device))
        raise ValueError(f"train.precision {recipe.precision!r} is not to be had on {device}, which offers: {there}")
    check_trackers(recipe.trackers)
    if recipe.compile is True and device == "cpu" and not has_compiler():
        raise ValueError(
            "train.compile needs a C++ compiler on the CPU: install g++ or clang, or --train.compile false"
        )
    if recipe.batch_size % (processes * recipe.accumulate):
        raise ValueError(
            f"train.batch_size {recipe.batch_size} cannot be divided over {processes} processes x "
            f"{recipe.accumulate} micro-batches: choose a multiple of {processes * recipe.accumulate}"
        )
    return device


def set_machine(recipe: TrainRecipe) -> tuple[TrainRecipe, Accelerator]:
    """Decide device, threads and precision; switch determinism on. The Accelerator knows the other processes."""
    processes = int(os.environ.get("WORLD_SIZE", 1))
    device = check_machine(recipe, processes)
    threads = recipe.threads or max(1, core_count() // processes)
    torch.set_num_threads(threads)
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is repeatable only with a fixed workspace
        # a CUDA kernel without a repeatable twin is named, not refused; on the CPU all that we use have one
        torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # a debugging aid that costs a pass over memory
    logging.disable_progress_bar()  # a bar for each saved file would break into the training's own
    precision = {"fp32": "no"}.get(recipe.precision, recipe.precision)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
    assert accelerator.num_processes == processes, f"{accelerator.num_processes} processes, launched as {processes}"
    check_sharding(accelerator, recipe.optimizer)
    return dataclasses.replace(recipe, device=device, threads=threads), accelerator


def make_data(recipe: Recipe, workspace: Workspace, accelerator: Accelerator) -> Data:
    """Corpus, tokenizer and tokens; the main process makes what is missing, the others then find it."""
    with accelerator.main_process_first():
        return Data(*prepare(recipe.data, workspace))


def resolve(recipe: Recipe, data: Data) -> Recipe:
    """Fill in what only the data can decide, so that the saved recipe leaves nothing open."""
    train = recipe.train
    start = train.start if train.start != "auto" else typical_start(data.tokens, train.context)
    train = dataclasses.replace(train, start=start)
    per_epoch = make_batches(data.tokens, train).steps_per_epoch  # raises where the text is shorter than one context
    if train.steps is None:
        steps = max(1, round(train.epochs * per_epoch)) if train.epochs else DEFAULT_STEPS
        train = dataclasses.replace(train, steps=steps, epochs=None)
    if train.compile == "auto":
        train = dataclasses.replace(train, compile=has_compiler() and train.steps >= COMPILE_WORTH_STEPS)
    if train.attn_implementation == "auto":
        attention = choose_attention(train.device, train.compile, train.context)
        train = dataclasses.replace(train, attn_implementation=attention)
    names = {"corpus": data.corpus.name, "tokenizer": data.tokenizer.name}
    return Recipe(dataclasses.replace(recipe.data, **names), recipe.model, train)


def typical_start(tokens: Tokens, context: int) -> str:
    """`document` where nine documents in ten fit one context whole, else `anywhere`."""
    lengths = np.diff(tokens.starts("train"))
    return "document" if len(lengths) > 1 and np.quantile(lengths, 0.9) <= context else "anywhere"


def make_batches(tokens: Tokens, train: TrainRecipe) -> Batches:
    ids, starts = tokens.split("train"), tokens.starts("train")
    return Batches(ids, starts, train.context, train.batch_size, train.seed, train.start)


def make_model(recipe: Recipe, data: Data):
    """Fresh weights, the same for every process and every number of them."""
    tokenizer = data.tokenizer.tokenizer
    config = build_config(recipe.model, len(tokenizer), recipe.train.context, special_tokens(tokenizer))
    set_seed(recipe.train.seed)
    model = build_model(config)
    if recipe.train.attn_implementation == "eager" or model._supports_sdpa:
        model.set_attn_implementation(recipe.train.attn_implementation)
    if recipe.train.activation_checkpointing:
        model.activation_checkpointing_enable()
    name_blocks(model)
    return model


def special_tokens(tokenizer) -> dict[str, int]:
    """The tokenizer's, by the names that a model's configuration has for them."""
    return {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}


def make_job(recipe: Recipe, data: Data, run: Run, model, accelerator: Accelerator) -> Job:
    train = recipe.train
    set_seed(train.seed + accelerator.process_index)  # each process drops other units
    evaluator = Evaluator(data.corpus, data.tokens, train.context, train.start, train.batch_size, accelerator.device)
    model.to(accelerator.device)
    return Job(run, train, model, data.tokenizer.tokenizer, make_batches(data.tokens, train), evaluator, accelerator)


def make_run(recipe: Recipe, data: Data, workspace: Workspace, name: str, command: list[str], accelerator) -> Run:
    """The folder of a run whose data are made already."""
    written, seed, inputs = recipe.to_yaml(), recipe.train.seed, inputs_of(data)
    return once(lambda: Run.create(workspace, name, "pretrain", command, written, seed, inputs), workspace, accelerator)


def once(make: Callable[[], Run], workspace: Workspace, accelerator: Accelerator) -> Run:
    """The run that `make` makes, called by the main process and opened by all."""
    identity = [make().id if accelerator.is_main_process else None]
    if accelerator.num_processes > 1:
        broadcast_object_list(identity)
    return Run.open(workspace, identity[0])


def inputs_of(data: Data) -> dict:
    return {
        "corpus": {"name": data.corpus.name, "sha256": data.corpus.sha256},
        "tokenizer": {"name": data.tokenizer.name, "sha256": data.tokenizer.sha256},
    }


def complete_record(run: Run, recipe: Recipe, data: Data) -> None:
    """Write down, once, what a run that was made before its data turned out to be: its inputs and resolved recipe."""
    if "corpus" not in run.info()["inputs"]:
        write_atomic(run.path / "recipe.yaml", recipe.to_yaml())
        run.update(inputs=inputs_of(data), seed=recipe.train.seed)


def is_main_process() -> bool:
    """What the Accelerator will say, known before it is made."""
    return int(os.environ.get("RANK", 0)) == 0


@contextmanager
def alone(run: Run, workspace: Workspace) -> Iterator[None]:
    """The run is trained by these processes alone, and in its turn; the main one holds the locks for all.

    Before the Accelerator is made, so that a run waiting for its turn leaves the GPU's memory to the one that trains.
    """
    with ExitStack() as held:
        if is_main_process():
            held.enter_context(run.lock())
            held.enter_context(turn(run, workspace))
        yield


def check_same(run: Run, data: Data, model, checkpoint: Path, force: bool) -> None:
    """Raises ValueError where going on would silently train something else than the run began with."""
    check_data(run, data)
    check_architecture(run, model.config, checkpoint)
    run.check_code(force)


def check_data(run: Run, data: Data) -> None:
    """Raises ValueError where corpus or tokenizer are not those that the run was trained with."""
    began = run.info()["inputs"]
    for kind, found in (("corpus", data.corpus), ("tokenizer", data.tokenizer)):
        if kind in began and began[kind]["sha256"] != found.sha256:  # a fork may take another corpus
            raise ValueError(
                f"run {run.id} was trained with {kind} {began[kind]['name']} ({began[kind]['sha256'][:12]}), which is "
                f"not {found.name} ({found.sha256[:12]}): resume with the same {kind}, or start a new run"
            )


def check_architecture(run: Run, config: PreTrainedConfig, checkpoint: Path) -> None:
    """Raises ValueError where a recipe's configuration is not that of the run's checkpoint."""
    there = type(config).from_pretrained(checkpoint).to_diff_dict()
    here = config.to_diff_dict()
    volatile = {"dtype", "transformers_version", "architectures", "auto_map", "_name_or_path"}
    for key in sorted((there.keys() | here.keys()) - volatile):
        if there.get(key) != here.get(key):
            raise ValueError(
                f"run {run.id} has another architecture: {key} is {there.get(key)!r} in its checkpoint and "
                f"{here.get(key)!r} in this recipe; go on without --model flags, or start a new run"
            )


def count_parameters(model) -> dict[str, int]:
    """Parameters in all, and without token and position embeddings (a tied head counts as one of those)."""
    total = sum(p.numel() for p in model.parameters())
    tables = {p for m in model.modules() if isinstance(m, torch.nn.Embedding) for p in m.parameters()}
    return {"parameters": total, "parameters_non_embedding": total - sum(p.numel() for p in tables)}


def load_weights(model, checkpoint: Path):
    """The checkpoint's weights into a model of the same architecture."""
    attention = model.config._attn_implementation  # no part of a saved configuration
    loaded = type(model).from_pretrained(
        checkpoint, config=model.config, dtype=torch.float32, attn_implementation=attention
    )
    if model.is_activation_checkpointing:
        loaded.activation_checkpointing_enable()
    name_blocks(loaded)
    return loaded
