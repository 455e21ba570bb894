"""`python -m finetune.merge`: put an adapter into its base's weights, which makes one whole model of the two.

May import `training`, `hub` and `data`; peft late. The base is quantised as it was in training and made floating point
again, so that the adapter meets exactly the weights that it was trained on. What merging did to the logits is measured
on the merged model as it lies on disk, and told on its card.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import GenerationConfig
from transformers.utils import logging

from data.console import Parser, cli, one_line
from data.workspace import Workspace, read_json
from hub.adapters import find_base, open_adapter, read_base, weights_sha256
from hub.card import write_card
from hub.checkpoints import checkpoints
from hub.models import ADAPTER, open_model, resolve, run_of
from hub.runs import Run
from training.estimate import free_memory
from training.setup import count_parameters

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# In 32 bits merging moves a logit by a few units in the seventh digit; so much more than that is no rounding.
TOLERANCE = 1e-3
# The adapter and the base are compared on these, and on the first as a conversation where there is a chat template.
PROMPTS = (
    "Anna has 12 apples and gives 5 of them to Ben. How many are left?",
    "def area(radius):\n    return 3.14159 * radius ** 2\n",
    "Once upon a time there was a small fox who lived at the edge of a dark forest. Every evening",
    "The capital of France is Paris; that of Italy is Rome. 你好, Größe, naïve café, 1.000.000 €.",
)


@dataclass(frozen=True)
class Adapter:
    """An adapter at rest, and the run and revision that it is."""

    folder: Path
    base: dict  # as base.json has it
    run: str
    revision: str | None
    inputs: dict  # of the run that trained it

    @classmethod
    def find(cls, ref: str, workspace: Workspace) -> "Adapter":
        """Raises ValueError for what is no adapter."""
        place = resolve(ref, workspace)
        if not isinstance(place, Path) or not (place / ADAPTER).is_file():
            raise ValueError(f"{ref} is no adapter in a run or folder, so there is nothing to merge")
        run = run_of(place)
        if run is None:
            return cls(place, read_base(place), place.resolve().name, None, {})
        kept = checkpoints(run)
        newest = kept[-1] if place == run.path and kept else place
        revision = None if newest == run.path else newest.name
        return cls(newest, read_base(newest), run.id, revision, run.info()["inputs"])


def merge(
    ref: str, workspace: Workspace, name: str | None = None, dtype: str = "float32", device: str = "cpu", say=print
) -> Run:
    """A new run that holds the adapter's base with the adapter in its weights; `AutoModelForCausalLM` opens it.

    Args:
        ref: a fine-tuned run, with `@revision` if wanted, or an adapter's folder.
        name: of the new run; None: the adapter's with `-merged` behind it.
        dtype: of the merged weights on disk: float32, bfloat16 or float16.
        device: where it is computed.
        say: told each stage in words.

    Raises ValueError, with nothing left behind, for what is no adapter, a base that cannot be had, too little memory,
    and where the merged model computes something else.
    """
    adapter = Adapter.find(ref, workspace)
    check_memory(find_base(adapter.base, workspace), device)
    measured = {}

    def fill(folder: Path) -> None:
        with enough_memory(device):
            measured.update(write_merged(adapter, folder, workspace, DTYPES[dtype], device, say))

    parent = {"run": adapter.run, "revision": adapter.revision, "sha256": weights_sha256(adapter.folder)}
    base = {what: adapter.base.get(what) for what in ("id", "revision", "sha256", "quantization")}
    examples = {"examples": adapter.inputs["examples"]} if adapter.inputs.get("examples") else {}
    command = ["python", "-m", "finetune.merge", ref, "--dtype", dtype]
    run = Run.create(
        workspace, name or f"{adapter.run.rpartition('-')[0] or adapter.run}-merged", "import", command, "", 0,
        examples | {"base": base, "parent": parent}, status="running", fill=fill,
    )  # fmt: skip
    run.update(model=measured.pop("model"))
    run.finish("completed", result=measured)
    write_card(run)
    return run


def write_merged(adapter: Adapter, folder: Path, workspace: Workspace, dtype, device: str, say) -> dict:
    """Fill the folder with the merged model; returns its parameters and how far its logits are from the adapter's."""
    from peft import PeftModel

    kind = adapter.base.get("quantization") or "none"
    say(f"opening {adapter.base['id']} ({'not quantised' if kind == 'none' else kind}) with {adapter.run} on it")
    model, tokenizer = open_adapter(adapter.folder, workspace, device_map={"": device})
    batch = prompts(tokenizer, model.config)
    trained_with = logits(model, batch)
    base = model.unload()
    if kind != "none":
        base = base.dequantize()
    model = PeftModel.from_pretrained(base, adapter.folder).eval()
    before = logits(model, batch)
    say("merging and writing")
    merged = model.merge_and_unload().to(dtype)
    if (adapter.folder / "generation_config.json").is_file():
        merged.generation_config = GenerationConfig.from_pretrained(adapter.folder)
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    parameters = count_parameters(merged)
    del model, base, merged  # memory may not hold two
    say("opening what was written, and comparing")
    after = logits(open_model(folder, dtype=torch.float32, device_map={"": device})[0], batch)
    change, scale = largest_difference(before, after), max(float(one.abs().max()) for one in before)
    if dtype == torch.float32 and not change <= TOLERANCE * max(1.0, scale):
        raise ValueError(
            f"merging would change a logit by {change:.3g}, which is no rounding: {adapter.run} adapts a matrix that "
            "its base uses twice, or in a way that cannot be merged"
        )
    quantised = largest_difference(trained_with, after)
    compared = sum(len(one) for one in before)
    return {
        "model": parameters, "merge_difference": change, "merge_difference_quantised": quantised,
        "merge_tokens": compared, "merge_dtype": str(dtype).removeprefix("torch."),
    }  # fmt: skip


