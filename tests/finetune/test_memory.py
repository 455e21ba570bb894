"""What a fine-tuning needs of memory, against quantised models that are really loaded, adapted and trained."""

import functools
import re

import pytest
import torch
from accelerate.utils import convert_outputs_to_fp32
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

import hub.models  # noqa: F401 - registers LabGPT
from finetune import memory
from finetune.base import DTYPES, with_adapter
from finetune.memory import changed, check_fits, estimate, largest_batch
from finetune.recipe import build_recipe
from finetune.skeleton import check_quantizable, skeleton, weigh
from finetune.trace import Counted, step, trace
from hub.adapters import quantization_config
from training.optimizers import build_optimizer
from training.recipe import merge, parse_flags

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300}
LLAMA = {"model_type": "llama", **SMALL, "intermediate_size": 200}
MODELS = {
    "qwen2": {**LLAMA, "model_type": "qwen2", "num_key_value_heads": 2},
    "qwen3, tied": {**LLAMA, "model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 16,
                    "tie_word_embeddings": True},
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 300, "bos_token_id": 1,
             "eos_token_id": 1},
    "labgpt, odd": {"model_type": "labgpt", **SMALL, "hidden_size": 57, "num_attention_heads": 3, "head_dim": 22},
}  # fmt: skip
KINDS = [
    {"quantization": "nf4"},
    {"quantization": "nf4", "double_quantization": False},
    {"quantization": "int8"},
    {"quantization": "none"},
]
QWEN_7B = {
    "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False,
}  # fmt: skip
B, T = 3, 40


def config_of(fields: dict):
    fields = dict(fields)
    return CONFIG_MAPPING[fields.pop("model_type")](**fields)


def recipe_of(model: dict | None = None, **train):
    train = {"context": T, "batch_size": B, "device": "cpu", **train}
    return build_recipe({"model": {"base": "a-base", "rank": 8, **(model or {})}, "train": train})


@functools.lru_cache(maxsize=8)
def saved(name: str, folder):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config_of(MODELS[name])).save_pretrained(folder / name)
    return folder / name


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """(name, recipe) -> the model that training has: loaded from disk, quantised by the library, adapted by peft."""
    folder = tmp_path_factory.mktemp("bases")

    def make(name: str, recipe):
        how, dtype = recipe.model, DTYPES[recipe.train.precision]
        quantised = quantization_config(how.quantization, how.double_quantization, dtype)
        more = {"quantization_config": quantised} if quantised else {}
        model = AutoModelForCausalLM.from_pretrained(saved(name, folder), dtype=dtype, **more)
        if recipe.train.activation_checkpointing:
            model.activation_checkpointing_enable()
        return with_adapter(model, how).train()

    return make


def held(model) -> dict[int, int]:
    """Address and bytes of every storage that a model's weights, buffers and quantisation constants lie in."""
    found = {}
    for value in (*model.parameters(), *model.buffers()):
        tensors = [value, getattr(value, "SCB", None), getattr(value, "CB", None)]
        state = getattr(value, "quant_state", None)
        for holder in (state, state.state2) if state is not None and state.nested else (state,):
            tensors += [getattr(holder, part, None) for part in ("absmax", "code", "offset")]
        for tensor in tensors:
            if tensor is not None:
                found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return found


def loss_of(model, recipe):
    ids = torch.randint(0, 300, (B, T))
    plain = recipe.train.precision == "fp32"
    with torch.autocast("cpu", DTYPES[recipe.train.precision], enabled=not plain):
        forward = model if plain else convert_outputs_to_fp32(model)
        return forward(
            input_ids=ids, labels=ids, shift_labels=ids, num_items_in_batch=ids.numel(), use_cache=False
        ).loss


@pytest.mark.parametrize(
    ("name", "kind", "precision"),
    [*((name, kind, "fp32") for name in MODELS for kind in KINDS), ("qwen2", KINDS[0], "bf16")],
)
def test_weights_are_byte_for_byte_those_of_the_real_model(real, name, kind, precision):
    recipe = recipe_of(kind, precision=precision)
    model = real(name, recipe)
    found = weigh(skeleton(recipe, config_of(MODELS[name])), "adamw")
    trainable, _ = model.get_nb_trainable_parameters()
    assert found.quantised_bytes + found.other_bytes + found.adapter_bytes == sum(held(model).values())
    assert (found.trainable, found.adapter_bytes) == (trainable, 4 * trainable)
    plain = AutoModelForCausalLM.from_config(config_of(MODELS[name]))
    assert found.parameters == sum(p.numel() for p in plain.parameters()) + trainable


