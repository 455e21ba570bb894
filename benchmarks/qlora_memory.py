"""How much memory a Qwen of 7 billion parameters takes while it is adapted in 4 bits, on one card held to 16 GB.

A Qwen2.5-7B of random weights is written to a folder and adapted by the command's own functions: NF4 with double
quantisation, rank 16 on all linear maps, context 512, one example at a time, activations computed again. CUDA is told
to refuse more than the limit, so that the run ends where a card of that size would end it. Needs a GPU, and 16 GB of
disk; the estimate for the same recipe is printed beside what was measured.

    python -m benchmarks.qlora_memory
"""

import json
import tempfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from data.console import Parser, cli
from data.prepare import DataRecipe, prepare_tokenizer
from data.workspace import Workspace
from finetune import qlora
from finetune.memory import estimate
from finetune.recipe import build_recipe

# https://huggingface.co/Qwen/Qwen2.5-7B-Instruct/blob/main/config.json
QWEN_7B = {
    "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32_768, "rope_theta": 1e6,
    "tie_word_embeddings": False,
}  # fmt: skip
CONTEXT, STEPS, LIMIT = 512, 10, 16.0


def main() -> int:
    parser = Parser(prog="python -m benchmarks.qlora_memory", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--limit", type=float, default=LIMIT, metavar="GB", help="what the card is held to (10^9 bytes)"
    )
    parser.add_argument("--layers", type=int, default=QWEN_7B["num_hidden_layers"], help="fewer for a quick trial")
    parser.add_argument("--folder", help="where the base is written (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise ValueError("this benchmark measures a GPU's memory, and this machine has no CUDA device")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        report = measure(Path(folder), arguments.layers, arguments.limit * 1e9)
    print(json.dumps(report, indent=2) if arguments.json else describe(report))
    return 0 if report["reserved"] <= arguments.limit * 1e9 else 1


def measure(folder: Path, layers: int, limit: float) -> dict:
    """Peak memory and seconds a step. Bytes."""
    workspace = Workspace(folder / "workspace")
    config = Qwen2Config(**QWEN_7B | {"num_hidden_layers": layers})
    write_base(config, workspace, folder / "base")
    recipe = {
        "data": {"source": str(write_examples(folder)), "too_long": "cut"},
        "model": {"base": str(folder / "base"), "quantization": "nf4", "rank": 16},
        "train": {
            "precision": "bf16", "context": CONTEXT, "batch_size": 1, "steps": STEPS, "activation_checkpointing": True,
            "eval_every": 10**6, "sample_every": 10**6, "save_every": 10**6, "diagnose_every": 10**6,
        },
    }  # fmt: skip
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    expected = estimate(build_recipe(recipe), AutoConfig.from_pretrained(folder / "base"), "cuda")
    run = qlora.run_here(recipe, workspace, "memory")
    return {
        "device": torch.cuda.get_device_name(),
        "parameters": run.info()["model"]["parameters"],
        "limit": limit,
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
        "estimated": expected.memory_total,
        "seconds_a_step": run.info()["result"]["seconds"] / STEPS,
        "loss": run.info()["result"]["train_loss"],
    }


def write_base(config: Qwen2Config, workspace: Workspace, folder: Path) -> None:
    """Random weights in bf16, made on the card, and a tokenizer of ours, whose ids all have an embedding."""
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    _, tokenizer = prepare_tokenizer(DataRecipe(corpus="tales"), workspace)
    tokenizer.tokenizer.save_pretrained(folder)


def write_examples(folder: Path) -> Path:
    """Conversations that fill the context."""
    path = folder / "long.jsonl"
    answer = "once upon a time there was a fox in the woods and " * 60
    rows = [{"prompt": f"tell me story {i}", "completion": answer} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def describe(report: dict) -> str:
    used, held = report["reserved"] / 1e9, report["limit"] / 1e9
    return (
        f"{report['parameters']:,} parameters in NF4 on {report['device']}, context {CONTEXT}: peak {used:.2f} GB held "
        f"by the allocator ({report['allocated'] / 1e9:.2f} GB in tensors), of {held:.1f} GB; estimated "
        f"{report['estimated'] / 1e9:.2f} GB; {report['seconds_a_step']:.2f} s a step, loss {report['loss']:.2f}"
    )


if __name__ == "__main__":
    cli(main)
