"""Two models side by side: against the library's own outputs, closed forms, and differences that were planted."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.distance import jensenshannon
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data.tokenizer_kinds import train_tokenizer
from interpret.compare import by_unit, compare, divergence, guesses, head_patterns, samples
from interpret.compare_alignment import Side, align
from interpret.compare_cli import main
from interpret.structure import matrices, structure
from interpret.writing import write
from modeling import LabGPTConfig
from tests.interpret.conftest import SIZE, VOCABULARY, build

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "the cat sat on the mat, and the dog"


@pytest.fixture(scope="module")
def another():
    """A tokenizer that cuts words elsewhere."""
    return train_tokenizer("bpe", ["a dog ran on the mat, and a cat saw the dog and the mat. "] * 20, 276)


def changed(model):
    """The same model, but for the first matrix of its second layer's attention."""
    other = copy.deepcopy(model)
    matrix = next(matrices(structure(other).layers[1].attention)).weight
    with torch.no_grad():
        matrix += 0.5 * torch.randn(matrix.shape, generator=torch.Generator().manual_seed(7))
    return other


def own_outputs(model, ids):
    """Logits (T, V) and attention (L, H, T, T) as the library gives them."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(input_ids=torch.tensor([ids]), output_attentions=True, use_cache=False)
    model.set_attn_implementation(before)
    return output.logits[0].double(), torch.cat(output.attentions).double().numpy()


# ── every kind of model ──


def test_a_model_against_itself_gives_zeros(any_model, tokenizer):
    found = compare((any_model, tokenizer), (any_model, tokenizer), PROMPT)
    assert found.missing == {}
    assert found.tokens.same_tokens
    assert found.heads.shape == (2, 4)
    assert found.lens.shape == (3, len(found.tokens.units))
    assert not found.heads.any()
    assert not found.lens.any()
    np.testing.assert_array_equal(found.losses[0], found.losses[1])


def test_a_difference_shows_where_it_is_and_is_what_the_library_says(any_model, tokenizer):
    other = changed(any_model)
    found = compare((any_model, tokenizer), (other, tokenizer), PROMPT)
    ids = found.tokens.first.ids
    (logits, attention), (other_logits, other_attention) = (own_outputs(model, ids) for model in (any_model, other))

    assert not found.heads[0].any()  # layer 0 is the same in both
    assert not found.lens[:2].any()
    for head in range(4):
        rows = zip(attention[1, head, 1:], other_attention[1, head, 1:], strict=True)
        expected = np.mean([jensenshannon(p, q, base=2) ** 2 for p, q in rows])
        assert expected > 1e-4 or found.heads[1, head] < 1e-4
        assert found.heads[1, head] == pytest.approx(expected, abs=1e-5)
    assert found.heads[1].max() > 1e-3

    p, q = logits.softmax(-1), other_logits.softmax(-1)
    np.testing.assert_allclose(found.lens[2], (p * (p / q).log()).sum(-1), atol=1e-4)
    for nats, own in zip(found.losses, (logits, other_logits), strict=True):
        assert np.isnan(nats[0])
        np.testing.assert_allclose(
            nats[1:], F.cross_entropy(own[:-1], torch.tensor(ids[1:]), reduction="none"), atol=1e-4
        )
    assert found.mean_losses[1] == pytest.approx(np.mean(found.losses[1, 1:]))


def test_looking_closer_at_a_head_and_a_token(tokenizer):
    model = build("labgpt-grouped")
    other = changed(model)
    first, second = (model, tokenizer), (other, tokenizer)
    tokens = align(first, second, PROMPT)
    outputs = [own_outputs(one, tokens.first.ids) for one in (model, other)]
    for shown, (_, attention) in zip(head_patterns(first, second, tokens, PROMPT, 1, 2), outputs, strict=True):
        np.testing.assert_allclose(shown, attention[1, 2], atol=1e-6)
    likeliest = guesses(second, tokens.second, 3)
    expected = outputs[1][0][3].softmax(-1).topk(5)
    np.testing.assert_allclose([p for _, p in likeliest], expected.values, atol=1e-5)
    assert likeliest[0][0] == tokenizer.decode([int(expected.indices[0])])
    assert guesses(second, tokens.second, 3, row=2) == likeliest  # behind the last layer is the model itself
    assert guesses(first, tokens.first, 3, row=1) == guesses(second, tokens.second, 3, row=1) != likeliest


def test_samples_are_drawn_with_one_seed(tokenizer):
    model, other = build("labgpt"), build("llama")
    tokens = align((model, tokenizer), (other, tokenizer), PROMPT)
    both = samples((model, tokenizer), (other, tokenizer), tokens, 6, seed=5)
    for one, text in zip((model, other), both, strict=True):
        assert [t.id for t in text] == [t.id for t in write(one, tokenizer, PROMPT, max_new_tokens=6, seed=5)]


# ── divergence ──


@pytest.mark.parametrize(
    ("p", "q", "bits"),
    [([0.2, 0.8], [0.2, 0.8], 0), ([1, 0, 0], [0, 0.5, 0.5], 1), ([1, 0], [0.5, 0.5], 0.311278124459)],
)
def test_divergence_in_closed_form(p, q, bits):
    assert divergence(np.array(p), np.array(q)) == pytest.approx(bits, abs=1e-12)
    assert divergence(np.array(q), np.array(p)) == pytest.approx(bits, abs=1e-12)


def test_divergence_of_rows_rounded_by_a_narrow_type():
    p, q = np.random.default_rng(0).dirichlet(np.ones(50), (2, 30))
    expected = [jensenshannon(a, b, base=2) ** 2 for a, b in zip(p, q, strict=True)]
    np.testing.assert_allclose(divergence(1.004 * p, 0.997 * q), expected, rtol=1e-10)


# ── tokens aligned ──


def test_units_are_what_both_read_whole(tokenizer, another):
    models = build("llama"), build("labgpt")
    text = PROMPT + " 🦊 sat"  # the fox is four bytes, a token each
    tokens = align((models[0], tokenizer), (models[1], another), text)
    assert "".join(tokens.units[1:]) == text  # the first begins every text, in both
    for side, spelled in ((tokens.first, tokenizer), (tokens.second, another)):
        assert len(side.ids) > len(tokens.units)
        bounds = [*side.starts, len(side.ids)]
        for unit, begin, end in zip(tokens.units, bounds[:-1], bounds[1:], strict=True):
            assert spelled.decode(side.ids[begin:end], skip_special_tokens=False) == unit
    assert 0.5 <= tokens.share < 1
    assert f"{tokens.share:.0%}" in tokens.note


def test_what_is_compared_of_a_unit_is_the_sum_over_its_tokens(tokenizer, another):
    models = build("llama"), build("labgpt")
    found = compare((models[0], tokenizer), (models[1], another), PROMPT)
    assert "vocabularies differ" in found.missing["lens"]
    sides, attentions, units = (found.tokens.first, found.tokens.second), [], len(found.tokens.units)
    for model, side, nats in zip(models, sides, found.losses, strict=True):
        logits, attention = own_outputs(model, side.ids)
        by_token = F.cross_entropy(logits[:-1], torch.tensor(side.ids[1:]), reduction="none")
        bounds = [*side.starts, len(side.ids)]
        expected = [float(by_token[bounds[u] - 1 : bounds[u + 1] - 1].sum()) for u in range(1, units)]
        np.testing.assert_allclose(nats[1:], expected, atol=1e-4)
        attentions.append(
            [
                [attention[..., bounds[i + 1] - 1, bounds[j] : bounds[j + 1]].sum(-1) for j in range(units)]
                for i in range(units)
            ]
        )
    one, other = (np.array(attention) for attention in attentions)  # (U, U, L, H)
    for layer, head in np.ndindex(2, 4):
        rows = zip(one[1:, :, layer, head], other[1:, :, layer, head], strict=True)
        expected = np.mean([jensenshannon(p, q, base=2) ** 2 for p, q in rows])
        assert found.heads[layer, head] == pytest.approx(expected, abs=1e-5)


def test_a_token_that_begins_a_text_in_one_model_only(tokenizer):
    model, bare = build("labgpt"), copy.deepcopy(tokenizer)
    bare.bos_token = None
    tokens = align((model, tokenizer), (model, bare), PROMPT)
    assert "".join(tokens.units) == PROMPT
    assert tokens.first.ids[1:] == tokens.second.ids
    assert tokens.first.ends.tolist() == [end + 1 for end in tokens.second.ends]
    found = compare((model, tokenizer), (model, bare), PROMPT)
    assert np.isnan(found.losses).tolist() == [[unit == 0 for unit in range(len(tokens.units))]] * 2


def test_attention_between_units_by_hand():
    weights = np.array([[1, 0, 0], [0.3, 0.7, 0], [0.2, 0.5, 0.3]])
    np.testing.assert_allclose(by_unit(weights, Side([7, 8, 9], np.array([0, 1]))), [[1, 0], [0.2, 0.8]])


def test_a_long_prompt_is_cut_where_both_have_read(tokenizer, another):
    model = build("llama")
    tokens = align((model, tokenizer), (model, another), "the cat sat on the mat. " * 20, max_tokens=24)
    assert max(len(tokens.first.ids), len(tokens.second.ids)) == 24
    assert "only the first 24 are read" in tokens.note


def test_tokens_that_have_too_little_in_common_are_refused(tokenizer):
    letters = train_tokenizer("char", [PROMPT] * 5, VOCABULARY)
    model = build("llama")
    with pytest.raises(ValueError, match=r"too differently: only \d+% of the places"):
        compare((model, tokenizer), (model, letters), PROMPT)


# ── what cannot be compared is said, and the rest is there ──


def test_models_of_other_shapes(tokenizer):
    found = compare((build("llama"), tokenizer), (build("labgpt", num_hidden_layers=3), tokenizer), PROMPT)
    assert found.missing == {
        "heads": "heads cannot be paired: the first model has 2 × 4 (layers × heads), the second 3 × 4",
        "lens": "layers cannot be paired: the first model has 2, the second 3",
    }
    assert found.heads is found.lens is None
    assert np.isfinite(found.losses[:, 1:]).all()


def test_linear_attention_has_nothing_to_compare(tokenizer):
    config = LabGPTConfig(**SIZE, attention="linear")
    model = AutoModelForCausalLM.from_config(config).eval()
    found = compare((model, tokenizer), (model, tokenizer), PROMPT)
    assert "attention is linear" in found.missing["heads"]
    assert not found.lens.any()


def test_a_vocabulary_that_grew_is_still_one_vocabulary(tokenizer):
    grown = copy.deepcopy(tokenizer)
    grown.add_tokens(["<new>"])
    model = build("labgpt")
    larger = build("labgpt", vocab_size=VOCABULARY + 8)
    found = compare((model, tokenizer), (larger, grown), PROMPT)
    assert found.missing == {}
    p, q = (own_outputs(one, found.tokens.first.ids)[0][:, :VOCABULARY].softmax(-1) for one in (model, larger))
    np.testing.assert_allclose(found.lens[-1], (p * (p / q).log()).sum(-1), atol=1e-4)


# ── the command ──


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    model = build("labgpt")
    for name, one in (("first", model), ("second", changed(model))):
        one.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return place


def test_the_command_draws_counts_and_prints(folders, tmp_path, capsys):
    out = tmp_path / "figure.png"
    asked = [str(folders / "first"), str(folders / "second"), "--prompt", PROMPT, "--new-tokens", "4", "--seed", "2"]
    assert main([*asked, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["aligned"] == 1
    assert told["missing"] == {}
    assert len(told["samples"]) == 2
    largest = max(told["weights"], key=lambda one: one["change"])
    assert largest["name"] == "blocks.1.self_attn.q_proj"
    assert sum(one["change"] > 0 for one in told["weights"]) == 1
    with np.load(out.with_suffix(".npz")) as numbers:
        np.testing.assert_allclose(numbers["divergence"], told["attention_divergence"], atol=1e-6)
        np.testing.assert_allclose(numbers["lens_kl"], told["lens_kl"], atol=1e-6)
        np.testing.assert_allclose(numbers["losses"][:, 1:], [side[1:] for side in told["losses"]], atol=1e-6)
        assert numbers["matrices"][numbers["changes"].argmax()] == largest["name"]
        assert "interpret.compare" in str(numbers["command"])
    assert out.read_bytes().startswith(b"\x89PNG")

    assert main([*asked, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "blocks.1.self_attn.q_proj" in printed
    assert "seed 2" in printed


@pytest.mark.parametrize(
    ("more", "sentence"), [(["--new-tokens", "-1"], "must be at least 0"), (["--seed", "-1"], "must be at least 0")]
)
def test_the_command_refuses_in_a_sentence(folders, more, sentence):
    with pytest.raises(ValueError, match=sentence):
        main([str(folders / "first"), str(folders / "first"), "--prompt", PROMPT, *more])
