"""The configuration: what it derives, what it refuses, what it writes."""

import json

import pytest
from huggingface_hub.errors import StrictDataclassError

from modeling import LabGPTConfig
from modeling.configuration_labgpt import AUTO_MAP


def test_derived_fields():
    config = LabGPTConfig(hidden_size=96, num_attention_heads=6)
    assert (config.num_key_value_heads, config.head_dim, config.intermediate_size) == (6, 16, 384)
    gated = LabGPTConfig(hidden_size=96, num_attention_heads=6, gated_mlp=True)
    assert gated.intermediate_size == 256  # 8/3 · 96
    assert gated.rope_parameters == {"rope_theta": 10000.0, "rope_type": "default"}
    assert LabGPTConfig(position_embedding="none").rope_parameters is None


REFUSED = [
    ({"attention": "softmx"}, "attention='softmx' is not one of 'softmax', 'linear'"),
    ({"position_embedding": "rotary"}, "position_embedding='rotary'"),
    ({"norm": "batchnorm"}, "norm='batchnorm'"),
    ({"norm_position": "middle"}, "norm_position='middle'"),
    ({"hidden_act": "swish"}, "hidden_act='swish'"),
    ({"hidden_size": 100, "num_attention_heads": 3}, "num_attention_heads=3 does not divide hidden_size=100"),
    ({"num_key_value_heads": 3}, "num_key_value_heads=3 does not divide num_attention_heads=4"),
    ({"head_dim": 33}, "33"),
    ({"head_dim": 6, "partial_rotary_factor": 0.5}, "3 components"),
    ({"partial_rotary_factor": 1.5}, "partial_rotary_factor=1.5"),
    ({"attention": "linear", "position_embedding": "alibi"}, "alibi"),
    ({"attention": "linear", "sliding_window": 8}, "sliding_window=8 is not defined for linear"),
    ({"attention": "linear", "attention_dropout": 0.1}, "attention_dropout=0.1 is not defined for linear"),
    ({"position_embedding": "learned", "partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ({"position_embedding": "alibi", "rope_parameters": {"rope_theta": 5.0}}, "rope_parameters"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type='yarn'"),
    ({"hidden_size": 0}, "hidden_size=0 must be above 0"),
    ({"num_attention_heads": 0}, "num_attention_heads=0 must be above 0"),
    ({"sliding_window": -1}, "sliding_window=-1 must be above 0"),
    ({"hidden_dropout": 1.0}, "hidden_dropout=1.0"),
    ({"position_embedding": "sinusoidal", "hidden_size": 33, "num_attention_heads": 3}, "hidden_size=33 must be even"),
]


@pytest.mark.parametrize(("fields", "words"), REFUSED, ids=lambda x: str(x)[:40])
def test_refused_in_a_sentence(fields, words):
    with pytest.raises(ValueError) as caught:
        LabGPTConfig(**fields)
    assert words in str(caught.value)


def test_a_field_set_later_is_checked_before_saving(tmp_path):
    config = LabGPTConfig()
    config.num_key_value_heads = 3
    with pytest.raises(StrictDataclassError, match="num_key_value_heads=3"):
        config.save_pretrained(tmp_path)


def test_types_are_the_librarys_to_check():
    with pytest.raises(StrictDataclassError, match="hidden_size"):
        LabGPTConfig(hidden_size=64.0)


def test_written_and_read_again(tmp_path):
    config = LabGPTConfig(
        rope_parameters={"rope_type": "linear", "factor": 2.0}, partial_rotary_factor=0.5, eos_token_id=[1, 2]
    )
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["auto_map"] == AUTO_MAP
    assert written["model_type"] == "labgpt"
    again = LabGPTConfig.from_pretrained(tmp_path)
    assert again.to_dict() | {"_name_or_path": ""} == config.to_dict()
    assert again.rotary_dim == 16
