"""Tiny random models of every kind that can be looked into, and a tokenizer for them."""

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, Qwen2Config, Qwen3Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data.tokenizer_kinds import train_tokenizer
from modeling import LabGPTConfig

VOCABULARY = 280
SIZE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"max_position_embeddings": 96, "initializer_range": 0.4, "bos_token_id": None, "eos_token_id": None}
GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2}
LABGPT = {
    "labgpt": {},
    "labgpt-grouped": {"num_key_value_heads": 2, "qk_norm": False},
    "labgpt-post": {"norm_position": "post"},
    "labgpt-learned": {"position_embedding": "learned", "norm": "layernorm", "hidden_act": "gelu", "gated_mlp": False},
    "labgpt-sinusoidal": {"position_embedding": "sinusoidal", "final_logit_softcapping": 5.0},
    "labgpt-alibi": {"position_embedding": "alibi", "attention_bias": True, "mlp_bias": True},
    "labgpt-none": {"position_embedding": "none", "tie_word_embeddings": False},
    "labgpt-window": {"sliding_window": 3},
}
CONFIGS = {name: LabGPTConfig(**SIZE, **choices) for name, choices in LABGPT.items()} | {
    "llama": LlamaConfig(**SIZE, **GROUPED),
    "qwen2": Qwen2Config(**SIZE, **GROUPED),
    "qwen3": Qwen3Config(**SIZE, **GROUPED, head_dim=8),
    "gpt2": GPT2Config(**SIZE),
}


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer("bpe", ["the cat sat on the mat, and the dog sat on the cat. "] * 20, VOCABULARY)


def build(name: str, **choices):
    """A model of one of the kinds in CONFIGS, with random weights; `choices` change its configuration."""
    config = type(CONFIGS[name])(**{**CONFIGS[name].to_diff_dict(), **choices})
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config).eval()


MARKUP = "<script>document.title='taken'</script>"


def save_with_markup(path) -> None:
    """A tiny model in a folder, with a token that would be markup if it were not text."""
    tokenizer = train_tokenizer("bpe", ["the cat sat on the mat. "] * 20, 280)
    tokenizer.add_special_tokens({"extra_special_tokens": [*tokenizer.extra_special_tokens, MARKUP]})
    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.4}
    AutoModelForCausalLM.from_config(LabGPTConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(path)
    tokenizer.save_pretrained(path)


@pytest.fixture(scope="session", params=CONFIGS)
def any_model(request):
    """Each kind in turn, shared by all tests: nobody changes it."""
    return build(request.param)


@pytest.fixture
def one_thread():
    """These models are so small that a second thread only gets in the way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
