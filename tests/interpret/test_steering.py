"""Steering: the direction by the library's hidden states, the text by a loop that reads everything anew each time."""

import json

import numpy as np
import pytest
import torch

from interpret.prompt import read_prompt
from interpret.sampling import Sampling
from interpret.steering import STEPS, Direction, difference_of_means, read_direction, steer
from interpret.steering_cli import main, texts
from interpret.structure import structure
from tests.interpret.conftest import build

pytestmark = pytest.mark.usefixtures("one_thread")
TOWARDS, AWAY = ["the cat sat on the mat", "and the cat"], ["the dog sat on the cat.", "the dog sat", "a dog"]
PROMPT = "the cat sat"
GREEDY = Sampling(greedy=True)


def by_hand(model, ids, module, vector, count):
    """Greedy tokens with `vector` added to what a module returns, every token read anew at each step, without cache."""

    def add(_module, _inputs, output):
        return (output[0] + vector, *output[1:]) if isinstance(output, tuple) else output + vector

    handle, ids = module.register_forward_hook(add), list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    handle.remove()
    return ids[-count:]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_direction_is_the_difference_of_the_librarys_means(name, tokenizer):
    model = build(name)

    def mean(texts):
        found = []
        for text in texts:
            ids = torch.tensor([read_prompt(model, tokenizer, text).ids])
            with torch.no_grad():
                states = model(ids, output_hidden_states=True).hidden_states[1][0]  # leaves the first layer
            found.append(states[1:].mean(0))
        return sum(found) / len(found)

    direction = difference_of_means(model, tokenizer, TOWARDS, AWAY, "resid_post", 0)
    torch.testing.assert_close(direction.vector, mean(TOWARDS) - mean(AWAY), atol=1e-5, rtol=1e-4)
    assert difference_of_means(model, tokenizer, TOWARDS, AWAY).layer == 1  # the middle of two


def test_a_steered_text_is_what_a_plain_loop_writes(any_model, tokenizer):
    ids = read_prompt(any_model, tokenizer, PROMPT).ids
    layer = structure(any_model).layers[0]
    for site, module in (("resid_post", layer.module), ("attn_out", layer.attention)):
        direction = difference_of_means(any_model, tokenizer, TOWARDS, AWAY, site, 0)
        found = steer(any_model, tokenizer, PROMPT, direction, 1.5, GREEDY, max_new_tokens=6)
        assert [token.id for token in found.steered] == by_hand(any_model, ids, module, 1.5 * direction.vector, 6)
        assert [token.id for token in found.plain] == by_hand(any_model, ids, module, 0.0, 6)  # and nothing stayed
    assert found.coefficients[STEPS // 2] == 0
    sure = found.plain[0]
    if sure.token in found.tokens:
        told = found.probabilities[STEPS // 2, found.tokens.index(sure.token)]
        np.testing.assert_allclose(told, sure.probability, atol=1e-4)
    np.testing.assert_allclose(found.size, 1.5 * float(direction.vector.norm()), rtol=1e-5)


def test_a_tokens_own_direction_makes_it_likelier(tokenizer):
    """What the head reads as one token, added behind the last layer."""
    model = build("llama")
    wanted = tokenizer.convert_tokens_to_ids("Ġcat")
    with torch.no_grad():
        row = model.lm_head.weight[wanted] / model.model.norm.weight
    found = steer(model, tokenizer, PROMPT, Direction("resid_post", 1, row, "planted"), 100.0, GREEDY, 4)
    assert [token.id for token in found.steered] == [wanted] * 4
    likely = found.probabilities[:, found.tokens.index(" cat")]
    assert (np.diff(likely) >= -1e-6).all()
    assert likely[0] < 0.01 < 0.9 < likely[-1]


def test_a_direction_from_a_file(tokenizer, tmp_path):
    model, path = build("qwen2"), tmp_path / "probe.npz"
    vectors = np.random.default_rng(0).normal(size=(2, 32))
    np.savez(path, direction=vectors)
    np.testing.assert_allclose(read_direction(model, path, layer=1).vector, vectors[1], rtol=1e-6)
    np.savez(path, direction=vectors[0])
    np.testing.assert_allclose(read_direction(model, path, layer=1).vector, vectors[0], rtol=1e-6)
    np.savez(path, direction=vectors[0, :5])
    with pytest.raises(ValueError, match=r"shape \(5,\): this model's are \(32,\), or \(2, 32\)"):
        read_direction(model, path)
    np.savez(path, direction=np.zeros(32))
    with pytest.raises(ValueError, match="is zero"):
        read_direction(model, path)
    for wrong in ("else", b"text"):
        path.write_bytes(wrong) if isinstance(wrong, bytes) else np.savez(path, other=vectors)
        with pytest.raises(ValueError, match="holds no direction"):
            read_direction(model, path)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda model, tokenizer: difference_of_means(model, tokenizer, TOWARDS, []), "at least one text"),
        (lambda model, tokenizer: difference_of_means(model, tokenizer, TOWARDS, AWAY, "pattern"), "'pattern' is no"),
        (lambda model, tokenizer: difference_of_means(model, tokenizer, TOWARDS, AWAY, layer=2), "no layer 2: .* 0 to"),
        (lambda model, tokenizer: difference_of_means(model, tokenizer, TOWARDS, TOWARDS), "no direction between"),
        (
            lambda model, tokenizer: steer(model, tokenizer, PROMPT, Direction("mlp_out", 0, torch.ones(32), ""), 0.0),
            "other than 0",
        ),
    ],
)
def test_mistakes_are_sentences(tokenizer, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call(build("llama"), tokenizer)


def test_the_command_writes_what_it_shows(tokenizer, tmp_path, capsys):
    build("labgpt").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "away.txt").write_text("\n".join([*AWAY, "", " "]))
    assert texts([f"@{tmp_path / 'away.txt'}", "one more"]) == [*AWAY, "one more"]
    words = [str(tmp_path / "model"), "--prompt", PROMPT, "--towards", *TOWARDS, "--away", f"@{tmp_path / 'away.txt'}"]
    words += ["--max-new-tokens", "4", "--workspace", str(tmp_path)]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with np.load(told["numbers"]) as numbers:
        assert str(numbers["steered"]) == told["steered"].rstrip("\0")  # which numpy's texts end with
        assert numbers["probabilities"].shape == (STEPS, len(told["next_token"]))
    again = ["--direction", told["numbers"], "--prompt", PROMPT, "--max-new-tokens", "4", "--workspace", str(tmp_path)]
    assert main([str(tmp_path / "model"), *again]) == 0  # what one command found steers in the next
    assert told["steered"].strip() in capsys.readouterr().out
    with pytest.raises(ValueError, match="--towards and --away, or --direction"):
        main([str(tmp_path / "model"), *again, "--towards", "a", "--away", "b"])
