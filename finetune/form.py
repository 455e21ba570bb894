"""A recipe of a fine-tuning as the fields of a form, and back to a recipe.

May import `training` and `data`. What a field is comes from the dataclasses of the three parts (`training.fields`).
"""

from functools import lru_cache

from data.console import nearest, one_line
from finetune.recipe import PARTS
from training.fields import Field, parse, recipe_fields, shown, typed_text
from training.recipe import EXCLUSIVE, check_field

# Of what is inherited from any training, nothing in a fine-tuning reads these: texts have places to begin at, adapters
# have no embeddings, and Muon is not among the optimizers.
IDLE = {"train.start", "train.embedding_learning_rate", "train.momentum"}


@lru_cache(maxsize=1)
def form_fields() -> dict[str, Field]:
    """Every field by its dotted name, in the order of the source; those that are no choice at all are left out."""
    made = [field for section, cls in PARTS.items() for field in recipe_fields(section, cls)]
    return {field.key: field for field in made if len(field.choices) != 1 and field.key not in IDLE}


def values_of(parts: dict) -> dict[str, object]:
    """What the form's fields show for a recipe's parts."""
    given = {f"{section}.{name}": value for section, values in parts.items() for name, value in (values or {}).items()}
    return {key: shown(field, given.get(key, field.default)) for key, field in form_fields().items()}


def values_to_parts(values: dict[str, object]) -> dict[str, dict]:
    """A recipe's parts from what the form's fields hold: only what differs from the defaults.

    Raises ValueError, one sentence, for what cannot be read; what cannot be is `build_recipe`'s to say.
    """
    usual, parts = values_of({}), {section: {} for section in PARTS}
    for key, field in form_fields().items():
        if key in values and typed_text(values[key]) != typed_text(usual[key]):
            parts[field.section][field.name] = parse(field, values[key])
    for (section, name), (_, other) in EXCLUSIVE:  # emptied in favour of the other: not worth a line
        for one, instead in ((name, other), (other, name)):
            if parts[section].get(one, "") is None and parts[section].get(instead) is not None:
                del parts[section][one]
    return {section: given for section, given in parts.items() if given}


def check(key: str, value: object) -> str:
    """What is wrong with a field's value, in one sentence; empty where nothing is, whatever the other fields hold."""
    try:
        if key not in form_fields():
            raise ValueError(f"unknown recipe key {key}; {nearest(key, form_fields())}")
        field = form_fields()[key]
        if typed_text(value) == typed_text(values_of({})[key]):
            return ""  # the base is to be named still, which the whole recipe says better
        check_field(field.section, field.name, parse(field, value), PARTS)
    except ValueError as error:
        return one_line(error)
    return ""
