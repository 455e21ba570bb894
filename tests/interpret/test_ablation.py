"""Ablation: removing a part is removing its weights, a text's own activations change nothing, and mistakes are told."""

import copy
import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from interpret import ablation
from interpret.ablate import changes, main
from interpret.ablation import Target, edits, effect, parse_target, sweep
from interpret.prompt import read_prompt
from interpret.record import record
from interpret.structure import structure
from tests.interpret.conftest import build

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "the cat sat on the mat"
OTHER = "and the dog sat on the cat. the mat"


def plain(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids]), use_cache=False).logits[0]


@pytest.mark.parametrize("name", ["L1H2", "L0.attention", "L1.mlp"])
def test_removing_a_part_is_having_no_weights_behind_it(any_model, tokenizer, name):
    target, without = parse_target(name), copy.deepcopy(any_model)
    layer = structure(without).layers[target.layer]
    end = layer.down if target.part == "mlp" else layer.output
    with torch.no_grad():
        inputs_first = hasattr(end, "nf")  # GPT-2's matrices stand the other way
        weight = end.weight if inputs_first else end.weight.T  # (inputs, outputs)
        if target.part == "head":
            width = weight.shape[0] // 4
            weight[target.head * width : (target.head + 1) * width] = 0
        else:
            end.weight.zero_()
            if end.bias is not None:
                end.bias.zero_()
    found = effect(any_model, tokenizer, PROMPT, [target])
    ids = read_prompt(any_model, tokenizer, PROMPT).ids
    for losses, model in ((found.losses_before, any_model), (found.losses_after, without)):
        expected = F.cross_entropy(plain(model, ids)[:-1], torch.tensor(ids[1:]), reduction="none")
        torch.testing.assert_close(losses, expected, atol=1e-4, rtol=1e-4)
    p, q = (plain(model, ids)[-1].double().softmax(-1) for model in (any_model, without))
    assert math.isclose(found.kl, float((p * (p / q).log()).sum()), abs_tol=1e-4)
    assert math.isclose(found.likeliest_after[0][1], float(q.max()), abs_tol=1e-5)
    assert found.loss_after != found.loss_before


def test_a_layer_removed_is_a_layer_less():
    model = build("llama", num_hidden_layers=3)
    ids = torch.tensor([[5, 9, 31, 7, 64]])
    removed = record(model, ids, ["logits"], edits=edits(model, [Target(1, "layer")], "zero"))["logits"]
    fewer = copy.deepcopy(model)
    del fewer.model.layers[1]
    with torch.no_grad():
        torch.testing.assert_close(removed, fewer(ids, use_cache=False).logits, atol=1e-5, rtol=1e-5)


def test_the_mean_and_another_texts_activations_are_those(tokenizer):
    model = build("qwen3")
    here, there = (read_prompt(model, tokenizer, text) for text in (PROMPT, OTHER))
    z = record(model, there.ids, ["blocks.1.z"])["blocks.1.z"]
    T = len(here.ids)
    for how, expected in (("mean", z[:, :, 2].mean(1, keepdim=True).expand(1, T, -1)), ("resample", z[:, :T, 2])):
        changed = record(model, here.ids, ["blocks.1.z"], edits=edits(model, [Target(1, "head", 2)], how, there))
        torch.testing.assert_close(changed["blocks.1.z"][:, :, 2], expected)
        untouched = record(model, here.ids, ["blocks.1.z"])["blocks.1.z"]
        torch.testing.assert_close(changed["blocks.1.z"][:, :, :2], untouched[:, :, :2])


def test_a_texts_own_activations_change_nothing(any_model, tokenizer):
    found = effect(any_model, tokenizer, PROMPT, [Target(0, "layer"), Target(1, "head", 0)], "resample", PROMPT)
    torch.testing.assert_close(found.losses_after, found.losses_before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("how", ["zero", "mean", "resample"])
def test_a_sweep_removes_every_part_by_itself(tokenizer, how, monkeypatch):
    model = build("labgpt-grouped")
    monkeypatch.setattr(ablation, "LOGITS", 3 * 280 * len(read_prompt(model, tokenizer, PROMPT).ids))  # heads by three
    found = sweep(model, tokenizer, PROMPT, how, OTHER)
    told = changes(found)
    assert len(told) == 2 * (4 + 2)
    for name, change in told.items():
        alone = effect(model, tokenizer, PROMPT, [parse_target(name)], how, OTHER)
        assert math.isclose(change, alone.loss_after - alone.loss_before, abs_tol=1e-4), name


def test_every_kind_of_model_can_be_swept(any_model, tokenizer):
    found = sweep(any_model, tokenizer, PROMPT)
    alone = effect(any_model, tokenizer, PROMPT, [Target(1, "head", 3)])
    assert math.isclose(found.heads[1, 3], alone.loss_after, abs_tol=1e-4)
    assert found.halves.shape == (2, 2)
    assert math.isclose(found.loss, alone.loss_before, abs_tol=1e-4)


def test_the_command_writes_what_it_shows(tokenizer, tmp_path, capsys):
    build("labgpt").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    words = [str(tmp_path / "model"), "--prompt", PROMPT, "--workspace", str(tmp_path)]
    assert main([*words, "--all-heads", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with np.load(told["numbers"]) as numbers:
        assert math.isclose(told["loss_changes"]["L1H2"], numbers["heads"][1, 2] - numbers["loss"], abs_tol=1e-9)
        assert math.isclose(told["loss_changes"]["L0.mlp"], numbers["halves"][0, 1] - numbers["loss"], abs_tol=1e-9)
    assert main([*words, "--remove", "L1H2", "L0.mlp"]) == 0
    assert "without L1H2, L0.mlp: " in capsys.readouterr().out
    with pytest.raises(ValueError, match="--remove --all-heads is required"):
        main(words)


@pytest.mark.parametrize("name", ["L3H2", "L0.attention", "L12.mlp", "L7"])
def test_names_read_back(name):
    assert str(parse_target(name)) == name


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda model, tokenizer: parse_target("head 3"), "'head 3' names no part of a model: write L3H2"),
        (lambda model, tokenizer: effect(model, tokenizer, PROMPT, [Target(2, "mlp")]), "no layer 2: .* 0 to 1"),
        (lambda model, tokenizer: effect(model, tokenizer, PROMPT, [Target(0, "head", 4)]), "no head 4: .* 0 to 3"),
        (
            lambda model, tokenizer: effect(model, tokenizer, PROMPT, [Target(0, "mlp")], "mean"),
            "give a reference text",
        ),
        (lambda model, tokenizer: effect(model, tokenizer, PROMPT, [Target(0, "mlp")], "noise"), "not by 'noise'"),
        (lambda model, tokenizer: sweep(model, tokenizer, PROMPT, "resample"), "give a reference text"),
    ],
)
def test_mistakes_are_sentences(tokenizer, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(build("llama"), tokenizer)
