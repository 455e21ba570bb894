"""Named sizes, and how many parameters a configuration has.

Imports the model. `python -m modeling.presets` prints the table. Presets stay here: a saved model carries its own
configuration and needs none of them.
"""

import torch

from .configuration_labgpt import LabGPTConfig
from .modeling_labgpt import LabGPTForCausalLM

GPT2_VOCABULARY = 50257  # the vocabulary at which sizes are usually quoted

# One source's four character models on C4, as published: post-norm, LayerNorm, ReLU, learned positions.
C4CHAR = {
    "position_embedding": "learned",
    "norm": "layernorm",
    "norm_position": "post",
    "norm_eps": 1e-5,
    "hidden_act": "relu",
    "qk_norm": False,
    "attention_bias": True,
    "mlp_bias": True,
}

PRESETS = {
    "tiny": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "max_position_embeddings": 128,
    },
    "nano": {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
    },
    "small": {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    },
    "medium": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": True,
    },
    "c4char": {
        **C4CHAR,
        "hidden_size": 384,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "max_position_embeddings": 64,
        "attention_dropout": 0.2,
        "hidden_dropout": 0.2,
    },
    "c4char-a": {
        **C4CHAR,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 128,
        "attention_dropout": 0.2,
        "hidden_dropout": 0.2,
    },
    "c4char-b": {
        **C4CHAR,
        "hidden_size": 768,
        "num_hidden_layers": 18,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
        "attention_dropout": 0.1,
        "hidden_dropout": 0.1,
    },
    "c4char-c": {
        **C4CHAR,
        "hidden_size": 768,
        "num_hidden_layers": 24,
        "num_attention_heads": 12,
        "max_position_embeddings": 1024,
        "attention_dropout": 0.1,
        "hidden_dropout": 0.1,
    },
}


def preset_config(name: str, **overrides) -> LabGPTConfig:
    """The preset's configuration, any field replaced by an override."""
    if name not in PRESETS:
        raise ValueError(f"no preset is called {name!r}: there are {', '.join(PRESETS)}")
    return LabGPTConfig(**{**PRESETS[name], **overrides})


def count_parameters(config: LabGPTConfig) -> tuple[int, int]:
    """All parameters, and those outside the embeddings (tokens and positions) and the head.

    Counted on a model without memory. A tied head is the token embedding, so it counts once.
    """
    with torch.device("meta"):
        model = LabGPTForCausalLM(config)
    embeddings = {m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)} | {model.lm_head.weight}
    total = sum(p.numel() for p in model.parameters())
    return total, total - sum(p.numel() for p in embeddings)


def table(vocab_sizes: tuple[int, ...] = (GPT2_VOCABULARY, 1024)) -> str:
    """The presets as a Markdown table, parameters computed at each vocabulary size."""
    counts = [f"parameters at {size:,}" for size in vocab_sizes]
    rows = [["preset", "width × layers × heads", "context", "tied", *counts, "without embeddings"]]
    rows.append(["---"] * len(rows[0]))
    for name in PRESETS:
        config = preset_config(name)
        size = f"{config.hidden_size} × {config.num_hidden_layers} × {config.num_attention_heads}"
        tied = "yes" if config.tie_word_embeddings else "no"
        totals = [count_parameters(preset_config(name, vocab_size=n)) for n in vocab_sizes]
        row = [f"`{name}`", size, str(config.max_position_embeddings), tied]
        rows.append([*row, *(f"{total / 1e6:.1f} M" for total, _ in totals), f"{totals[0][1] / 1e6:.1f} M"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table())
