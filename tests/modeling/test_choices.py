"""What has to hold whatever the configuration: on a set of configurations in which every pair of choices occurs."""

import itertools

import pytest
import torch

from modeling import LabGPTConfig, LabGPTForCausalLM

CLOSE = {"atol": 2e-5, "rtol": 1e-4}

# One list a table of choices; a choice is the fields it sets.
FACTORS = {
    "attention": [{"attention": "softmax"}, {"attention": "linear"}],
    "heads": [{"num_key_value_heads": n} for n in (4, 2, 1)],
    "window": [{}, {"sliding_window": 5}],
    "position": [
        {"position_embedding": "learned"},
        {"position_embedding": "sinusoidal"},
        {"position_embedding": "rope"},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}, "partial_rotary_factor": 0.5},
        {"position_embedding": "alibi"},
        {"position_embedding": "none"},
    ],
    "norm": [{"norm": "rmsnorm"}, {"norm": "layernorm"}],
    "norm_position": [{"norm_position": "pre"}, {"norm_position": "post"}],
    "act": [{"hidden_act": act} for act in ("relu", "relu2", "gelu", "gelu_new", "silu")],
    "gated": [{"gated_mlp": False}, {"gated_mlp": True}],
    "qk_norm": [{"qk_norm": True}, {"qk_norm": False}],
    "bias": [{}, {"attention_bias": True}, {"mlp_bias": True}],
    "head": [{"tie_word_embeddings": False}, {"tie_word_embeddings": True}],
    "cap": [{}, {"final_logit_softcapping": 3.0}],
}
UNDEFINED = [
    ({"attention": "linear"}, {"position_embedding": "alibi"}),
    ({"attention": "linear"}, {"sliding_window": 5}),
]


def defined(row: dict[str, int]) -> bool:
    chosen = [FACTORS[factor][i] for factor, i in row.items()]
    return not any(a in chosen and b in chosen for a, b in UNDEFINED)


def all_pairs() -> set[tuple]:
    """((factor, choice), (factor, choice)) for every two choices that may meet."""
    choices = [[(factor, i) for i in range(len(options))] for factor, options in FACTORS.items()]
    pairs = (pair for a, b in itertools.combinations(choices, 2) for pair in itertools.product(a, b))
    return {pair for pair in pairs if defined(dict(pair))}


def pairs_of(row: dict[str, int]) -> set[tuple]:
    return set(itertools.combinations(((factor, row[factor]) for factor in FACTORS if factor in row), 2))


def covering() -> list[dict]:
    """Greedy: start each row from a pair not yet seen, then take whatever choice brings most new pairs."""
    missing, rows = all_pairs(), []
    while missing:
        row = dict(min(missing))
        for factor, options in FACTORS.items():
            if factor not in row:
                candidates = [{**row, factor: i} for i in range(len(options))]
                row = max(filter(defined, candidates), key=lambda r: len(pairs_of(r) & missing))
        missing -= pairs_of(row)
        rows.append(row)
    return [{k: v for factor, i in row.items() for k, v in FACTORS[factor][i].items()} for row in rows]


CASES = covering()


def name(fields: dict) -> str:
    return "-".join(str(v) for v in fields.values() if isinstance(v, str | int) and not isinstance(v, bool))


cases = pytest.mark.parametrize("fields", CASES, ids=name)


def test_every_pair_of_choices_occurs():
    """Counted anew from the fields: every attention with every position among them."""
    for (_, a), (_, b) in itertools.combinations(FACTORS.items(), 2):
        for one, other in itertools.product(a, b):
            both = {**one, **other}
            met = any(both.items() <= case.items() for case in CASES)
            assert met or any(x == one and y == other for x, y in UNDEFINED), both
    assert len(CASES) < 60, "the greedy search has lost its way"


@cases
def test_nothing_looks_ahead(tiny, tokens, fields):
    model, ids = tiny(**fields), tokens(2, 12)
    changed = ids.clone()
    changed[:, 7] = (ids[:, 7] + 1) % 61
    with torch.no_grad():
        before, after = model(ids).logits, model(changed).logits
    torch.testing.assert_close(after[:, :7], before[:, :7], **CLOSE)
    assert (after[:, 7] - before[:, 7]).abs().max() > 1e-3
    assert (after[:, 8:] - before[:, 8:]).abs().amax((0, 2)).min() > 1e-4, "a later token does not see the change"


@cases
def test_cache_on_is_cache_off(tiny, tokens, fields):
    model, ids = tiny(**fields), tokens(2, 12)
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
        out = model(ids[:, :5], use_cache=True)
        pieces = [out.logits]
        for piece in ids[:, 5:].split((1, 1, 4, 1), dim=1):
            out = model(piece, past_key_values=out.past_key_values, use_cache=True)
            pieces.append(out.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, **CLOSE)


@cases
def test_padding_left_or_right_changes_nothing(tiny, tokens, fields):
    model, text = tiny(**fields), tokens(1, 9)
    pad, ones = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 9, dtype=torch.long)
    with torch.no_grad():
        alone = model(text).logits
        left = model(torch.cat((pad, text), 1), attention_mask=torch.cat((pad, ones), 1))
        right = model(torch.cat((text, pad), 1), attention_mask=torch.cat((ones, pad), 1)).logits
        # and on from the padded prompt, by the cache
        step = model(text[:, :1], attention_mask=torch.cat((pad, ones, ones[:, :1]), 1),
                     past_key_values=left.past_key_values).logits  # fmt: skip
        longer = model(torch.cat((text, text[:, :1]), 1)).logits
    torch.testing.assert_close(left.logits[:, 3:], alone, **CLOSE)
    torch.testing.assert_close(right[:, :9], alone, **CLOSE)
    torch.testing.assert_close(step, longer[:, -1:], **CLOSE)


@cases
def test_eager_is_sdpa_and_a_batch_is_its_rows(tiny, tokens, fields):
    model, ids = tiny(**fields), tokens(3, 11)
    with torch.no_grad():
        sdpa = model(ids).logits
        rows = torch.cat([model(row[None]).logits for row in ids])
        model.set_attn_implementation("eager")
        eager = model(ids).logits
    torch.testing.assert_close(rows, sdpa, **CLOSE)
    torch.testing.assert_close(eager, sdpa, **CLOSE)


@cases
def test_saved_and_opened_it_is_the_same(tiny, tokens, fields, tmp_path):
    model, ids = tiny(**fields), tokens(2, 11)
    model.save_pretrained(tmp_path)
    opened = LabGPTForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(opened(ids).logits, model(ids).logits)
    tied = opened.lm_head.weight is opened.model.embed_tokens.weight
    assert tied == fields["tie_word_embeddings"]
    assert opened.config.to_dict() | {"_name_or_path": ""} == model.config.to_dict()


@cases
def test_one_batch_can_be_learnt_by_heart(tokens, fields):
    """From its own initialisation. A leak backwards or a dead branch shows as a loss that stays."""
    torch.manual_seed(0)
    config = LabGPTConfig(vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **fields)
    model, ids = LabGPTForCausalLM(config), tokens(2, 12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    first = None
    for _ in range(70):
        loss = model(ids, labels=ids).loss
        first = first or loss.item()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert first > 3.5
    assert loss.item() < 0.5
