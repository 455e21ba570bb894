"""The form's fields: read from the dataclasses, and the way from what is typed to a recipe and back."""

import dataclasses
import json

import pytest

from data.prepare import DataRecipe
from modeling import LabGPTConfig
from modeling.attention import ATTENTIONS
from modeling.feed_forward import ACTIVATIONS
from modeling.presets import PRESETS
from training.form import FILLED_IN, check, form_fields, values_of, values_to_parts
from training.recipe import SHIPPED, TrainRecipe, build_recipe, read_recipe


def test_every_field_of_the_dataclasses_is_there_in_its_order():
    expected = [f"data.{field.name}" for field in dataclasses.fields(DataRecipe)]
    expected += ["model.preset", *(f"model.{name}" for name in LabGPTConfig.__annotations__ if name not in FILLED_IN)]
    expected += ["model.others", *(f"train.{field.name}" for field in dataclasses.fields(TrainRecipe))]
    assert list(form_fields()) == expected


def test_what_a_field_is_comes_from_its_declaration():
    fields = form_fields()
    steps, rate, beta1 = (fields[f"train.{name}"] for name in ("steps", "learning_rate", "beta1"))
    assert (steps.kind, steps.optional, steps.default, steps.least, steps.group) == (
        "integer", True, None, 1, "length and batch",
    )  # fmt: skip
    assert steps.help.startswith("Optimizer steps; 680 where")
    assert (rate.kind, rate.above, beta1.least, beta1.below) == ("number", 0, 0, 1)
    assert fields["train.decay_fraction"].most == 1
    assert fields["train.optimizer"].choices == ("adamw", "muon")
    assert fields["train.compile"].options == ["auto", "true", "false"]
    assert fields["train.deterministic"].kind == "switch"
    assert fields["data.vocab_size"].default == 1024
    assert "bpe or unigram" in fields["data.vocab_size"].help
    assert fields["model.hidden_size"].help == "width of the residual stream"
    assert fields["model.attention"].group == "kinds"
    assert fields["model.attention"].choices == tuple(ATTENTIONS)
    assert fields["model.hidden_act"].choices == tuple(ACTIVATIONS)
    assert fields["model.preset"].choices == tuple(PRESETS)
    assert all(field.help for field in fields.values() if field.section != "model")


def test_untouched_is_no_recipe_at_all():
    assert values_to_parts(values_of({})) == {}


def test_only_what_differs_is_in_the_recipe_and_numbers_are_numbers():
    values = values_of({}) | {
        "data.corpus": "verdict", "data.vocab_size": "300", "train.learning_rate": "1e-3", "train.batch_size": "32",
        "train.max_grad_norm": "", "train.deterministic": False, "train.compile": "false", "model.gated_mlp": "true",
        "model.position_embedding": "none", "model.rope_parameters": "", "model.preset": "nano",
    }  # fmt: skip
    assert values_to_parts(values) == {
        "data": {"corpus": "verdict", "vocab_size": 300},
        "model": {"preset": "nano", "position_embedding": "none", "gated_mlp": True},
        "train": {"learning_rate": 0.001, "max_grad_norm": None, "compile": False, "deterministic": False},
    }


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_recipe_comes_back_from_the_form(path):
    parts = read_recipe(path)
    before, after = build_recipe(parts), build_recipe(values_to_parts(values_of(parts)))
    assert (after.data, after.train) == (before.data, before.train)
    assert {"preset": "tiny", **after.model} == {"preset": "tiny", **before.model}


