"""The fields of a fine-tuning's form: read from the three dataclasses, those that one inherits too; and back."""

import dataclasses
import json

import pytest

from finetune.form import IDLE, check, form_fields, values_of, values_to_parts
from finetune.recipe import PARTS, build_recipe
from training.recipe import read_recipe

BASE = {"model": {"base": "Qwen/Qwen2.5-0.5B-Instruct"}}


def test_every_field_that_leaves_a_choice_is_there_with_its_words():
    expected = {f"{part}.{field.name}" for part, cls in PARTS.items() for field in dataclasses.fields(cls)}
    assert expected - set(form_fields()) == {"train.compile"} | IDLE  # it can be one thing only; they do nothing
    assert all(field.help for field in form_fields().values())


def test_what_a_field_is_comes_from_the_declaration_nearest_to_it():
    rate, beta1, accumulate = (form_fields()[f"train.{name}"] for name in ("learning_rate", "beta1", "accumulate"))
    assert (rate.default, rate.kind, rate.above, rate.help) == (2e-4, "number", 0, "Peak rate of the adapter.")
    assert (rate.group, beta1.group) == ("optimizer", "optimizer")  # the heading that it has where it is inherited from
    assert accumulate.help.startswith("Micro-batches")
    assert form_fields()["train.optimizer"].choices == ("adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit")
    assert form_fields()["model.quantization"].choices == ("nf4", "int8", "none")
    assert form_fields()["model.dora"].kind == "switch" and form_fields()["model.targets"].kind == "text"


def test_untouched_is_no_recipe_and_only_what_differs_is_in_one():
    assert values_to_parts(values_of({})) == {}
    values = values_of({}) | {
        "model.base": "tiny", "model.rank": "8", "model.targets": "q_proj, v_proj", "model.dora": True,
        "train.steps": "5", "train.epochs": "", "train.learning_rate": "1e-3",
    }  # fmt: skip
    parts = values_to_parts(values)
    assert parts == {
        "model": {"base": "tiny", "rank": 8, "targets": "q_proj, v_proj", "dora": True},
        "train": {"steps": 5, "learning_rate": 0.001},
    }
    assert build_recipe(parts).model.targets == ("q_proj", "v_proj")


def test_a_resolved_recipe_comes_back_from_the_form(tmp_path):
    parts = BASE | {"data": {"packing": True, "documents": 20}, "train": {"steps": 7, "trackers": ["tensorboard"]}}
    parts["model"] = parts["model"] | {"targets": ["q_proj", "up_proj"], "quantization": "int8"}
    path = tmp_path / "recipe.yaml"
    path.write_text(build_recipe(parts).to_yaml())
    assert build_recipe(values_to_parts(values_of(read_recipe(path)))) == build_recipe(parts)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("model.rank", "0", ["model.rank", "0", "greater than or equal to 1"]),
        ("model.rank", "many", ["model.rank", "'many'", "integer"]),
        ("model.quantization", "int4", ["model.quantization", "'nf4', 'int8' or 'none'"]),
        ("model.dropout", "1", ["model.dropout", "less than 1"]),
        ("model.targets", " ", ["model.targets is empty"]),
        ("train.optimizer", "muon", ["train.optimizer", "'adamw'"]),
        ("train.context", "", ["train.context is empty", "512"]),
        ("data.replay_share", "2", ["data.replay_share"]),
        ("model.rnak", "1", ["model.rnak", "'model.rank'"]),
    ],
)
def test_each_mistake_is_one_sentence_that_names_the_field(key, value, words):
    said = check(key, value)
    assert said and "\n" not in said
    for word in words:
        assert word in said, said


def test_the_default_values_are_all_right_and_can_be_sent():
    values = values_of({})
    assert json.loads(json.dumps(values)) == values
    assert [said for key, value in values.items() if (said := check(key, value))] == []
