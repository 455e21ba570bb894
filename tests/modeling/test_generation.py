"""Generation: the library's modes where each is defined, and the lean decoder against them."""

import pytest
import torch
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from modeling.attention import ATTENTIONS
from modeling.decoding import VectorLinear, filtered, penalized
from modeling.positions import POSITIONS

PAIRS = [(a, p) for a in ATTENTIONS for p in POSITIONS if (a, p) != ("linear", "alibi")]
N = 14
pairs = pytest.mark.parametrize(("attention", "position"), PAIRS)


@torch.no_grad()
def by_hand(model, ids, count=N):
    """Greedy without any cache: the whole text anew for each token."""
    for _ in range(count):
        ids = torch.cat((ids, model(ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)), dim=1)
    return ids


def decoded(model, ids, count=N, **how):
    steps = list(model.decode(ids, max_new_tokens=count, **how))
    return torch.cat((ids, torch.stack([step.token_ids for step in steps], 1)), dim=1)


@pairs
def test_greedy_and_decode(tiny, tokens, attention, position):
    model, ids = tiny(attention=attention, position_embedding=position), tokens(2, 6)
    expected = by_hand(model, ids)
    assert len(expected[:, 6:].unique()) > 3, "the model repeats one token: anything would pass"
    assert torch.equal(model.generate(ids, max_new_tokens=N, do_sample=False), expected)
    assert torch.equal(decoded(model, ids), expected)


@pytest.mark.parametrize(
    "fields",
    [
        {"sliding_window": 5, "num_key_value_heads": 2},
        {"sliding_window": 5, "position_embedding": "alibi", "num_key_value_heads": 1},
        {"norm_position": "post", "norm": "layernorm", "attention_bias": True, "mlp_bias": True},
        {"gated_mlp": True, "hidden_act": "silu", "final_logit_softcapping": 4.0, "tie_word_embeddings": True},
    ],
    ids=str,
)
def test_decode_with_other_choices(tiny, tokens, fields):
    model = tiny(**fields)
    for batch in (1, 3, 6):  # 6: more rows than the vector form takes
        ids = tokens(batch, 8, seed=batch)
        assert torch.equal(decoded(model, ids), by_hand(model, ids))


def test_decode_gives_the_raw_logits(tiny, tokens):
    model, ids = tiny(), tokens(1, 6)
    steps = list(model.decode(ids, max_new_tokens=4, do_sample=True, temperature=0.5, top_k=3, repetition_penalty=2.0))
    text = torch.cat((ids, torch.stack([s.token_ids for s in steps], 1)), dim=1)
    with torch.no_grad():
        expected = model(text).logits[0, 5:-1]
    torch.testing.assert_close(torch.cat([s.logits for s in steps]), expected, atol=2e-5, rtol=1e-4)


# mode of the library's `generate` -> the arguments that ask for it
MODES = {
    "sampling": {"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "beam sampling": {"num_beams": 2, "do_sample": True},
    "static cache": {"cache_implementation": "static"},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "assistant": {},
}
REFUSED = {("linear", "prompt lookup"), ("linear", "assistant")}  # a running state cannot be rolled back


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"position_embedding": "learned"},
        {"position_embedding": "alibi"},
        {"sliding_window": 5},
        {"attention": "linear"},
    ],
    ids=str,
)
def test_the_librarys_modes(tiny, tokens, mode, fields):
    """Each against the same search without a cache, or, where the mode promises it, against plain greedy."""
    model, ids = tiny(**fields), tokens(1, 6).repeat(1, 2)
    arguments = {"max_new_tokens": N, "do_sample": False, **MODES[mode]}
    if mode == "assistant":
        arguments["assistant_model"] = tiny(seed=1, **fields)
    if (fields.get("attention", "softmax"), mode) in REFUSED:
        with pytest.raises(ValueError, match="not supported with stateful models"):
            model.generate(ids, **arguments)
        return
    if mode in ("static cache", "prompt lookup", "assistant"):
        expected = by_hand(model, ids)
    else:
        torch.manual_seed(3)
        expected = model.generate(ids, **arguments, use_cache=False)
    torch.manual_seed(3)
    assert torch.equal(model.generate(ids, **arguments), expected)


@pairs
def test_a_padded_batch_generates_as_its_rows_alone(tiny, tokens, attention, position):
    model = tiny(attention=attention, position_embedding=position)
    short, long = tokens(1, 4), tokens(1, 9, seed=1)
    pad = torch.zeros(1, 5, dtype=torch.long)
    batch = torch.cat((torch.cat((pad, short), 1), long))
    mask = torch.cat((torch.cat((pad, torch.ones_like(short)), 1), torch.ones_like(long)))
    together = model.generate(batch, attention_mask=mask, max_new_tokens=N, do_sample=False)
    assert torch.equal(together[:1, 5:], by_hand(model, short))
    assert torch.equal(together[1:], by_hand(model, long))
    static = model.generate(
        batch, attention_mask=mask, max_new_tokens=N, do_sample=False, cache_implementation="static"
    )
    assert torch.equal(static, together)


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_the_librarys_other_ways_in(tiny, tokens, attention):
    """From embeddings, from a cache already filled, and by a prompt read in pieces."""
    model, ids = tiny(attention=attention, position_embedding="learned"), tokens(1, 9)
    expected, greedy = by_hand(model, ids), {"max_new_tokens": N, "do_sample": False}
    embedded = model.generate(inputs_embeds=model.model.embed_tokens(ids), **greedy)
    assert torch.equal(embedded, expected[:, 9:])
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(ids[:, :5], past_key_values=cache)
    assert torch.equal(model.generate(ids, past_key_values=cache, **greedy), expected)
    assert torch.equal(model.generate(ids, prefill_chunk_size=4, **greedy), expected)