def test_bytes_by_hand():
    """One layer's q_proj, 64 x 64 in NF4: half a byte a weight, a constant for each 64, of which 256 share one."""
    recipe = recipe_of({"targets": "q_proj", "double_quantization": False})
    found = weigh(skeleton(recipe, config_of(LLAMA)), "adamw")
    weights = 2 * (4 * 64 * 64 + 3 * 64 * 200)
    maps = 2 * 7
    assert found.quantised == weights
    assert found.quantised_bytes == weights // 2 + 4 * weights // 64 + 4 * 16 * maps
    assert found.trainable == 2 * 8 * (64 + 64)  # rank 8, into and out of q_proj
    assert found.optimizer_bytes == 8 * found.trainable
    double = weigh(skeleton(changed(recipe, ("model", "double_quantization", True)), config_of(LLAMA)), "adamw")
    per_block = found.quantised_bytes - double.quantised_bytes
    second = 2 * 4 * (4 * 1 + 3 * 1)  # blocks of 64 in a map are 64 or 200: one constant for each 256 of them
    assert per_block == 3 * weights // 64 - second - (4 * 256 + 4) * maps


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"])
def test_moments_are_those_of_the_real_optimizer(real, optimizer):
    recipe = recipe_of({"rank": 64}, optimizer=optimizer)  # large enough for 8 bits, some of them
    model = real("qwen2", recipe)
    trainer = build_optimizer(model, recipe.train)
    loss_of(model, recipe).backward()
    trainer.step()
    sizes = [
        value.numel() * value.element_size()
        for kept in trainer.state.values()
        for name, value in kept.items()
        if isinstance(value, torch.Tensor) and name != "step" and not name.startswith("qmap")
    ]
    assert weigh(skeleton(recipe, config_of(MODELS["qwen2"])), optimizer).optimizer_bytes == sum(sizes)


@pytest.mark.parametrize(
    ("name", "train"),
    [*((name, {}) for name in MODELS), ("qwen2", {"precision": "bf16"}), ("qwen2", {"activation_checkpointing": True})],
)
def test_activations_are_what_a_real_forward_pass_saves(real, name, train):
    recipe = recipe_of(**train)
    model, kept = real(name, recipe), {}
    known = held(model)

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _held = loss_of(model, recipe)
    found = step(recipe, config_of(MODELS[name]), B)
    # a little is alive besides what is saved, such as the tables of the positions
    assert found.kept == pytest.approx(sum(storage.nbytes() for storage in kept.values()), rel=0.15)


@pytest.mark.parametrize(
    ("kind", "train"),
    [
        ({"dora": True}, {}),
        ({"quantization": "int8"}, {}),
        ({"quantization": "int8"}, {"activation_checkpointing": True}),
        ({"dropout": 0.1}, {"precision": "bf16"}),
    ],
)
def test_the_fullest_moment_is_that_of_a_real_step(real, kind, train):
    """What the library's functions hold besides saved tensors is seen where real tensors are counted as they die."""
    recipe = recipe_of(kind, **train)
    model = real("qwen3, tied", recipe)
    given = [*model.parameters(), *model.buffers()]
    loss_of(model, recipe).backward()  # what is made once, such as the state of an int8 map
    model.zero_grad()
    with Counted(given) as counted:
        loss = loss_of(model, recipe)
        kept = counted.now
        loss.backward()
    found = step(recipe, config_of(MODELS["qwen3, tied"]), B)
    assert found.kept == pytest.approx(kept, rel=0.12)
    assert found.peak == pytest.approx(counted.peak, rel=0.12)


@pytest.mark.parametrize("train", [{}, {"precision": "bf16", "activation_checkpointing": True}], ids=str)
def test_a_deep_model_is_reckoned_from_shallow_ones(train):
    config, recipe = config_of({**LLAMA, "num_hidden_layers": 9}), recipe_of(**train)
    whole, reckoned = trace(skeleton(recipe, config), recipe, B), step(recipe, config, B)
    assert reckoned.kept == whole.kept
    assert whole.peak <= reckoned.peak <= 1.2 * whole.peak


def test_layers_that_differ_are_all_run():
    fields = {**LLAMA, "model_type": "qwen3_moe", "num_hidden_layers": 6, "mlp_only_layers": [0, 1, 2]}
    config = config_of({**fields, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32})
    recipe = recipe_of(precision="bf16")
    whole = trace(skeleton(recipe, config), recipe, B)
    assert whole is not None and step(recipe, config, B) == whole


def test_qwen_7b_in_nf4_fits_a_16_gb_card():
    recipe = recipe_of({"rank": 16}, context=512, batch_size=1, precision="bf16")
    found = estimate(recipe, config_of(QWEN_7B), "cuda", free=16 * 10**9)
    assert found.parameters - found.trainable == 7_615_616_512  # as its model card has it
    per_layer = 2 * 3584 * 3584 + 2 * 3584 * 512 + 3 * 3584 * 18944
    assert found.trainable == 28 * 16 * (4 * 3584 + 2 * (3584 + 512) + 3 * (3584 + 18944))
    assert found.memory["quantised weights"] == pytest.approx(28 * per_layer * (0.5 + 1 / 64 + 4 / 64 / 256), rel=1e-3)
    assert found.memory["other weights"] == pytest.approx(2 * 2 * 152064 * 3584, rel=1e-3)
    assert found.fits and 9e9 < found.tensor_bytes < 12e9
    assert "T4" in {one.gpu.name for one in found.on_gpus(10**6) if one.fits}