def test_a_resolved_recipe_comes_back_too_with_the_optimizers_own_rates_left_out(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(build_recipe({"train": {"optimizer": "adamw", "steps": 7}, "model": {"norm_eps": 1e-5}}).to_yaml())
    values = values_of(read_recipe(path))
    assert values["train.learning_rate"] == "" and values["model.norm_eps"] == "1e-05"
    parts = values_to_parts(values)
    assert parts == {"model": {"norm_eps": 1e-05}, "train": {"steps": 7, "optimizer": "adamw"}}
    assert build_recipe(parts).train == build_recipe(read_recipe(path)).train
    # with the other optimizer its own rate holds, not the one that was recorded
    assert build_recipe(values_to_parts(values | {"train.optimizer": "muon"})).train.learning_rate == 0.02


def test_another_architecture_takes_the_presets_place():
    parts = {"model": {"model_type": "llama", "hidden_size": 64, "rms_norm_eps": 1e-5}}
    values = values_of(parts)
    assert values["model.hidden_size"] == "64" and "model_type: llama" in values["model.others"]
    assert values_to_parts(values) == parts
    assert values_to_parts(values | {"model.preset": "nano"}) == parts


def test_a_fork_says_only_what_it_changes():
    base = values_of({"train": {"steps": 100, "learning_rate": 0.01}, "data": {"corpus": "verdict"}})
    assert values_to_parts(base, base) == {}
    assert values_to_parts(base | {"train.steps": "200"}, base) == {"train": {"steps": 200}}
    # epochs in place of the parent's steps: the emptied one is not worth a word
    assert values_to_parts(base | {"train.steps": "", "train.epochs": "2"}, base) == {"train": {"epochs": 2}}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("train.steps", "0", ["train.steps", "0", "greater than or equal to 1"]),
        ("train.steps", "abc", ["train.steps", "'abc'", "integer"]),
        ("train.steps", "2.5", ["train.steps", "integer"]),
        ("train.steps", "9" * 5000, ["train.steps", "5,000 characters"]),
        ("train.batch_size", "", ["train.batch_size is empty", "32"]),
        ("train.learning_rate", "yes", ["train.learning_rate", "'yes'", "number"]),
        ("train.learning_rate", "1e999", ["train.learning_rate", "finite"]),
        ("train.learning_rate", "[1", ["train.learning_rate", "YAML"]),
        ("train.optimizer", "sgd", ["'adamw' or 'muon'"]),
        ("train.compile", "maybe", ["train.compile", "maybe"]),
        ("data.corpus", "  ", ["data.corpus is empty", "tales"]),
        ("data.corpus", "x" * 5000, ["data.corpus", "5,000 characters"]),
        ("data.validation_fraction", "2", ["between 0 and 1"]),
        ("model.hidden_size", "wide", ["model.hidden_size", "'wide'", "integer"]),
        ("model.hidden_size", "-3", ["model.hidden_size", "-3", "above 0"]),
        ("model.hidden_act", "sili", ["'sili'", "'silu'"]),
        ("model.others", "llama", ["model.others", "model_type: llama"]),
        ("model.others", "1: 2", ["model.others", "name: value"]),
        ("model.others", "a: &x [1, 2]\nb: [*x, *x]", ["aliases"]),
        ("model.others", "[" * 10_000, ["model.others", "nested"]),
        ("model.others", "- " * 5_000, ["model.others", "nested"]),
        ("train.stesp", "1", ["train.stesp", "'train.steps'"]),
    ],
)
def test_each_mistake_is_one_sentence_that_names_the_field(name, value, words):
    said = check(*name.split("."), value)
    assert said and "\n" not in said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("train.steps", ""), ("train.steps", "1_000"), ("train.accumulate", "5"), ("train.learning_rate", "1e-3"),
        ("train.max_grad_norm", "null"), ("train.deterministic", True), ("model.hidden_size", ""),
        ("model.num_attention_heads", "3"), ("model.rope_parameters", "{rope_theta: 5e5}"), ("model.preset", ""),
        ("model.others", "model_type: llama"), ("data.text_field", "null"),
    ],
)  # fmt: skip
def test_what_may_be_alone_is_not_complained_about(name, value):
    assert check(*name.split("."), value) == ""


def test_the_default_values_are_all_right_and_can_be_sent():
    values = values_of({})
    assert json.loads(json.dumps(values)) == values
    assert [said for key, value in values.items() if (said := check(*key.split("."), value))] == []
