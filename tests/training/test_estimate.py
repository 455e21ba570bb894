"""What a recipe will cost, against models that are really built, trained and measured."""

import time

import pytest
import torch

from data.prepare import prepare
from data.workspace import Workspace
from hub.metrics import Metrics
from hub.process import machine
from hub.runs import Run
from training import estimate as module
from training import machine as machine_module
from training import pace as pace_module
from training import setup, sketch
from training.architecture import build_config, build_model
from training.estimate import Unknown, estimate
from training.machine import core_count
from training.optimizers import build_optimizer
from training.recipe import build_recipe

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
MODELS = {
    "labgpt": SMALL,
    "tied, gated": {**SMALL, "tie_word_embeddings": True, "gated_mlp": True, "hidden_act": "silu"},
    "grouped, learned": {**SMALL, "num_key_value_heads": 2, "position_embedding": "learned", "norm": "layernorm"},
    "linear": {**SMALL, "attention": "linear"},
    "dropout": {**SMALL, "attention_dropout": 0.1, "hidden_dropout": 0.1, "attention_bias": True},
    "llama": {"model_type": "llama", **SMALL, "intermediate_size": 64},
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4},
}
V, T, B = 300, 16, 4


def recipe_of(model: dict | None = None, data: dict | None = None, **train):
    data = {"tokenizer": "bpe", "vocab_size": V, **(data or {})}
    train = {"context": T, "batch_size": B, "steps": 10, "compile": False, **train}
    return build_recipe({"data": data, "model": model or SMALL, "train": train})


def real_model(model: dict):
    torch.manual_seed(0)
    return build_model(build_config(model, V, T, sketch.SPECIAL)).train()


def forward(model, dtype=None):
    ids = torch.randint(0, V, (B, T))
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        return model(input_ids=ids, labels=ids, shift_labels=ids, num_items_in_batch=B * T, use_cache=False)