def test_more_batches_take_more_and_checkpointing_less():
    config = config_of(LLAMA)
    one, four = (estimate(recipe_of(batch_size=4, accumulate=n), config, free=10**10) for n in (1, 4))
    again = estimate(recipe_of(batch_size=4, activation_checkpointing=True), config, free=10**10)
    assert four.micro_batch == 1 and four.memory["activations"] < 0.3 * one.memory["activations"]
    assert again.memory["activations"] < 0.4 * one.memory["activations"]
    assert one.memory["logits"] == 4 * 4 * T * 300


@pytest.mark.parametrize("free", [606e6, 650e6, 1.7e9])
def test_the_largest_batch_is_the_last_that_fits(free):
    config, recipe = config_of(LLAMA), recipe_of()

    def fits(rows: int) -> bool:
        return estimate(changed(recipe, ("train", "batch_size", rows)), config, "cpu", free=int(free)).fits

    rows = largest_batch(recipe, config, int(free), "cpu")
    assert rows > 0 and fits(rows) and not fits(rows + 1)
    assert largest_batch(recipe, config, memory.PROCESS, "cpu") == 0


def flags_in(sentence: str) -> list[dict]:
    """The recipe's parts that each flag of a sentence stands for."""
    words = re.findall(r"--(?:model|train)\.[a-z_]+ \w+", sentence)
    return [parse_flags(one.split()) for one in words]


def test_a_card_too_small_names_what_really_helps():
    config, parts = config_of(LLAMA), {"model": {"base": "a-base"}}
    parts["train"] = {"context": 256, "batch_size": 16, "device": "cpu"}
    recipe = build_recipe(parts)
    need = estimate(recipe, config, "cuda", free=0).tensor_bytes

    def refused(free: float) -> str:
        with pytest.raises(ValueError, match=r"^a-base: it needs about .* GB are free on cuda now; ") as caught:
            check_fits(recipe, config, "cuda", free=int(free))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    said = refused(0.7 * need)
    assert said.endswith(" would do") and "--train.accumulate 2 or " in said
    for change in flags_in(said):  # each alone
        assert estimate(build_recipe(merge(parts, change)), config, "cuda", free=int(0.7 * need)).fits
    cheapest = ("train", "accumulate", 16), ("train", "activation_checkpointing", True), ("train", "precision", "bf16")
    alone, together = (
        min(estimate(changed(recipe, *one), config, "cuda", free=0).memory_total for one in changes)
        for changes in ([[one] for one in cheapest], [[*cheapest, ("model", "rank", 8)]])
    )
    free = (alone + together) // 2
    said = refused(free)
    assert said.endswith("together would do") and len(flags_in(said)) >= 2
    assert estimate(build_recipe(merge(parts, *flags_in(said))), config, "cuda", free=free).fits
    assert refused(1000).endswith(" GB: choose a smaller base")


def test_what_lacks_only_the_allocators_share_is_warned_of():
    config, recipe = config_of(LLAMA), recipe_of()
    need = estimate(recipe, config, "cuda", free=0)
    found = check_fits(recipe, config, "cuda", free=(need.tensor_bytes + need.memory_total) // 2)
    assert not found.fits and "are free on cuda now" in found.warning
    assert check_fits(recipe, config, "cuda", free=need.memory_total).warning == ""


GPTQ = {"quant_method": "gptq", "bits": 4}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("fields", "model", "words"),
    [
        ({**LLAMA, "quantization_config": GPTQ}, {}, "quantised by gptq, which cannot be quantised again"),
        ({**LLAMA, "quantization_config": GPTQ}, {"quantization": "none"}, "adapt the model it was made from"),
        ({**LLAMA, "quantization_config": NF4}, {"quantization": "int8"}, "choose --model.quantization nf4"),
        (LLAMA, {"quantization": "int8", "dora": True}, "model.dora does not train on an int8 base"),
        (LLAMA, {"targets": "q_porj"}, "'q_porj'; did you mean 'q_proj'?"),
        ({**LLAMA, "model_type": "falcon"}, {}, "no linear map that nf4 can quantise: choose --model.quantization n"),
        ({**LLAMA, "model_type": "qwen3_moe", "num_experts": 4}, {"dora": True}, "use_dora"),
        ({"model_type": "mamba", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 300}, {}, "no adapter"),
    ],
)  # fmt: skip
def test_what_cannot_be_quantised_or_adapted_is_one_sentence(fields, model, words):
    with pytest.raises(ValueError, match=words) as caught:
        check_quantizable(recipe_of(model), config_of(fields))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_base_saved_in_4_bits_is_taken_as_it_is():
    plain, packed = config_of(LLAMA), config_of({**LLAMA, "quantization_config": NF4})
    recipe = recipe_of()
    assert weigh(skeleton(recipe, packed), "adamw") == weigh(skeleton(recipe, plain), "adamw")
    assert packed.quantization_config == NF4  # what was given is left as it was
