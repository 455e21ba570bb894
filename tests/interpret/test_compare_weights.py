"""How far weights lie apart: against torch's spectral norm, planted changes, and adapters merged by their library."""

import copy

import pytest
import torch
from transformers import BitsAndBytesConfig

from hub.models import open_model
from interpret.compare import compare
from interpret.compare_weights import spectral_norm, weight_changes
from interpret.structure import structure
from tests.interpret.conftest import build

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),  # peft's business
    pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning"),  # likewise
]
PROMPT = "the cat sat on the mat"
NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


# ── one matrix ──


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 8), (64, 64), (300, 120), (120, 700)])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_the_spectral_norm_is_torchs(shape, scale):
    matrix = scale * random(*shape)
    assert spectral_norm(matrix) == pytest.approx(float(torch.linalg.matrix_norm(matrix.double(), 2)), rel=2e-5)


@pytest.mark.parametrize(
    ("matrix", "norm"),
    [
        (torch.zeros(6, 4), 0),
        (torch.eye(30), 1),  # every direction is as good
        (torch.diag(torch.tensor([3.0, 3, 1, -2])), 3),  # two are
        (torch.outer(torch.ones(16), torch.ones(25)), 20),  # √16·√25
    ],
)
def test_the_spectral_norm_in_closed_form(matrix, norm):
    assert spectral_norm(matrix) == pytest.approx(norm, rel=1e-5)


def test_weights_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="not numbers"):
        spectral_norm(torch.tensor([[1.0, torch.nan]]))


# ── all matrices of a model ──


def test_every_matrix_of_every_kind_is_measured_once(any_model):
    found = weight_changes(any_model, any_model)
    assert found.left_out == []
    assert not any(one.change for one in found.matrices)
    own = {id(p): p for p in any_model.parameters() if p.ndim == 2}  # tied ones once
    assert len(found.matrices) == len(own)
    expected = sorted(float(torch.linalg.matrix_norm(p.detach(), 2)) for p in own.values())
    assert sorted(one.norm for one in found.matrices) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["labgpt", "gpt2"])
def test_a_planted_change_of_rank_one(kind):
    model = build(kind)
    other = copy.deepcopy(model)
    down = structure(other).layers[1].down
    u, v = (torch.nn.functional.normalize(random(n), dim=0) for n in down.weight.shape)
    with torch.no_grad():
        down.weight += 0.25 * torch.outer(u, v)
    changes = [one for one in weight_changes(model, other).matrices if one.change]
    assert [(one.layer, one.module.rpartition(".")[0]) for one in changes] == [(1, "mlp")]
    assert changes[0].change == pytest.approx(0.25, rel=1e-4)
    norm = float(torch.linalg.matrix_norm(structure(model).layers[1].down.weight.detach(), 2))
    assert changes[0].relative == pytest.approx(0.25 / norm, rel=1e-4)


def test_what_only_one_model_has_is_named():
    found = weight_changes(build("llama"), build("llama", num_hidden_layers=3, intermediate_size=48))
    names = {one.name for one in found.matrices}
    assert "blocks.1.self_attn.q_proj" in names
    assert {"blocks.2.self_attn.q_proj", "blocks.0.mlp.down_proj"} <= set(found.left_out)
    assert not names & set(found.left_out)
    with pytest.raises(ValueError, match="no matrix of the same name and shape"):
        weight_changes(build("gpt2"), build("llama", hidden_size=16, vocab_size=64, head_dim=4))


# ── adapters and four bits ──


def with_adapter(model, **choices):
    peft = pytest.importorskip("peft")
    torch.manual_seed(4)
    config = peft.LoraConfig(r=4, lora_alpha=12, target_modules="all-linear", task_type="CAUSAL_LM",
                             init_lora_weights=False, **choices)  # fmt: skip
    return peft.get_peft_model(model, config).eval()


def deltas(adapted) -> dict[int, list[float]]:
    """The spectral norm of what the library adds to each matrix, by layer."""
    layers = structure(adapted).layers
    return {
        number: [
            float(torch.linalg.matrix_norm(module.get_delta_weight("default").detach(), 2))
            for module in layer.module.modules()
            if hasattr(module, "get_delta_weight")
        ]
        for number, layer in enumerate(layers)
    }


@pytest.mark.parametrize("kind", ["qwen3", "gpt2", "labgpt"])
def test_an_adapter_changes_by_what_it_adds(kind, tokenizer):
    base, adapted = build(kind), with_adapter(build(kind))
    found = weight_changes(base, adapted)
    assert found.left_out == []
    for number, expected in deltas(adapted).items():
        assert [one.change for one in found.matrices if one.layer == number] == pytest.approx(expected, rel=1e-5)
    assert not any(one.change for one in found.matrices if one.layer is None)

    seen = compare((base, tokenizer), (adapted, tokenizer), PROMPT)
    assert seen.missing == {}
    assert seen.heads.min() > 0

    back = weight_changes(adapted, base)  # the same way back, of larger or smaller matrices
    assert [one.change for one in back.matrices] == pytest.approx([one.change for one in found.matrices], rel=1e-5)
    merged = weight_changes(base, copy.deepcopy(adapted).merge_and_unload())
    assert [one.change for one in merged.matrices] == pytest.approx([one.change for one in found.matrices], rel=1e-4)


def test_two_adapters_on_one_base():
    first = with_adapter(build("qwen3"))
    second = copy.deepcopy(first)
    with torch.no_grad():
        for name, weight in second.named_parameters():
            if "lora_B" in name:
                weight *= 3  # B·A·scale becomes three times as much: twice as much is the change
    changes = [one.change for one in weight_changes(first, second).matrices if one.layer is not None]
    assert changes == pytest.approx([2 * norm for layer in deltas(first).values() for norm in layer], rel=1e-4)


def test_an_adapter_that_rescales_is_refused():
    with pytest.raises(ValueError, match="merge it first"):
        weight_changes(build("qwen3"), with_adapter(build("qwen3"), use_dora=True))


def test_four_bits(tokenizer, tmp_path):
    """Against what the library itself unpacks, alone and with an adapter on top."""
    pytest.importorskip("bitsandbytes")
    base = build("qwen3", hidden_size=64, intermediate_size=128, head_dim=16)
    base.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    small = open_model(tmp_path, quantization_config=NF4)[0]
    unpacked = open_model(tmp_path, quantization_config=NF4)[0].dequantize()
    plain = unpacked.state_dict()

    found = weight_changes(base, small)
    assert found.left_out == []
    inside = [one for one in found.matrices if one.layer is not None]
    assert len(inside) == 14
    for one in inside:
        name = f"model.layers.{one.layer}.{one.module}.weight"
        expected = torch.linalg.matrix_norm(plain[name].float() - base.state_dict()[name], 2)
        assert one.change == pytest.approx(float(expected), rel=1e-4)
        assert one.change > 0

    adapted = with_adapter(open_model(tmp_path, quantization_config=NF4)[0])
    changes = weight_changes(small, adapted).matrices
    for number, expected in deltas(adapted).items():
        assert [one.change for one in changes if one.layer == number] == pytest.approx(expected, rel=1e-4)
    assert compare((small, tokenizer), (adapted, tokenizer), PROMPT).missing == {}
