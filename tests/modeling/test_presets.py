"""Presets: their sizes, their counts, and the loss they start from."""

import math
from pathlib import Path

import pytest
import torch

from modeling import LabGPTForCausalLM
from modeling.presets import GPT2_VOCABULARY, PRESETS, count_parameters, preset_config, table

# millions of parameters at GPT-2's vocabulary, as the presets are quoted
QUOTED = {"nano": 18, "small": 51, "medium": 124}
SHAPES = {  # of one source, as published
    "c4char": (384, 8, 8, 64),
    "c4char-a": (768, 12, 12, 128),
    "c4char-b": (768, 18, 12, 512),
    "c4char-c": (768, 24, 12, 1024),
}


@pytest.mark.parametrize("name", QUOTED)
def test_sizes_as_quoted(name):
    total, _ = count_parameters(preset_config(name, vocab_size=GPT2_VOCABULARY))
    assert total / 1e6 == pytest.approx(QUOTED[name], rel=0.03)


def test_nano_at_the_real_vocabulary():
    total, _ = count_parameters(preset_config("nano", vocab_size=1024))
    assert total / 1e6 == pytest.approx(5, rel=0.03)


@pytest.mark.parametrize("name", SHAPES)
def test_published_shapes(name):
    c = preset_config(name)
    assert (c.hidden_size, c.num_hidden_layers, c.num_attention_heads, c.max_position_embeddings) == SHAPES[name]
    assert (c.norm_position, c.hidden_act, c.norm, c.position_embedding) == ("post", "relu", "layernorm", "learned")


@pytest.mark.parametrize(("name", "tied"), [("tiny", False), ("nano", True), ("c4char", False)])
def test_counted_on_the_meta_device_as_for_real(name, tied):
    config = preset_config(name, vocab_size=500, tie_word_embeddings=tied)
    model = LabGPTForCausalLM(config)
    total, inside = count_parameters(config)
    assert total == model.num_parameters()
    embeddings = 500 * config.hidden_size * (1 if tied else 2)
    if config.position_embedding == "learned":
        embeddings += config.max_position_embeddings * config.hidden_size
    assert inside == total - embeddings


def test_the_usual_estimate():
    """12·L·C² for plain feed-forwards of 4C, and little besides."""
    _, inside = count_parameters(preset_config("medium"))
    assert inside == pytest.approx(12 * 12 * 768**2, rel=0.001)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", PRESETS)
def test_loss_starts_at_ln_v(name, tied):
    """The loss expected over all next tokens alike; and over the token just read, which a tied head could favour."""
    torch.manual_seed(0)
    V = 1024
    model = LabGPTForCausalLM(preset_config(name, vocab_size=V, tie_word_embeddings=tied)).eval()
    ids = torch.randint(0, V, (2, 24))
    with torch.no_grad():
        logits = model(ids).logits
    over_all = (logits.logsumexp(-1) - logits.mean(-1)).mean().item()
    assert over_all == pytest.approx(math.log(V), abs=0.1)
    itself = (logits.logsumexp(-1) - logits.gather(-1, ids[..., None])[..., 0]).mean().item()
    assert -0.2 < math.log(V) - itself < 1.2  # √C without the last norm's small gain


def test_unknown_presets_and_overrides():
    with pytest.raises(ValueError, match="no preset is called 'huge': there are tiny, nano"):
        preset_config("huge")
    assert preset_config("tiny", hidden_size=64).hidden_size == 64


def test_the_documented_table_is_the_computed_one():
    page = Path(__file__).parents[2] / "docs" / "model.md"
    assert table() in page.read_text(encoding="utf-8")
