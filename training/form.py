"""A recipe as the fields of a form: what each is called, what it may be, what it means; and back to a recipe.

May import `data` and `modeling`. All of it is read from the dataclasses and from the words beside their fields in the
source, so that a field added there appears in the form. Values are as a person typed them: text, a choice, a switch.
"""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import accumulate, pairwise

import yaml
from pydantic import TypeAdapter, ValidationError

from data.console import nearest, one_line
from data.prepare import DataRecipe
from modeling import LabGPTConfig
from modeling.configuration_labgpt import ACTIVATIONS, ATTENTIONS, NORM_PLACES, NORMS, POSITIONS, POSITIVE
from modeling.presets import PRESETS
from training.architecture import DEFAULT_PRESET
from training.recipe import EXCLUSIVE, OPTIMIZER_DEFAULTS, PARTS, TrainRecipe, check_field, parse_value

LONGEST = {"text": 1000, "yaml": 10_000}  # characters; a number needs far fewer
DEEPEST = 20  # brackets in brackets; the YAML library's time grows with the square of it
NUMBER_LONGEST = 100
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


@dataclass(frozen=True)
class Field:
    """One field of the form.

    Args:
        group: the heading above it in the source.
        kind: `choice`, `integer`, `number`, `switch`, `text`, or `yaml` for a value with parts.
        default: what holds where nothing is typed.
        optional: may be left empty, which is None.
        least, most: bounds of a number; `above` and `below` exclude the bound itself.
    """

    section: str
    name: str
    group: str
    kind: str
    default: object
    help: str
    choices: tuple = ()
    optional: bool = False
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def label(self) -> str:
        return self.name.replace("_", " ").capitalize()

    @property
    def options(self) -> list[str]:
        """The choices as text, as a form holds them."""
        return [_shown(self, choice) for choice in self.choices]


@lru_cache(maxsize=1)
def form_fields() -> dict[str, Field]:
    """Every field by its dotted name, in the order of the source."""
    made = [*_recipe_fields("data", DataRecipe), *_model_fields(), *_recipe_fields("train", TrainRecipe)]
    return {field.key: field for field in made}


def values_of(parts: dict) -> dict[str, object]:
    """What the form's fields show for a recipe's parts. Rates that are the optimizer's usual ones are left empty."""
    values = {key: _shown(field, field.default) for key, field in form_fields().items()}
    others = {}
    for section, given in parts.items():
        for name, value in given.items():
            if f"{section}.{name}" in values:
                values[f"{section}.{name}"] = _shown(form_fields()[f"{section}.{name}"], value)
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
        if key in values and _text(values[key]) != _text(base[key]):
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


def parse(field: Field, value: object) -> object:
    """The recipe's value from what was typed, read as in a recipe file: 1e-3 is a number, and null is None.

    Raises ValueError, one sentence, for what cannot be read at all.
    """
    text = _text(value)
    if not text:
        if field.optional:
            return None
        example = field.options[0] if field.choices else field.default
        raise ValueError(f"{field.key} is empty: give one, such as {example}")
    if not isinstance(value, str):
        return value
    longest = LONGEST.get(field.kind, NUMBER_LONGEST)
    if len(text) > longest:
        raise ValueError(f"{field.key} is {len(text):,} characters long: {longest:,} are the most it can be")
    if field.kind == "text" or text in field.choices:
        return text
    try:
        if _depth(text) > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise ValueError("aliases (*name) are not for recipes")  # a few of them unfold to gigabytes
        parsed = parse_value(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"{field.key} cannot be read as YAML: {one_line(error)}") from error
    if field.kind == "yaml" and not (
        isinstance(parsed, dict | None) and all(isinstance(key, str) for key in parsed or {})
    ):
        raise ValueError(f"{field.key} should hold `name: value` lines, such as model_type: llama, not {text[:40]!r}")
    # YAML's yes is no number
    return text if isinstance(parsed, bool) and field.kind in ("integer", "number") else parsed