def prompts(tokenizer, config) -> list[list[int]]:
    """The texts to compare on as tokens, each no longer than the model reads."""
    texts = list(PROMPTS)
    if tokenizer.chat_template:
        talk = [{"role": "user", "content": PROMPTS[0]}]
        texts.append(tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True))
    longest = getattr(config, "max_position_embeddings", None)
    rows = [tokenizer(text, add_special_tokens=False)["input_ids"][:longest] for text in texts]
    return [row for row in rows if row]


@torch.no_grad()
def logits(model, batch: list[list[int]]) -> list[Tensor]:
    """Those of every position of each text alone, (T, V) in float32 on the CPU."""
    return [model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu() for ids in batch]


def largest_difference(some: list[Tensor], others: list[Tensor]) -> float:
    return max(float((one - other).abs().max()) for one, other in zip(some, others, strict=True))


def check_memory(folder: Path, device: str) -> None:
    """Raises ValueError where the base in 32 bits does not fit the memory that is free."""
    needed, free = 4 * parameter_count(folder), free_memory(device)
    if needed > free:
        elsewhere = ", or merge on the processor with --device cpu" if device != "cpu" else ""
        raise ValueError(
            f"the base takes {needed / 1e9:.1f} GB in 32 bits, and {free / 1e9:.1f} GB are free on {device}: merge on "
            f"a machine with more{elsewhere}"
        )


def parameter_count(folder: Path) -> int:
    """Numbers in a model's weights, in one file or in several; 0 where they are not of safetensors."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            count += sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in file.keys())  # noqa: SIM118
    return count


@contextmanager
def enough_memory(device: str) -> Iterator[None]:
    """Makes one sentence of whichever error says that the memory is full."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        full = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
        if not full:
            raise
        raise ValueError(
            f"the memory of {device} is full: merge on a machine with more ({one_line(error)[:100]})"
        ) from error


def main(arguments: list[str] | None = None) -> int:
    devices = ["cpu"] if not torch.cuda.is_available() else ["cuda", "cpu"]
    parser = Parser(
        prog="python -m finetune.merge",
        description="Put a fine-tuned run's adapter into its base's weights: a new run, one whole model that opens "
        "anywhere. How far its logits are from the adapter's is measured and told on its card.",
        epilog="examples:\n  python -m finetune.merge latest\n"
        "  python -m finetune.merge support-1a2b3c@best --run-name support-whole --dtype bfloat16",
    )
    add = parser.add_argument
    add("run", metavar="RUN[@REVISION]", help="a fine-tuned run's id, name or `latest`; or an adapter's folder")
    add("--run-name", metavar="N", help="what to call the merged run (default: the adapter's name with -merged)")
    add("--dtype", choices=list(DTYPES), default="float32", help="of the weights on disk (default: float32, exact)")
    add("--device", choices=devices, default=devices[0], help=f"where to compute (default: {devices[0]})")
    add("--json", action="store_true", help="print the result for programs")
    add("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    given = parser.parse_args(arguments)
    logging.set_verbosity_error()  # the library tells of each step of its own

    def say(words: str) -> None:
        print(f"{words} …", file=sys.stderr, flush=True)

    run = merge(given.run, Workspace(given.workspace), given.run_name, given.dtype, given.device, say)
    result = read_json(run.path / "run.json")["result"]
    if given.json:
        print(json.dumps({"run": run.id, "path": str(run.path), **result}, indent=2))
        return 0
    print(
        f"{run.id}: over {result['merge_tokens']} tokens no logit is further than {result['merge_difference']:.2g} "
        f"from the adapter's on the same weights, {result['merge_difference_quantised']:.2g} on the base as it was in "
        f"training\n{run.path}"
    )
    return 0


if __name__ == "__main__":
    cli(main)
