"""Attention and positions against their formulas, written out token by token."""

import pytest
import torch

from modeling.attention import CHUNK


def captured(model, ids):
    """What goes into the first layer's attention, and what its heads give (before o_proj)."""
    attention, seen = model.model.layers[0].self_attn, {}
    hooks = [
        attention.register_forward_pre_hook(lambda m, args: seen.update(x=args[0])),
        attention.o_proj.register_forward_pre_hook(lambda m, args: seen.update(y=args[0])),
    ]
    with torch.no_grad():
        model(ids)
        heads = (1, ids.shape[1], -1, attention.head_dim)
        q, k, v = (getattr(attention, f"{p}_proj")(seen["x"]).view(heads)[0] for p in "qkv")  # (T, H, D)
    for hook in hooks:
        hook.remove()
    return q, k, v, seen["y"].view(heads)[0]


def rotated(x, position):
    """RoPE by complex numbers: pair (i, i + D/2) is one number, turned by position·θ_i. x: (H, D)"""
    half = x.shape[-1] // 2
    angles = position * 10000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
    z = torch.complex(x[:, :half].double(), x[:, half:].double()) * torch.polar(torch.ones(half).double(), angles)
    return torch.cat((z.real, z.imag), -1)


@pytest.mark.parametrize("position", ["none", "rope"])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_linear_attention_is_its_formula(tiny, tokens, position, implementation):
    """arXiv:2006.16236 eq. 8 and, turned, arXiv:2104.09864 eq. 19; longer than two chunks, and not a multiple."""
    T = 2 * CHUNK + 5
    model = tiny(attention="linear", position_embedding=position, qk_norm=False, num_hidden_layers=1)
    model.set_attn_implementation(implementation)
    q, k, v, y = captured(model, tokens(1, T))
    phi_q, phi_k = (torch.where(x > 0, x + 1, x.exp()).double() for x in (q, k))
    turn = rotated if position == "rope" else lambda x, i: x
    turned_q, turned_k = (torch.stack([turn(x, i) for i, x in enumerate(xs)]) for xs in (phi_q, phi_k))
    for t in (0, 1, CHUNK - 1, CHUNK, T - 1):
        weights = torch.einsum("hd,shd->hs", turned_q[t], turned_k[: t + 1])
        total = torch.einsum("hd,shd->h", phi_q[t], phi_k[: t + 1])
        expected = torch.einsum("hs,shd->hd", weights, v[: t + 1].double()) / total[:, None]
        torch.testing.assert_close(y[t].double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("position", ["alibi", "rope", "none"])
@pytest.mark.parametrize("window", [None, 4])
def test_softmax_attention_is_its_formula(tiny, tokens, position, window):
    model = tiny(position_embedding=position, sliding_window=window, qk_norm=False, num_hidden_layers=1)
    q, k, v, y = captured(model, tokens(1, 10))
    slopes = torch.tensor([2**-2, 2**-4, 2**-6, 2**-8])  # four heads (arXiv:2108.12409)
    for t in range(10):
        first = 0 if window is None else max(0, t + 1 - window)
        scores = []
        for s in range(first, t + 1):
            a, b = (rotated(q[t], t), rotated(k[s], s)) if position == "rope" else (q[t].double(), k[s].double())
            score = (a * b).sum(-1) / q.shape[-1] ** 0.5
            scores.append(score - slopes * (t - s) if position == "alibi" else score)
        weights = torch.stack(scores, 1).softmax(1)  # (H, S)
        expected = torch.einsum("hs,shd->hd", weights, v[first : t + 1].double())
        torch.testing.assert_close(y[t].double(), expected, atol=1e-5, rtol=1e-4)


def test_sinusoidal_positions_are_the_papers(tiny, tokens):
    """arXiv:1706.03762, 3.4 and 3.5; sines first, then cosines, which is a fixed permutation of the components."""
    model, ids = tiny(position_embedding="sinusoidal"), tokens(1, 6)
    with torch.no_grad():
        start = model(ids, output_hidden_states=True).hidden_states[0][0]
        words = model.model.embed_tokens(ids)[0] * 32**0.5
    for t in range(6):
        for i in range(16):
            angle = torch.tensor(t / 10000 ** (2 * i / 32))
            assert abs(start[t, i] - words[t, i] - angle.sin()) < 1e-5
            assert abs(start[t, 16 + i] - words[t, 16 + i] - angle.cos()) < 1e-5


@pytest.mark.parametrize(
    "fields", [{}, {"sliding_window": 3}, {"position_embedding": "alibi"}, {"attention": "linear"}]
)
def test_what_can_be_looked_at(tiny, tokens, fields):
    """Hidden states and weights: L + 1 and L of them, rows that sum to 1, nothing ahead, nothing outside a window."""
    model, ids = tiny(qk_norm=False, **{"position_embedding": "none", **fields}), tokens(2, 7)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(ids, output_attentions=True, output_hidden_states=True)
    assert len(out.hidden_states) == 3
    torch.testing.assert_close(model.lm_head(out.hidden_states[-1]), out.logits)
    assert len(out.attentions) == 2
    for weights in out.attentions:
        assert weights.shape == (2, 4, 7, 7)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 7))
        distance = torch.arange(7)[:, None] - torch.arange(7)
        outside = (distance < 0) | (distance >= fields.get("sliding_window", 99))
        assert weights[..., outside].abs().max() == 0
        assert (weights[..., ~outside] > 0).all()


@pytest.mark.slow  # the library compiles it
def test_flex_attention(tiny, tokens):
    model = tiny(hidden_size=64, num_key_value_heads=2, sliding_window=5, position_embedding="learned")
    model, ids = model.requires_grad_(False), tokens(2, 20)  # on a CPU, flex attention has no backward pass
    expected = model(ids).logits
    model.set_attn_implementation("flex_attention")
    torch.testing.assert_close(model(ids).logits, expected, atol=2e-5, rtol=1e-4)


def test_alibi_has_no_flex_attention(tiny):
    with pytest.raises(ValueError, match="flex"):
        tiny(position_embedding="alibi").set_attn_implementation("flex_attention")


def test_packed_texts_do_not_see_each_other(tiny, tokens):
    """Positions that start again mark texts in one row, where there is no cache."""
    model, ids = tiny(), tokens(1, 12)
    positions = torch.tensor([[*range(5), *range(7)]])
    with torch.no_grad():
        packed = model(ids, position_ids=positions, use_cache=False).logits
        apart = torch.cat((model(ids[:, :5]).logits, model(ids[:, 5:]).logits), dim=1)
    torch.testing.assert_close(packed, apart, atol=2e-5, rtol=1e-4)


def test_learned_positions_end_in_a_sentence(tiny, tokens):
    with pytest.raises(ValueError, match="49 tokens do not fit: learned positions end at max_position_embeddings=48"):
        tiny(position_embedding="learned")(tokens(1, 49))


def test_half_precision_keeps_positions_apart(tiny, tokens):
    """bf16 has 8 bits: angles computed in it would be the same for neighbouring positions beyond 256."""
    model = tiny(dtype="bfloat16").to(torch.bfloat16)
    cos, _ = model.model.positions.rotation(torch.zeros(1, dtype=torch.bfloat16), torch.tensor([[1000, 1001, 1002]]))
    assert len(cos[0, 0, :, 0].unique()) == 3
    assert model(tokens(1, 9)).logits.isfinite().all()
