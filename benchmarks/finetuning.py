"""A step of fine-tuning beside trl's SFTTrainer: the same base, adapter, examples in the same order, rate and seed.

Both sides are processes that take turns, a segment of steps each, all through the run, so that a slow minute of the
machine falls on both. A Qwen3 of random weights in NF4, answers of many lengths, AdamW, fp32; the first steps of each
side are not counted. What each side records as its loss is compared step by step with the other's, and with our own
of another seed, which is the noise a person would call the same curve.

    python -m benchmarks.finetuning
"""

import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.training import Gate, Side
from data.console import Parser, cli
from data.workspace import Workspace

WIDTH, LAYERS, HEADS, VOCABULARY = 256, 6, 4, 1024
CONTEXT, BATCH, EXAMPLES, SEGMENT = 192, 8, 512, 10
TARGET = 1.0  # of trl's step


def main() -> int:
    parser = Parser(prog="python -m benchmarks.finetuning", description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--side", choices=SIDES, help="what this process is to run (used by the benchmark itself)")
    parser.add_argument("--folder", help="where the sides find their base and leave their losses (likewise)")
    arguments = parser.parse_args()
    if arguments.side:
        SIDES[arguments.side](arguments)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        make_material(Path(folder))
        report = compare(arguments, Path(folder))
    print(json.dumps(report, indent=2) if arguments.json else describe(report))
    return 0


def compare(arguments, folder: Path) -> dict:
    """Let the sides take turns; medians of the per-round ratios, and how far the curves lie apart."""
    words = [
        sys.executable,
        "-m",
        "benchmarks.finetuning",
        "--threads",
        str(arguments.threads),
        "--folder",
        str(folder),
    ]
    words += ["--rounds", str(arguments.rounds)]
    sides = {name: Side([*words, "--side", name], arguments.threads) for name in ("ours", "trl")}
    rounds = {name: [] for name in sides}
    for _ in range(arguments.rounds):
        for name, side in sides.items():
            rounds[name].append(side.turn())
    for side in sides.values():
        side.close()
    other = Side([*words, "--side", "other_seed"], arguments.threads)
    for _ in range(arguments.rounds):
        other.turn()
    other.close()
    losses = {name: np.array(json.loads((folder / f"{name}.json").read_text())) for name in SIDES}
    steps = min(map(len, losses.values()))
    losses = {name: values[:steps] for name, values in losses.items()}
    wall = {name: statistics.median(wall for wall, _ in turns) / SEGMENT for name, turns in rounds.items()}
    return {
        "threads": arguments.threads,
        "milliseconds": {name: round(seconds * 1e3, 1) for name, seconds in wall.items()},
        "ours_over_trl": {
            kind: round(statistics.median(a[i] / b[i] for a, b in zip(rounds["ours"], rounds["trl"], strict=True)), 3)
            for i, kind in enumerate(("wall", "cpu"))
        },
        "steps": steps,
        "loss": {name: [float(values[0]), float(values[-SEGMENT:].mean())] for name, values in losses.items()},
        "largest_difference_to_trl": float(np.abs(losses["ours"] - losses["trl"]).max()),
        "largest_difference_between_seeds": float(np.abs(losses["ours"] - losses["other_seed"]).max()),
    }


def describe(report: dict) -> str:
    times, ratio, loss = report["milliseconds"], report["ours_over_trl"], report["loss"]
    return "\n".join(
        [
            f"a step: ours {times['ours']} ms, trl {times['trl']} ms; ours over trl {ratio['wall']} by the clock, "
            f"{ratio['cpu']} of CPU time (wanted: at most {TARGET})",
            f"loss over {report['steps']} steps: ours {loss['ours'][0]:.4f} to {loss['ours'][1]:.4f}, "
            f"trl {loss['trl'][0]:.4f} to {loss['trl'][1]:.4f}",
            f"largest difference at one step: {report['largest_difference_to_trl']:.2e} to trl, "
            f"{report['largest_difference_between_seeds']:.2e} between two seeds of ours",
        ]
    )


def make_material(folder: Path) -> None:
    """A base of random weights with a tokenizer of ours, and conversations of many lengths."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from data.prepare import DataRecipe, prepare_tokenizer

    workspace = Workspace(folder / "workspace")
    _, tokenizer = prepare_tokenizer(DataRecipe(corpus="tales", vocab_size=VOCABULARY), workspace)
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(tokenizer.tokenizer), hidden_size=WIDTH, intermediate_size=3 * WIDTH, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS // 2, head_dim=WIDTH // HEADS,
        max_position_embeddings=CONTEXT, tie_word_embeddings=True,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder / "base")
    tokenizer.tokenizer.save_pretrained(folder / "base")
    random = np.random.default_rng(0)
    words = ["the dog", "a red ball", "and then", "she ran home", "because", "it was late", "in the garden"]
    with (folder / "chats.jsonl").open("w", encoding="utf-8") as file:
        for _ in range(EXAMPLES):
            said = [" ".join(random.choice(words, size=int(random.integers(2, 16)))) for _ in range(2)]
            messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), said, strict=True)]
            file.write(json.dumps({"messages": messages}) + "\n")


def parts(folder: Path, arguments, seed: int) -> dict:
    return {
        "data": {"source": str(folder / "chats.jsonl")},
        "model": {"base": str(folder / "base"), "quantization": "nf4", "rank": 16},
        "train": {
            "batch_size": BATCH, "context": CONTEXT, "threads": arguments.threads, "device": "cpu", "seed": seed,
            "steps": SEGMENT * (arguments.rounds + 1), "learning_rate": 1e-3, "deterministic": False,
            "eval_every": 10**6, "sample_every": 10**6, "save_every": 10**6, "diagnose_every": 10**6,
        },
    }  # fmt: skip


class Recorder:
    """The losses of a side, written where the benchmark finds them at the end of each segment."""

    def __init__(self, name: str, arguments):
        self.path, self.losses, self.gate = Path(arguments.folder) / f"{name}.json", [], Gate(SEGMENT)

    def __call__(self, loss: float) -> None:
        self.losses.append(loss)
        if len(self.losses) % SEGMENT == 0:
            self.path.write_text(json.dumps(self.losses))
        self.gate()


def run_ours(arguments, name: str = "ours", seed: int = 0) -> None:
    """The lab's own loop with its log, by the command's own functions."""
    from finetune import qlora
    from training import loop

    folder = Path(arguments.folder)
    record, step = Recorder(name, arguments), loop.optimizer_step

    def recorded(*given):
        taken = step(*given)
        record(taken.loss.item())
        return taken

    loop.optimizer_step = recorded
    qlora.run_here(parts(folder, arguments, seed), Workspace(folder / name), name)


def run_other_seed(arguments) -> None:
    run_ours(arguments, "other_seed", seed=1)


def run_trl(arguments) -> None:
    """SFTTrainer on the same adapted model, the same tokens and masks, in the same order, at the same rates."""
    import datasets
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from finetune import setup
    from finetune.recipe import build_recipe
    from training.optimizers import build_optimizer
    from training.schedule import rate_at
    from training.setup import set_machine

    folder = Path(arguments.folder)
    recipe = build_recipe(parts(folder, arguments, seed=0))
    recipe.train, accelerator = set_machine(recipe.train)
    material = setup.gather(recipe, Workspace(folder / "trl"), accelerator)
    recipe = setup.resolve(recipe, material)
    model = setup.make_model(recipe, material)
    batches = setup.make_batches(recipe, material)
    rows = [row for step in range(recipe.train.steps) for row in rows_of(batches.batch(step))]
    record = Recorder("trl", arguments)

    class Ordered(SFTTrainer):
        def _get_train_sampler(self, dataset=None):
            return SequentialSampler(dataset if dataset is not None else self.train_dataset)

    class Turns(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if "loss" in logs:
                record(logs["loss"])

    settings = SFTConfig(
        str(folder / "trl-output"), max_steps=recipe.train.steps, per_device_train_batch_size=BATCH, use_cpu=True,
        report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1, max_length=CONTEXT, bf16=False,
        gradient_checkpointing=False, max_grad_norm=recipe.train.max_grad_norm, dataloader_drop_last=False,
    )  # fmt: skip
    optimizer = build_optimizer(model, recipe.train)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, recipe.train))
    Ordered(
        model=model, args=settings, train_dataset=datasets.Dataset.from_list(rows), callbacks=[Turns()],
        processing_class=material.tokenizer, optimizers=(optimizer, schedule),
    ).train()  # fmt: skip


def rows_of(batch: dict[str, np.ndarray]) -> list[dict]:
    """A padded batch's rows as trl wants them: whole sequences, and which of their tokens are answers."""
    rows = []
    for inputs, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        length = int(np.flatnonzero(labels != -100)[-1]) + 1  # what stands behind the last answer teaches nothing
        ids = [*inputs[:length].tolist(), int(labels[length - 1])]
        rows.append({"input_ids": ids, "assistant_masks": [0, *(labels[:length] != -100).astype(int).tolist()]})
    return rows


SIDES = {"ours": run_ours, "trl": run_trl, "other_seed": run_other_seed}

if __name__ == "__main__":
    cli(main)