def _recipe_fields(section: str, cls: type) -> Iterator[Field]:
    documented, schemas = _documented(cls), TypeAdapter(cls).json_schema()["properties"]
    for name in (field.name for field in fields(cls)):
        group, words = documented[name]
        yield Field(section, name, group, default=schemas[name].get("default"), help=words, **_shape(schemas[name]))


def _model_fields() -> Iterator[Field]:
    """The preset, and the configuration's own fields: left empty, each is as the preset has it."""
    preset_help = "A named size; the fields below change it. Empty: the default size, or another architecture."
    yield Field("model", "preset", "", "choice", DEFAULT_PRESET, preset_help, tuple(PRESETS), optional=True)
    documented = _documented(LabGPTConfig)
    annotations = {field.name: field.type for field in fields(LabGPTConfig)}
    for name in LabGPTConfig.__annotations__:
        if name in FILLED_IN:
            continue
        group, words = documented[name]
        shape = _shape(TypeAdapter(annotations[name]).json_schema())
        if name in TABLES:
            shape |= {"kind": "choice", "choices": tuple(TABLES[name])}
        elif shape["kind"] == "switch":
            shape |= {"kind": "choice", "choices": (True, False)}
        if name in POSITIVE:
            shape["above"] = 0
        yield Field("model", name, group, default=None, help=words, **shape | {"optional": True})
    yield Field("model", "others", "another architecture", "yaml", None, OTHER_FIELDS, optional=True)


def _shape(schema: dict) -> dict:
    """Kind, choices and bounds from a JSON schema; of several types the widest."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    shape: dict = {"optional": len(options) < len(schema.get("anyOf", [schema]))}
    types = {option.get("type") for option in options}
    listed = [
        choice for option in options for choice in option.get("enum", [option.get("const")]) if choice is not None
    ]
    if listed:
        return shape | {"kind": "choice", "choices": (*listed, *((True, False) if "boolean" in types else ()))}
    kinds = {"number": "number", "integer": "integer", "boolean": "switch", "object": "yaml"}
    shape["kind"] = next((kind for name, kind in kinds.items() if name in types), "text")
    bounds = {"minimum": "least", "maximum": "most", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
    return shape | {ours: option[theirs] for option in options for theirs, ours in bounds.items() if theirs in option}


def _documented(cls: type) -> dict[str, tuple[str, str]]:
    """(the heading comment above it, its own words) of each field: the docstring below it, or the comment behind it."""
    source = inspect.getsource(cls)
    lines = source.splitlines()
    headings = {i: match[1] for i, line in enumerate(lines, 1) if (match := re.fullmatch(r" {4}# (.+)", line))}
    body = ast.parse(source).body[0].body
    found = {}
    for node, below in pairwise([*body, None]):
        if isinstance(node, ast.AnnAssign):
            group = next((headings[i] for i in range(node.lineno, 0, -1) if i in headings), "")
            _, _, words = lines[node.end_lineno - 1][node.end_col_offset :].partition("# ")
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                words = inspect.cleandoc(below.value.value)
            found[node.target.id] = (group, words)
    return found


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


def _shown(field: Field, value: object) -> object:
    """A recipe's value as its field shows it."""
    if value is None:
        return ""
    if field.kind == "switch" or isinstance(value, str):
        return value
    return yaml.safe_dump(value, default_flow_style=True).strip() if isinstance(value, dict) else json.dumps(value)


def _depth(text: str) -> int:
    """How deep a YAML text is nested by its brackets, or by dashes one behind another."""
    brackets = max(accumulate((sign in "[{") - (sign in "]}") for sign in text), default=0)
    return max(brackets, *(len(run) // 2 for run in re.findall(r"(?:[-?:] )+", text)), 0)


def _text(value: object) -> str:
    """What a field holds as comparable text: nothing, an empty box and blanks are alike."""
    return "" if value is None else str(value).strip()
