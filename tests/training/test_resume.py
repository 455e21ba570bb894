"""A killed run, resumed, ends with the same bits as one never stopped: weights, optimizer, metrics."""

import random
from pathlib import Path

import pytest
import torch

from modeling import LabGPTConfig, LabGPTForCausalLM
from training.setup import load_weights

STEPS, SAVE_EVERY = 24, 4
RECIPE = [
    *("--train.steps", str(STEPS), "--train.save_every", str(SAVE_EVERY), "--train.log_every", "3"),
    *("--train.eval_every", "8", "--train.eval_sequences", "4", "--train.sample_every", "12"),
    *("--train.diagnose_every", "6"),
    *("--train.context", "32", "--train.batch_size", "4", "--train.accumulate", "2", "--train.warmup_steps", "5"),
    *("--train.optimizer", "muon", "--data.tokenizer", "char", "--model.hidden_dropout", "0.1"),
    *("--model.hidden_size", "16", "--model.num_hidden_layers", "2", "--model.num_attention_heads", "2"),
]  # fmt: skip


def only_run(workspace: Path) -> Path:
    (record,) = workspace.glob("runs/*/run.json")
    return record.parent


def kills(seed: int) -> list[list]:
    """Where to die: after a random step, while a random checkpoint is written, and before it is published."""
    dice = random.Random(seed)
    saves = dice.sample(range(2 * SAVE_EVERY, STEPS + 1, SAVE_EVERY), 2)
    places = [["step", dice.randrange(2, STEPS)], ["save", min(saves)], ["publish", max(saves)]]
    return sorted(places, key=lambda place: place[1])


@pytest.mark.parametrize(
    ("threads", "compiled"),
    [
        (1, False),
        (2, False),
        pytest.param(1, True, marks=pytest.mark.slow),
        pytest.param(2, True, marks=pytest.mark.slow),
    ],
)
def test_killed_and_resumed_equals_never_stopped(pretrain, milk, tmp_path, assert_same_bits, threads, compiled):
    recipe = [
        *RECIPE,
        "--data.corpus",
        str(milk),
        "--train.threads",
        str(threads),
        "--train.compile",
        str(compiled).lower(),
    ]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    code, output = pretrain(whole, *recipe)
    assert code == 0, output

    places = kills(seed=10 * threads + compiled)
    code, output = pretrain(killed, *recipe, kill=places[0])
    assert code == -9, output
    for place in places[1:]:
        code, output = pretrain(killed, "--resume", "latest", kill=place)
        assert code == -9, (place, output)
    code, output = pretrain(killed, "--resume", "latest")
    assert code == 0, output
    assert "resuming" in output
    assert_same_bits(only_run(whole), only_run(killed))

    if threads == 2:  # the same seed twice gives the same bits; one run of each kind is enough to tell
        code, output = pretrain(tmp_path / "again", *recipe)
        assert code == 0, output
        assert_same_bits(only_run(whole), only_run(tmp_path / "again"))


def test_torn_and_tampered_checkpoints_are_passed_over_by_name(pretrain, milk, tmp_path):
    recipe = [*RECIPE, "--data.corpus", str(milk), "--train.threads", "1", "--train.compile", "false"]
    code, output = pretrain(tmp_path, *recipe, kill=["step", 17])
    assert code == -9, output
    run = only_run(tmp_path)
    torn, tampered = (run / "checkpoints" / f"step-{step:06d}" for step in (16, 12))
    file = torn / "state" / "training.pt"
    file.write_bytes(file.read_bytes()[:-100])
    file = tampered / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()  # the run's root shares the file: writing in place would spoil that too
    file.write_bytes(content)

    code, output = pretrain(tmp_path, "--resume", "latest", kill=["step", 18])
    assert "step-000016" in output and "training.pt" in output
    assert "step-000012" in output and "model.safetensors" in output
    assert "from its beginning" in output  # step 8 has no state any more: only the last two are kept
    assert code == -9


def test_a_model_that_goes_on_is_set_up_as_it_began(tmp_path):
    """What no configuration holds: recomputed activations, the kind of attention, the blocks that FSDP wraps."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LabGPTForCausalLM(LabGPTConfig(vocab_size=30, **sizes))
    model.save_pretrained(tmp_path)
    model.activation_checkpointing_enable()
    model.set_attn_implementation("eager")
    loaded = load_weights(model, tmp_path)
    assert loaded.is_activation_checkpointing and loaded.config._attn_implementation == "eager"
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), loaded.parameters(), strict=True))
    there = {type(module).__name__ for module in loaded.modules()}
    assert loaded._no_split_modules and set(loaded._no_split_modules) <= there