def size(tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_parameters_are_those_of_the_real_model(workspace, model):
    found, real = estimate(recipe_of(model), workspace), real_model(model)
    assert found.parameters == sum(p.numel() for p in real.parameters())
    assert found.non_embedding == setup.count_parameters(real)["parameters_non_embedding"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize(
    "model", [MODELS["labgpt"], MODELS["tied, gated"], MODELS["llama"]], ids=["gpt", "tied", "llama"]
)
def test_memory_is_what_a_trained_model_holds(workspace, model, optimizer):
    recipe, real = recipe_of(model, optimizer=optimizer), real_model(model)
    trainer = build_optimizer(real, recipe.train)
    forward(real).loss.backward()
    trainer.step()
    state = [value for kept in trainer.state.values() for value in kept.values() if isinstance(value, torch.Tensor)]
    memory = estimate(recipe, workspace).memory
    assert memory["weights"] == size(real.parameters())
    assert memory["gradients"] == size(p.grad for p in real.parameters())
    assert memory["optimizer state"] == size(state)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_activations_are_what_a_real_forward_pass_keeps(workspace, model, dtype):
    real, kept = real_model(model), {}
    weights = {p.untyped_storage().data_ptr() for p in real.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _held = forward(real, dtype)
    memory = estimate(recipe_of(model, precision="fp32" if dtype is None else "bf16"), workspace).memory
    assert memory["activations"] == pytest.approx(sum(storage.nbytes() for storage in kept.values()), rel=0.05)
    assert memory["logits"] == 2 * 4 * B * T * V


def test_less_memory_by_micro_batches_and_by_checkpointing(workspace):
    whole = estimate(recipe_of(), workspace).memory
    split = estimate(recipe_of(accumulate=4), workspace).memory
    again = estimate(recipe_of(activation_checkpointing=True), workspace).memory
    assert split["activations"] < 0.3 * whole["activations"]
    assert split["weights"] == whole["weights"]
    assert again["activations"] < 0.75 * whole["activations"]


def test_it_warns_where_the_memory_is_not_enough(workspace, monkeypatch):
    needed = estimate(recipe_of(), workspace)
    assert needed.warning == ""
    monkeypatch.setattr(module, "free_memory", lambda device: needed.memory_total - 1)
    warning = estimate(recipe_of(), workspace).warning
    assert "0.6 GB" in warning and "train.batch_size" in warning and "\n" not in warning


def test_tokens_and_operations_by_hand(workspace):
    found = estimate(recipe_of(steps=7), workspace)
    tokens, C, L = 7 * B * T, 32, 2
    # 6 operations for each entry of 12 C² a layer and of the head, 12·C·T a layer for attention's own products
    assert found.tokens == tokens
    assert found.flops == pytest.approx(tokens * (6 * (L * 12 * C**2 + V * C) + 12 * L * C * T), rel=0.02)
    tied = estimate(recipe_of({**SMALL, "tie_word_embeddings": True}, steps=7), workspace)
    assert tied.flops == found.flops and tied.parameters == found.parameters - V * C


def test_steps_are_the_first_runs_where_none_are_asked_for(workspace):
    recipe = recipe_of(steps=None)
    assert estimate(recipe, workspace).steps == setup.DEFAULT_STEPS


def test_the_vocabulary_is_the_tokenizers_where_there_is_one(workspace, milk):
    recipe = recipe_of(data={"corpus": str(milk), "vocab_size": 5000})
    before = estimate(recipe, workspace)
    assert (before.vocabulary, before.how["vocabulary"]) == (5000, "as asked for; a short text may give fewer")
    _, tokenizer, _packed = prepare(recipe.data, workspace)
    after = estimate(recipe, workspace)
    assert after.vocabulary == len(tokenizer.tokenizer) < 5000
    assert tokenizer.name in after.how["vocabulary"]
    # with the text packed, epochs are steps: those that training itself would take
    epochs = recipe_of(data={"corpus": str(milk), "vocab_size": 5000}, steps=None, epochs=2)
    resolved = setup.resolve(epochs, setup.Data(*prepare(epochs.data, workspace)))
    assert estimate(epochs, workspace).steps == resolved.train.steps
    assert estimate(epochs, workspace).epochs == pytest.approx(2, rel=0.05)


def test_what_is_not_known_yet_is_said(workspace):
    assert estimate(recipe_of(data={"tokenizer": "char"}), workspace).vocabulary == 247
    later = estimate(recipe_of(steps=None, epochs=1.5), workspace)
    assert (later.steps, later.tokens, later.seconds) == (None, None, None)
    assert "packed" in later.how["time"]
    with pytest.raises(Unknown, match="some-owner/some-tokenizer is not here yet"):
        estimate(recipe_of(data={"tokenizer": "some-owner/some-tokenizer"}), workspace)
    assert not workspace.root.exists()  # looking makes nothing


def trained_before(workspace: Workspace, recipe, parameters: int, speed: float) -> Run:
    run = Run.create(workspace, "before", "pretrain", ["python"], recipe.to_yaml(), 0, {})
    metrics = Metrics(run.path)
    for step in range(1, 12):
        metrics.add(step, tokens_sec=speed if step < 11 else speed / 50, train_loss=1.0)  # the last lap was disturbed
    metrics.close()
    progress = {"step": 11, "steps": 11, "tokens": 11 * B * T, "tokens_per_second": speed / 50}
    run.update(model={"parameters": parameters}, progress=progress, machine=machine())
    run.finish("completed", result={"seconds": 11 * B * T / speed + 30})
    return run


def test_time_is_that_of_a_like_run_on_this_machine(workspace):
    threads = core_count()
    recipe = recipe_of(steps=1000, device="cpu", threads=threads)
    parameters = estimate(recipe, workspace).parameters
    run = trained_before(workspace, recipe, parameters // 2 + 1, speed=4000.0)
    found = estimate(recipe, workspace)
    # half the size trains at twice the speed; 30 s go to what is no step
    assert found.seconds == pytest.approx(1000 * B * T / 2000 + 30, rel=0.01)
    assert run.id in found.how["time"]
    for other in ({"threads": threads + 1}, {"compile": True}, {"precision": "bf16"}):
        changed = recipe_of(**{"steps": 1000, "device": "cpu", "threads": threads, **other})
        assert run.id not in estimate(changed, workspace).how["time"]


def test_time_is_that_of_the_matrix_peak_where_no_like_run_was_measured(workspace, monkeypatch):
    monkeypatch.setattr(module, "measured_peak", lambda device: 1e9)
    recipe = recipe_of(threads=core_count(), device="cpu")
    trained_before(workspace, recipe, parameters=10**9, speed=10.0)
    found = estimate(recipe, workspace)
    assert found.seconds == pytest.approx(found.flops / (1e9 * module.UTILISATION))
    assert "1 GFLOP/s" in found.how["time"] and "35%" in found.how["time"]


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"train": {"steps": 10**300}}, "train.steps"),
        ({"train": {"epochs": 1e300}}, "train.epochs"),
        ({"train": {"batch_size": 10**25}}, "train.batch_size"),
        ({"train": {"context": 10**40}}, "train.context"),
        ({"data": {"vocab_size": 10**15}}, "data.vocab_size"),
        ({"model": {"num_hidden_layers": 10**9}}, "model.num_hidden_layers"),
        ({"model": {"model_type": "gpt2", "n_layer": 10**9}}, "model.n_layer"),
        ({"model": {"hidden_size": 10**30}}, "model.hidden_size"),
        ({"model": {"hidden_size": 10**11}}, "built"),
        ({"model": {"num_attention_heads": 3}}, "num_attention_heads=3"),
    ],
)
def test_absurd_sizes_are_one_sentence_at_once(workspace, recipe, words):
    began = time.monotonic()
    with pytest.raises(ValueError, match=words) as caught:
        estimate(build_recipe(recipe), workspace)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert time.monotonic() - began < 5


