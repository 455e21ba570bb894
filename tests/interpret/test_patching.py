"""Patching: a run with itself changes nothing, with the other run reproduces it; places by hooks written by hand."""

import json

import numpy as np
import pytest
import torch

from interpret import ablation
from interpret.patching import PLACES, next_token, patched, patching
from interpret.patching_cli import main
from interpret.structure import structure
from tests.interpret.conftest import build

pytestmark = pytest.mark.usefixtures("one_thread")
CLEAN, CORRUPTED = "the cat sat on the mat", "the dog sat on the mat"  # they differ in one word, here in one token
PAIR = (262, 97)
IDS = [5, 9, 200, 31, 7, 64]
OTHER = [5, 9, 17, 31, 7, 64]  # another token in the third place
WHERE = 2


def answers_differ_by(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1].double()
    return float(logits[PAIR[0]] - logits[PAIR[1]])


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=2e-3, rtol=1e-3)


def test_a_run_patched_with_itself_is_itself(any_model):
    for site in PLACES:
        close(patched(any_model, IDS, IDS, site, *PAIR), answers_differ_by(any_model, IDS))


def test_the_other_runs_activations_reproduce_it(any_model):
    """The one token that differs, patched at the door; and the last one, patched at the end: each is the clean run."""
    clean, corrupted = answers_differ_by(any_model, IDS), answers_differ_by(any_model, OTHER)
    entering = patched(any_model, IDS, OTHER, "resid_pre", *PAIR)[0]
    expected = [clean if place == WHERE else corrupted for place in range(len(IDS))]
    close(entering, expected)
    leaving = patched(any_model, IDS, OTHER, "resid_post", *PAIR)[-1]
    close(leaving, [*[corrupted] * (len(IDS) - 1), clean])


def test_a_patch_is_what_hooks_written_by_hand_do(any_model, monkeypatch):
    layer = structure(any_model).layers[0]
    seen = {}
    hooks = [
        layer.mlp.register_forward_hook(lambda m, i, output: seen.update(mlp=output.clone())),
        layer.output.register_forward_pre_hook(lambda m, inputs: seen.update(z=inputs[0].clone())),
    ]
    answers_differ_by(any_model, IDS)
    for hook in hooks:
        hook.remove()

    def fed(module, inputs, output):
        output[:, 4] = seen["mlp"][:, 4]

    def gathered(module, inputs):
        D = inputs[0].shape[-1] // 4
        inputs[0][..., 3 * D :] = seen["z"][..., 3 * D :]

    expected = []
    for register, hook in (
        (layer.mlp.register_forward_hook, fed),
        (layer.output.register_forward_pre_hook, gathered),
    ):
        handle = register(hook)
        expected.append(answers_differ_by(any_model, OTHER))
        handle.remove()
    for rows in (ablation.LOGITS, 1):  # all places in one batch, and each by itself
        monkeypatch.setattr(ablation, "LOGITS", rows)
        close(patched(any_model, IDS, OTHER, "mlp_out", *PAIR)[0, 4], expected[0])
        close(patched(any_model, IDS, OTHER, "z", *PAIR)[0, 3], expected[1])


def test_shares_go_from_the_corrupted_run_to_the_clean_one(tokenizer):
    model = build("qwen3")
    found = patching(model, tokenizer, CLEAN, CORRUPTED, " and", "the", ["resid_pre", "resid_post"])
    assert (found.answer.token, found.wrong.token) == (" and", "the")  # as they were typed
    restored = found.restored("resid_post")
    np.testing.assert_allclose(restored[-1, -1], 1, atol=1e-3)
    np.testing.assert_allclose(restored[-1, :-1], 0, atol=1e-3)
    np.testing.assert_allclose(restored[0], found.restored("resid_pre")[1], atol=1e-4)


def test_answers_are_the_models_likeliest_where_none_are_given(tokenizer):
    model = build("llama")
    ids = [tokenizer.bos_token_id, *tokenizer(CLEAN, add_special_tokens=False)["input_ids"]]
    with torch.no_grad():
        likeliest = int(model(torch.tensor([ids])).logits[0, -1].argmax())
    assert next_token(model, tokenizer, CLEAN).id == likeliest
    assert next_token(model, tokenizer, CLEAN, "and").token == " and"  # no token without its blank


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((CLEAN, "the dog sat"), r"clean prompt has 7 tokens: .*the \| .*; the corrupted prompt has 4 tokens"),
        ((CLEAN, CORRUPTED, "zebra", "the"), "'zebra' is not one token behind the prompt"),
        ((CLEAN, CORRUPTED, "the", "the"), "are the same token, 'the'"),
        ((CLEAN, CLEAN, "and", "the"), "nothing that a patch could bring back"),
        ((CLEAN, CORRUPTED, "and", "the", ["resid_pst"]), "did you mean 'resid_post'"),
        ((CLEAN * 60, CORRUPTED * 60), "clean prompt is too long.*shorten it to 256"),
    ],
)
def test_mistakes_are_sentences(tokenizer, given, sentence):
    with pytest.raises(ValueError, match=sentence):
        patching(build("llama"), tokenizer, *given)


def test_the_command_writes_what_it_shows(tokenizer, tmp_path, capsys):
    build("labgpt").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    words = [str(tmp_path / "model"), "--clean", CLEAN, "--corrupted", CORRUPTED, "--answer", "and", "--wrong", "the"]
    words += ["--workspace", str(tmp_path)]
    assert main([*words, "--sites", "attn_out", "z", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with np.load(told["numbers"]) as numbers:
        for site, shape in (("attn_out", (2, 7)), ("z", (2, 4))):
            assert numbers[f"restored_{site}"].shape == shape
            np.testing.assert_allclose(told["restored"][site], numbers[f"restored_{site}"], atol=1e-5)
        assert "interpret.patching" in str(numbers["command"])
    assert main(words) == 0
    assert "logit(' and') - logit('the')" in capsys.readouterr().out
