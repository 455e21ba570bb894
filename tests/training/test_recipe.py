"""Recipes: precedence, flags, files, and the one line that answers each mistake."""

import json

import pytest
import yaml

from training.architecture import build_config, build_model
from training.recipe import SHIPPED, build_recipe, find_recipe, merge, parse_flags, read_recipe

SPECIAL = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}


def build(*flags: str):
    return build_recipe(parse_flags(list(flags)))


def test_defaults_recipe_flags_in_this_order(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  learning_rate: 3e-4\n  batch_size: 8\n")
    recipe = build_recipe(merge(read_recipe(path), parse_flags(["--train.batch_size", "16"])))
    assert recipe.train.learning_rate == 3e-4  # YAML 1.1 alone would read a string
    assert recipe.train.batch_size == 16
    assert recipe.train.max_grad_norm == 1.0


def test_json_recipes_are_read_too(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"train": {"steps": 7}}))
    assert build_recipe(merge(read_recipe(path))).train.steps == 7


def test_flags_with_equals_and_nested_fields():
    parts = parse_flags(["--model.rope_parameters.rope_theta=5e5", "--train.compile", "false", "--model.preset=tiny"])
    assert parts == {
        "model": {"rope_parameters": {"rope_theta": 5e5}, "preset": "tiny"},
        "train": {"compile": False},
    }


def test_the_later_of_two_that_exclude_each_other_wins():
    parts = merge({"train": {"steps": 5}, "model": {"preset": "tiny"}}, parse_flags(["--train.epochs", "2"]))
    assert parts["train"] == {"epochs": 2}
    assert parts["model"] == {"preset": "tiny"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--train.lerning_rate", "1"], ["train.lerning_rate", "'learning_rate'"]),
        (["--train.learning_rate", "fast"], ["train.learning_rate", "'fast'", "number"]),
        (["--train.steps", "0"], ["train.steps", "0", "greater than or equal to 1"]),
        (["--train.steps", "2", "--train.epochs", "1"], ["exclude each other"]),
        (["--train.optimizer", "sgd"], ["train.optimizer", "'adamw' or 'muon'"]),
        (["--train.batch_size", "10", "--train.accumulate", "4"], ["batch_size 10", "accumulate 4"]),
        (["--trian.steps", "2"], ["'trian'", "'train'"]),
        (["--train.steps"], ["--train.steps", "needs a value"]),
        (["steps", "5"], ["'steps'", "--help"]),
        (["--data.corpsu", "x"], ["data.corpsu", "'corpus'"]),
    ],
)
def test_mistakes_are_one_sentence(flags, words):
    with pytest.raises(ValueError) as caught:
        build(*flags)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_an_unknown_recipe_names_the_nearest(workspace):
    with pytest.raises(ValueError, match="did you mean 'shakespeare'"):
        find_recipe("shakespear", workspace)


def test_every_shipped_recipe_builds_its_model():
    paths = sorted(SHIPPED.glob("*.yaml"))
    assert paths
    for path in paths:
        recipe = build_recipe(merge(read_recipe(path)))
        config = build_config(recipe.model, 300, recipe.train.context, SPECIAL)
        assert config.vocab_size == 300, path


def test_the_resolved_recipe_gives_itself_again():
    recipe = build("--train.steps", "3", "--model.preset", "tiny", "--train.learning_rate", "1e-4")
    again = build_recipe(merge({k: v for k, v in yaml.safe_load(recipe.to_yaml()).items() if k != "schema"}))
    assert again == recipe


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"num_hiden_layers": 2}, ["model.num_hiden_layers", "'num_hidden_layers'"]),
        ({"preset": "tinny"}, ["'tinny'", "'tiny'"]),
        ({"model_type": "qwen33"}, ["'qwen33'", "qwen3"]),
        ({"model_type": "qwen3", "hiden_size": 64}, ["model.hiden_size", "qwen3", "'hidden_size'"]),
        ({"hidden_size": 100, "num_attention_heads": 3}, ["num_attention_heads=3", "hidden_size=100"]),
        ({"vocab_size": 10}, ["model.vocab_size 10", "300"]),
        ({"max_position_embeddings": 16}, ["train.context 64", "16"]),
        ({"hidden_size": "wide"}, ["hidden_size", "int"]),
        ({"norm": "batchnorm"}, ["norm='batchnorm'", "'rmsnorm'"]),
    ],
)
def test_impossible_models_are_one_sentence(model, words):
    with pytest.raises(ValueError) as caught:
        build_config(model, 300, 64, SPECIAL)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("model_type", ["llama", "qwen3", "gpt2"])
def test_other_architectures_from_nothing(model_type):
    width = {"gpt2": {"n_embd": 16, "n_layer": 1, "n_head": 2}}.get(
        model_type,
        {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
         "intermediate_size": 32},
    )  # fmt: skip
    config = build_config({"model_type": model_type, **width}, 300, 32, SPECIAL)
    assert (config.vocab_size, config.max_position_embeddings, config.eos_token_id) == (300, 32, 1)
    assert build_model(config).num_parameters() > 0


def test_rates_follow_the_optimizer():
    assert build().train.learning_rate == 0.02
    assert build("--train.optimizer", "adamw").train.learning_rate == 1e-3
    assert build("--train.optimizer", "adamw", "--train.learning_rate", "0.5").train.learning_rate == 0.5