def test_real_steps_tell_the_time_evaluations_included(workspace):
    recipe = recipe_of(steps=100, eval_every=40)
    pace = pace_module.Pace(seconds=0.5, cpu_seconds=0.8, steps=2)
    found = pace_module.refine(estimate(recipe, workspace), pace, recipe.train, evaluated=6 * B * T)
    # three evaluations, each of six batches forward, which is a third of a step: six steps more; and a look inside
    steps = 106 + pace_module.LOOK / (B * T)
    assert found.seconds == pytest.approx(0.5 * steps) and found.cpu_seconds == pytest.approx(0.8 * steps)
    assert "2 real steps took 0.5 s" in found.how["time"]
    compiled = recipe_of(steps=100, compile=True, eval_every=1000)
    faster = pace_module.refine(estimate(compiled, workspace), pace, compiled.train, evaluated=0)
    assert faster.seconds == pytest.approx(
        0.5 * (100 * pace_module.COMPILED + pace_module.LOOK / (B * T)) + pace_module.COMPILING
    )


def test_memory_at_the_fullest_moment_by_hand(workspace):
    """Weights and optimizer stay; of gradients and activations, which come and go, the most there is at once."""
    adamw = estimate(recipe_of(optimizer="adamw"), workspace)
    stays = adamw.memory["weights"] + adamw.memory["optimizer state"]
    passes = adamw.memory["activations"] + adamw.memory["logits"]
    assert adamw.tensor_bytes == stays + passes
    before = adamw.memory["weights"]  # as they were before a step that is looked at
    assert adamw.memory_total == int(module.PROCESS + stays + before + module.HEAP["cpu"] * passes)
    # with little text at once, Muon's own arithmetic is more: the gradients, and copies of all matrices of one shape
    wide = {**SMALL, "hidden_size": 512, "num_attention_heads": 8}
    muon = estimate(recipe_of(wide, optimizer="muon", batch_size=1), workspace)
    grown = muon.tensor_bytes - muon.memory["weights"] - muon.memory["optimizer state"] - muon.memory["gradients"]
    assert grown == sketch.MUON_COPIES * 4 * 2 * 512 * 2048


def test_gpus_by_hand(workspace):
    found = estimate(recipe_of(steps=7), workspace)
    by_name = {one.gpu.name: one for one in found.on_gpus}
    assert set(by_name) == {"T4", "RTX 3060", "RTX 3090", "RTX 4090", "A10", "L4", "A100", "H100", "H200", "B200"}
    assert by_name["A100"].seconds["bf16"] == pytest.approx(found.flops / (312e12 * 0.35))
    assert by_name["T4"].seconds.keys() == {"fp32", "fp16"}  # it has no bf16 units
    assert all(one.gpu.source.startswith("https://") and one.fits for one in found.on_gpus)
    large = {"preset": "medium", "hidden_size": 4096, "num_attention_heads": 32, "num_hidden_layers": 24}
    fits = {one.gpu.name: one.fits for one in estimate(recipe_of(large), workspace).on_gpus}
    assert not fits["RTX 4090"] and fits["B200"]
    assert estimate(recipe_of(steps=None, epochs=1.5), workspace).on_gpus == []


def test_the_peak_of_memory_is_measured_from_where_it_was_forgotten():
    def spent() -> int:
        block = torch.ones(60_000_000 // 4)
        return int(block.numel())

    machine_module.forget_peak_memory("cpu")
    before = machine_module.peak_memory("cpu")
    spent()
    assert machine_module.peak_memory("cpu") - before > 50e6
