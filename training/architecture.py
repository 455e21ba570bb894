"""The model part of a recipe becomes a configuration, and the configuration a model with fresh weights.

May import `modeling`. A LabGPT by preset and fields, or any causal language model the library knows by its
`model_type`, trained from nothing by the same loop.
"""

import dataclasses

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedConfig

from data.console import nearest
from modeling import LabGPTConfig
from modeling.presets import PRESETS, preset_config

DEFAULT_PRESET = "tiny"
OURS = LabGPTConfig.model_type


def build_config(model: dict, vocab_size: int, context: int, special_tokens: dict[str, int]) -> PreTrainedConfig:
    """The configuration a recipe's `model` part describes, its vocabulary and context filled in.

    Args:
        model: `preset` and LabGPTConfig fields, or `model_type` and that configuration's fields.
        special_tokens: `bos_token_id`, `eos_token_id`, `pad_token_id` of the tokenizer.

    Raises ValueError, in one sentence, for an unknown key and for what the architecture cannot be.
    """
    fields = dict(model)
    model_type = fields.pop("model_type", OURS)
    preset = fields.pop("preset", None if model_type != OURS else DEFAULT_PRESET)
    if model_type not in CONFIG_MAPPING or CONFIG_MAPPING[model_type] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        known = [kind for kind, config in CONFIG_MAPPING.items() if config in MODEL_FOR_CAUSAL_LM_MAPPING]
        close = nearest(model_type, known)
        raise ValueError(f"model.model_type {model_type!r} is no causal language model of the library; {close}")
    if preset is not None and (model_type != OURS or preset not in PRESETS):
        raise ValueError(f"model.preset {preset!r} is no preset of {OURS}; {nearest(preset, PRESETS)}")

    config_class = CONFIG_MAPPING[model_type]
    known = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    for key in fields:
        if key not in known:  # the library itself would keep it in silence
            raise ValueError(f"unknown recipe key model.{key} for {model_type}; {nearest(key, known | {'preset'})}")

    given = {"vocab_size": vocab_size, "max_position_embeddings": context, **special_tokens}
    for key, value in given.items():
        if (key in known or key in ("bos_token_id", "eos_token_id", "pad_token_id")) and fields.get(key) is None:
            fields[key] = value
    if fields["vocab_size"] < vocab_size:
        raise ValueError(
            f"model.vocab_size {fields['vocab_size']} is smaller than the tokenizer's {vocab_size}: "
            "leave it out, or train a smaller tokenizer with data.vocab_size"
        )
    try:
        config = preset_config(preset, **fields) if preset is not None else config_class(**fields)
    except (StrictDataclassError, ValueError, TypeError) as error:
        raise ValueError(_innermost(error)) from error
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < context:
        raise ValueError(
            f"train.context {context} is longer than model.max_position_embeddings {positions}: "
            "lower the one or raise the other"
        )
    return config


def build_model(config: PreTrainedConfig):
    """The model with fresh weights, drawn from torch's global generator."""
    try:
        return AutoModelForCausalLM.from_config(config)
    except (ValueError, TypeError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(f"a {config.model_type} cannot be built from these fields: {_innermost(error)}") from error


def _innermost(error: BaseException) -> str:
    """The sentence that says what was wrong, out of the library's wrappings."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())
