"""Head scores: of patterns built by hand, of a two-layer induction circuit set by hand, and of every kind of model."""

import numpy as np
import pytest
import torch

from interpret.ablation import Target, edits
from interpret.heads import KINDS, head_scores, repeated, scores_of
from interpret.record import record
from modeling import LabGPTConfig, LabGPTForCausalLM
from tests.interpret.conftest import build

pytestmark = pytest.mark.usefixtures("one_thread")
HALF = 12


def looking(there) -> torch.Tensor:
    """Weights (1, 1, T, T) of a head that looks at one token; where that is before the beginning, at the first."""
    T = 2 * HALF
    pattern = torch.zeros(1, 1, T, T)
    for t in range(T):
        pattern[0, 0, t, max(there(t), 0)] = 1
    return pattern


@pytest.mark.parametrize(
    ("kind", "there"),
    [
        ("previous", lambda t: t - 1),
        ("induction", lambda t: t - HALF + 1),
        ("duplicate", lambda t: t - HALF),
        ("first", lambda t: 0),
    ],
)
def test_a_head_built_by_hand_scores_one_in_its_kind_alone(kind, there):
    scores = scores_of(looking(there), HALF)
    assert scores[kind] == 1
    assert all(scores[other] <= 1 / HALF + 1e-12 for other in KINDS if other != kind)  # the first query may coincide


def test_even_attention_scores_what_chance_does():
    T = 2 * HALF
    even = (torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None])[None, None]
    expected = np.mean([1 / (t + 1) for t in range(HALF, T)])
    for kind in KINDS:
        assert scores_of(even, HALF)[kind] == pytest.approx(expected)


def circuit(vocabulary: int = 40, length: int = 24) -> LabGPTForCausalLM:
    """A two-layer induction circuit (arXiv:2209.11895), its weights set by hand; head 0 of each layer does the work.

    The stream has three parts: which token it is (V), which token stood before (V), and where it stands (T). Layer 0
    looks one position back and copies that token's name into the second part. Layer 1 looks for a token whose
    predecessor is this one, and copies its name into the first part, from which the head reads the next token.
    """
    V, T = vocabulary, 2 * length
    C = 2 * V + T
    config = LabGPTConfig(
        vocab_size=V, hidden_size=C, num_hidden_layers=2, num_attention_heads=2, head_dim=C, num_key_value_heads=2,
        intermediate_size=4, max_position_embeddings=T, position_embedding="learned", norm="layernorm", qk_norm=False,
        tie_word_embeddings=False,
    )  # fmt: skip
    model = LabGPTForCausalLM(config).eval()
    token, before, place = slice(0, V), slice(V, 2 * V), slice(2 * V, C)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.zero_()
        model.model.embed_tokens.weight[:, token] = torch.eye(V)
        table = next(w for name, w in model.named_parameters() if w.shape == (T, C) and "embed_tokens" not in name)
        table[:, place] = torch.eye(T)
        first, second = (block.self_attn for block in model.model.layers)
        strong = 400.0
        q, k, v = (proj.weight[:C] for proj in (first.q_proj, first.k_proj, first.v_proj))
        q[place, place], k[place, place] = strong * torch.eye(T), torch.eye(T).roll(1, 0)  # key p meets query p + 1
        v[token, token] = torch.eye(V)
        first.o_proj.weight[before, token] = torch.eye(V)
        q, k, v = (proj.weight[:C] for proj in (second.q_proj, second.k_proj, second.v_proj))
        q[token, token], k[token, before] = strong * torch.eye(V), torch.eye(V)
        v[token, token] = torch.eye(V)
        second.o_proj.weight[token, token] = 4 * torch.eye(V)
        model.lm_head.weight[:, token] = 4 * torch.eye(V)
    return model


def test_a_circuit_built_by_hand_is_found_and_removing_it_undoes_the_copying():
    model = circuit()
    found = head_scores(model, length=20)
    assert found.called(0, 0) == "previous token" and found.scores["previous"][0, 0] > 0.95
    assert (
        found.called(1, 0) == "induction" and found.scores["induction"][1, 0] > 0.7
    )  # tokens that are in x twice share it
    assert found.called(0, 1) == found.called(1, 1) == ""  # all zeros: even attention
    assert found.in_context > 1
    alone = head_scores(model, length=20, edits=edits(model, [Target(1, "head", 0)], "zero"))
    assert abs(alone.in_context) < 0.05 * found.in_context
    blind = head_scores(model, length=20, edits=edits(model, [Target(0, "head", 0)], "zero"))
    assert blind.scores["induction"][1, 0] < 0.1 and blind.loss_second > 2 * found.loss_second
    idle = head_scores(model, length=20, edits=edits(model, [Target(1, "head", 1)], "zero"))
    assert idle.loss_second == pytest.approx(found.loss_second, abs=1e-3)


def test_losses_and_scores_are_those_of_the_model(any_model):
    found = head_scores(any_model, bos=2, length=10, rows=3, seed=5)
    ids = repeated(any_model, 2, 10, 3, 5)
    assert ids.shape == (3, 21) and (ids[:, 0] == 2).all() and torch.equal(ids[:, 1:11], ids[:, 11:])
    with torch.no_grad():
        log_probs = any_model(ids, use_cache=False).logits.double().log_softmax(-1)
    nats = [[-log_probs[b, t - 1, ids[b, t]].item() for t in range(1, 21)] for b in range(3)]
    assert found.loss_first == pytest.approx(np.mean([row[1:11] for row in nats]), abs=1e-3)
    assert found.loss_second == pytest.approx(np.mean([row[11:] for row in nats]), abs=1e-3)
    pattern = record(any_model, ids, ["blocks.1.pattern"])["blocks.1.pattern"].double()
    naive = np.mean([[float(pattern[b, 3, t, t - 9]) for t in range(11, 21)] for b in range(3)])
    assert found.scores["induction"][1, 3] == pytest.approx(naive, abs=1e-6)


def test_a_short_model_is_asked_for_less_and_linear_attention_refused():
    assert head_scores(build("gpt2", n_positions=32)).layers == [0, 1]
    with pytest.raises(ValueError, match="no softmax attention"):
        head_scores(build("labgpt", attention="linear"))


def test_tokens_of_a_half_differ_and_come_from_where_they_should():
    model = build("gpt2")
    ids = repeated(model, None, 20, 4, 1, among=[*range(50, 70), 60])
    assert ids.shape == (4, 40) and torch.equal(ids[:, :20], ids[:, 20:])
    assert all(sorted(row[:20].tolist()) == list(range(50, 70)) for row in ids)  # twenty of twenty: each once
    assert repeated(model, None, 30, 4, 1, among=range(50, 70)).shape == (4, 40)  # no more than there are
    few = repeated(model, None, 20, 4, 1, among=[5, 9])
    assert set(few.flatten().tolist()) == {5, 9} and few.shape == (4, 16)
    assert torch.equal(few, repeated(model, None, 20, 4, 1, among=[9, 5]))
    with pytest.raises(ValueError, match="two or more"):
        repeated(model, None, 20, 4, 1, among=[5, 5])
