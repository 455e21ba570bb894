"""The same weights in the library's own models give the same logits: Llama, GPT-2, Qwen3, Mistral."""

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from modeling import LabGPTConfig, LabGPTForCausalLM

CLOSE = 1e-5
SIZES = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}


def shake(model: torch.nn.Module) -> None:
    """Random gains and biases too, so that a forgotten one shows."""
    torch.manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)


def largest_difference(ours: LabGPTForCausalLM, theirs: torch.nn.Module) -> float:
    torch.manual_seed(2)
    ids = torch.randint(0, 61, (2, 40))
    with torch.no_grad():
        a, b = ours.eval()(ids).logits, theirs.eval()(ids).logits
    assert b.std() > 0.1, "logits too small for a difference to show"
    return (a - b).abs().max().item()


FAMILY = {
    "llama": (
        LlamaForCausalLM,
        LlamaConfig(**SIZES, num_key_value_heads=2, intermediate_size=48, tie_word_embeddings=False),
        {"qk_norm": False},
    ),
    "llama scaled": (
        LlamaForCausalLM,
        LlamaConfig(
            **SIZES,
            num_key_value_heads=1,
            intermediate_size=48,
            attention_bias=True,
            mlp_bias=True,
            rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
        ),
        {
            "qk_norm": False,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0},
        },
    ),
    "qwen3": (
        Qwen3ForCausalLM,
        Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16, intermediate_size=48, tie_word_embeddings=True),
        {"qk_norm": True, "head_dim": 16, "tie_word_embeddings": True},
    ),
    "mistral": (
        MistralForCausalLM,
        MistralConfig(**SIZES, num_key_value_heads=4, intermediate_size=48, sliding_window=7),
        {"qk_norm": False, "sliding_window": 7},
    ),
}


@pytest.mark.parametrize("name", FAMILY)
def test_names_and_numbers_of_the_llama_family(name):
    """The names are the library's: no table translates them."""
    their_class, their_config, fields = FAMILY[name]
    theirs = their_class(their_config)
    shake(theirs)
    ours = LabGPTForCausalLM(
        LabGPTConfig(
            **SIZES,
            num_key_value_heads=their_config.num_key_value_heads,
            intermediate_size=48,
            hidden_act="silu",
            gated_mlp=True,
            norm_eps=their_config.rms_norm_eps,
            **fields,
        )
    )
    ours.load_state_dict(theirs.state_dict())
    assert largest_difference(ours, theirs) <= CLOSE


def from_gpt2(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """GPT-2 stores its matrices transposed (`Conv1D`) and q, k and v as one."""
    names = {"ln_1": "input_layernorm", "ln_2": "post_attention_layernorm", "attn.c_proj": "self_attn.o_proj"}
    names |= {"mlp.c_fc": "mlp.up_proj", "mlp.c_proj": "mlp.down_proj"}
    ours = {
        "model.embed_tokens.weight": state["transformer.wte.weight"],
        "model.positions.embed_positions.weight": state["transformer.wpe.weight"],
        "model.norm.weight": state["transformer.ln_f.weight"],
        "model.norm.bias": state["transformer.ln_f.bias"],
        "lm_head.weight": state["lm_head.weight"],
    }
    for name, value in state.items():
        if not name.startswith("transformer.h."):
            continue
        layer, rest = name.removeprefix("transformer.h.").split(".", 1)
        part, kind = rest.rsplit(".", 1)
        value = value.T if value.ndim == 2 else value
        if part == "attn.c_attn":
            for projection, piece in zip("qkv", value.chunk(3), strict=True):
                ours[f"model.layers.{layer}.self_attn.{projection}_proj.{kind}"] = piece
        else:
            ours[f"model.layers.{layer}.{names[part]}.{kind}"] = value
    return ours


def test_gpt2():
    theirs = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=3, n_head=4, n_positions=48))
    shake(theirs)
    ours = LabGPTForCausalLM(
        LabGPTConfig(
            **SIZES,
            max_position_embeddings=48,
            position_embedding="learned",
            norm="layernorm",
            norm_eps=1e-5,
            hidden_act="gelu_new",
            qk_norm=False,
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=True,
        )
    )
    ours.load_state_dict(from_gpt2(theirs.state_dict()))
    assert largest_difference(ours, theirs) <= CLOSE
