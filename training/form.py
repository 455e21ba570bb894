"""A recipe of a pretraining as the fields of a form, and back to a recipe.

May import `data` and `modeling`. What a field is comes from the dataclasses (`training.fields`); of the model they are
the preset, the configuration's own, and whatever another architecture has.
"""

from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache

import yaml
from pydantic import TypeAdapter, ValidationError

from data.console import nearest, one_line
from data.prepare import DataRecipe
from modeling import LabGPTConfig
from modeling.configuration_labgpt import ACTIVATIONS, ATTENTIONS, NORM_PLACES, NORMS, POSITIONS, POSITIVE
from modeling.presets import PRESETS
from training.architecture import DEFAULT_PRESET
from training.fields import Field, documented, parse, recipe_fields, shape_of, shown, typed_text
from training.recipe import EXCLUSIVE, OPTIMIZER_DEFAULTS, PARTS, TrainRecipe, check_field

# Of a configuration's fields these are the tokenizer's and the library's to fill in.
FILLED_IN = {"vocab_size", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id"}
TABLES = {
    "attention": ATTENTIONS, "position_embedding": POSITIONS, "norm": NORMS, "norm_position": NORM_PLACES,
    "hidden_act": ACTIVATIONS,
}  # fmt: skip
OTHER_FIELDS = (
    "What the form has no field for, as YAML: the `model_type` of another architecture (llama, qwen3, gpt2 …), which "
    "takes the place of the preset, and that architecture's own fields."
)


@lru_cache(maxsize=1)
def form_fields() -> dict[str, Field]:
    """Every field by its dotted name, in the order of the source."""
    made = [*recipe_fields("data", DataRecipe), *_model_fields(), *recipe_fields("train", TrainRecipe)]
    return {field.key: field for field in made}


def values_of(parts: dict) -> dict[str, object]:
    """What the form's fields show for a recipe's parts. Rates that are the optimizer's usual ones are left empty."""
    values = {key: shown(field, field.default) for key, field in form_fields().items()}
    others = {}
    for section, given in parts.items():
        for name, value in given.items():
            if f"{section}.{name}" in values:
                values[f"{section}.{name}"] = shown(form_fields()[f"{section}.{name}"], value)
            elif section == "model":
                others[name] = value
    usual = OPTIMIZER_DEFAULTS.get(str(values["train.optimizer"]), {})
    for name, rate in usual.items():
        if parts.get("train", {}).get(name) == rate:
            values[f"train.{name}"] = ""
    if "model_type" in others:
        values["model.preset"] = ""
    values["model.others"] = yaml.safe_dump(others, sort_keys=False, allow_unicode=True) if others else ""
    return values


def values_to_parts(values: dict[str, object], base: dict[str, object] | None = None) -> dict[str, dict]:
    """A recipe's parts from what the form's fields hold: only what differs from the defaults, or from `base`.

    Raises ValueError, one sentence, for what cannot be read; what cannot be is `build_recipe`'s to say.
    """
    base = values_of({}) if base is None else base
    parts: dict[str, dict] = {"data": {}, "model": {}, "train": {}}
    for key, field in form_fields().items():
        if key in values and typed_text(values[key]) != typed_text(base[key]):
            value = parse(field, values[key])
            if field.name == "others":
                parts["model"].update(value or {})
            elif value is not None or field.section != "model":  # the preset's own
                parts[field.section][field.name] = value
    if "model_type" in parts["model"]:
        parts["model"].pop("preset", None)
    for (section, name), (_, other) in EXCLUSIVE:  # emptied in favour of the other: not worth a line
        for one, instead in ((name, other), (other, name)):
            if parts[section].get(one, "") is None and parts[section].get(instead) is not None:
                del parts[section][one]
    return {section: given for section, given in parts.items() if given}


def check(section: str, name: str, value: object) -> str:
    """What is wrong with a field's value, in one sentence; empty where nothing is, whatever the other fields hold."""
    key = f"{section}.{name}"
    try:
        if key not in form_fields():
            raise ValueError(f"unknown recipe key {key}; {nearest(key, form_fields())}")
        field = form_fields()[key]
        parsed = parse(field, value)
        if section in PARTS:
            check_field(section, name, parsed)
        elif parsed is not None and field.name != "others":
            _check_model(field, parsed)
    except ValueError as error:
        return one_line(error)
    return ""


def _model_fields() -> Iterator[Field]:
    """The preset, and the configuration's own fields: left empty, each is as the preset has it."""
    preset_help = "A named size; the fields below change it. Empty: the default size, or another architecture."
    yield Field("model", "preset", "", "choice", DEFAULT_PRESET, preset_help, tuple(PRESETS), optional=True)
    told = documented(LabGPTConfig)
    annotations = {field.name: field.type for field in fields(LabGPTConfig)}
    for name in LabGPTConfig.__annotations__:
        if name in FILLED_IN:
            continue
        group, words = told[name]
        shape = shape_of(TypeAdapter(annotations[name]).json_schema())
        if name in TABLES:
            shape |= {"kind": "choice", "choices": tuple(TABLES[name])}
        elif shape["kind"] == "switch":
            shape |= {"kind": "choice", "choices": (True, False)}
        if name in POSITIVE:
            shape["above"] = 0
        yield Field("model", name, group, default=None, help=words, **shape | {"optional": True})
    yield Field("model", "others", "another architecture", "yaml", None, OTHER_FIELDS, optional=True)


def _check_model(field: Field, value: object) -> None:
    """Raises ValueError for a wrong type, or out of bounds; how fields fit together is the configuration's to say."""
    if field.choices and value not in field.choices:
        raise ValueError(f"{field.key} cannot be {value!r}; {nearest(str(value), map(str, field.choices))}")
    if field.choices:
        return
    annotation = {one.name: one.type for one in fields(LabGPTConfig)}[field.name]
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise ValueError(f"{field.key} cannot be {value!r}: {reason[0].lower()}{reason[1:]}") from error
    if field.above is not None and value <= field.above:
        raise ValueError(f"{field.key} cannot be {value}: it should be above {field.above}")