def test_filters_are_the_librarys():
    torch.manual_seed(0)
    logits, text = torch.randn(64, 61) * 4, torch.randint(0, 61, (64, 20))
    library = LogitsProcessorList(
        [
            RepetitionPenaltyLogitsProcessor(1.3),
            TemperatureLogitsWarper(0.8),
            TopKLogitsWarper(12),
            TopPLogitsWarper(0.85),
        ]
    )
    expected = library(text, logits)
    got = filtered(penalized(logits, text, 1.3) / 0.8, 12, 0.85)
    assert 1 < got.isfinite().sum(-1).float().mean() < 12
    assert torch.equal(got, expected)
    assert torch.equal(filtered(logits, 99, 1.0), logits)


def test_samples_follow_the_distribution(tiny, tokens):
    model, ids, count = tiny(), tokens(1, 6), 20_000
    with torch.no_grad():
        p = (model(ids).logits[0, -1] / 0.8).softmax(-1)
    generator = torch.Generator().manual_seed(0)
    step = next(
        model.decode(ids.expand(count, -1), max_new_tokens=1, do_sample=True, temperature=0.8, generator=generator)
    )
    frequency = step.token_ids.bincount(minlength=61) / count
    assert ((frequency - p).abs() <= 5 * (p * (1 - p) / count).sqrt() + 1e-4).all()


def test_a_seeded_generator_repeats(tiny, tokens):
    model, ids = tiny(), tokens(1, 6)
    one, two, other = (
        decoded(model, ids, do_sample=True, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_rows_end_where_they_say(tiny, tokens):
    """As in the library: a row that has ended gives padding until all have; then it stops."""
    model, ids = tiny(), tokens(3, 6)
    free = by_hand(model, ids, 30)[:, 6:]
    end = free[0, 4].item()
    model.generation_config.eos_token_id = end
    expected = model.generate(ids, max_new_tokens=30, do_sample=False)
    assert (expected == 0).any()
    assert torch.equal(decoded(model, ids, 30), expected)
    assert torch.equal(decoded(model, ids, 30, eos_token_id=()), torch.cat((ids, free), 1))
    assert torch.equal(
        decoded(model, ids[:1], 30), torch.cat((ids[:1], free[:1, : free[0].tolist().index(end) + 1]), 1)
    )


def test_decode_leaves_the_model_as_it_was(tiny, tokens):
    """Dropout is off inside and the mode is put back; weights changed later are the decoder's too."""
    model, ids = tiny(hidden_dropout=0.5), tokens(1, 6)
    expected = by_hand(model, ids)
    model.train()
    assert torch.equal(decoded(model, ids), expected)
    assert model.training
    begun = model.decode(ids, max_new_tokens=3)
    next(begun)
    assert not torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()
    del begun
    assert model.training
    assert type(model.lm_head) is torch.nn.Linear
    with torch.no_grad():
        model.lm_head.weight.neg_()
    model.eval()
    assert torch.equal(decoded(model, ids), by_hand(model, ids))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0"),
        ({"max_new_tokens": 1, "temperature": 0.0}, "temperature=0.0"),
        ({"max_new_tokens": 1, "top_k": 0}, "top_k=0"),
        ({"max_new_tokens": 1, "top_p": 1.5}, "top_p=1.5"),
        ({"max_new_tokens": 1, "repetition_penalty": 0.0}, "repetition_penalty=0.0"),
        ({"max_new_tokens": 44}, "49 tokens do not fit"),
    ],
)
def test_decode_refuses_in_a_sentence(tiny, tokens, how, words):
    model, ids = tiny(position_embedding="learned"), tokens(1, 6)
    with pytest.raises(ValueError, match=words):
        model.decode(ids, **how)  # at once, not when the first token is asked for
    assert decoded(model, ids, 43).shape == (1, 49)  # the last token needs no position


@pytest.mark.parametrize("out_features", [64, 65, 67])
@pytest.mark.parametrize("bias", [True, False])
def test_the_vector_form_of_a_linear_layer(out_features, bias):
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, out_features, bias=bias)
    for rows in (1, 3):
        x = torch.randn(rows, 1, 48)
        torch.testing.assert_close(VectorLinear(linear)(x), linear(x), atol=1e-6, rtol=1e-5)
