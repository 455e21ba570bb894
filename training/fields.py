"""A dataclass as the fields of a form: what each is called, what it may be, what it means; and what was typed, read.

May import `data`. All of it is read from the dataclass and from the words beside its fields in the source, so that a
field added there appears in the form. Values are as a person typed them: text, a choice, a switch.
"""

import ast
import inspect
import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from itertools import accumulate, pairwise

import yaml
from pydantic import TypeAdapter

from data.console import one_line
from training.recipe import parse_value

LONGEST = {"text": 1000, "yaml": 10_000}  # characters; a number needs far fewer
DEEPEST = 20  # brackets in brackets; the YAML library's time grows with the square of it
NUMBER_LONGEST = 100


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
        return [shown(self, choice) for choice in self.choices]


def recipe_fields(section: str, cls: type) -> Iterator[Field]:
    """The fields of a part of a recipe, those that its class inherits among them."""
    schemas, told = TypeAdapter(cls).json_schema()["properties"], {}
    for one in filter(is_dataclass, reversed(cls.__mro__)):
        for name, (group, words) in documented(one).items():
            inherited = told.get(name, ("", ""))
            told[name] = (group or inherited[0], words or inherited[1])
    for name in (field.name for field in fields(cls)):
        group, words = told[name]
        yield Field(section, name, group, default=schemas[name].get("default"), help=words, **shape_of(schemas[name]))


def folded(every: Iterable[Field], in_sight: Collection[str]) -> dict[tuple[str, str], list[Field]]:
    """The fields that are not in sight, by section and heading, in the order of the source."""
    found: dict[tuple[str, str], list[Field]] = {}
    for field in every:
        if field.key not in in_sight:
            found.setdefault((field.section, field.group), []).append(field)
    return found


def parse(field: Field, value: object) -> object:
    """The recipe's value from what was typed, read as in a recipe file: 1e-3 is a number, and null is None.

    Raises ValueError, one sentence, for what cannot be read at all.
    """
    text = typed_text(value)
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


def shown(field: Field, value: object) -> object:
    """A recipe's value as its field shows it."""
    if value is None:
        return ""
    if field.kind == "switch" or isinstance(value, str):
        return value
    if value and isinstance(value, list | tuple) and field.kind == "text":
        return ", ".join(map(str, value))
    return yaml.safe_dump(value, default_flow_style=True).strip() if isinstance(value, dict) else json.dumps(value)


def typed_text(value: object) -> str:
    """What a field holds as comparable text: nothing, an empty box and blanks are alike."""
    return "" if value is None else str(value).strip()


def shape_of(schema: dict) -> dict:
    """Kind, choices and bounds from a JSON schema; of several types the widest."""
    options = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    shape: dict = {"optional": len(options) < len(schema.get("anyOf", [schema]))}
    types = {option.get("type") for option in options}
    listed = [
        choice for option in options for choice in option.get("enum", [option.get("const")]) if choice is not None
    ]
    if listed:
        either = any(option.get("type") == "boolean" and "const" not in option for option in options)
        return shape | {"kind": "choice", "choices": (*listed, *((True, False) if either else ()))}
    kinds = {"number": "number", "integer": "integer", "boolean": "switch", "object": "yaml"}
    shape["kind"] = next((kind for name, kind in kinds.items() if name in types), "text")
    bounds = {"minimum": "least", "maximum": "most", "exclusiveMinimum": "above", "exclusiveMaximum": "below"}
    return shape | {ours: option[theirs] for option in options for theirs, ours in bounds.items() if theirs in option}


def documented(cls: type) -> dict[str, tuple[str, str]]:
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


def _depth(text: str) -> int:
    """How deep a YAML text is nested by its brackets, or by dashes one behind another."""
    brackets = max(accumulate((sign in "[{") - (sign in "]}") for sign in text), default=0)
    return max(brackets, *(len(run) // 2 for run in re.findall(r"(?:[-?:] )+", text)), 0)
