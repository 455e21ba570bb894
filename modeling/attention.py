"""Causal self-attention, two kinds: softmax over all earlier tokens, and linear attention with a running state.

Imports torch and the library's attention interface, masks and caches; of ours `positions`, `norms` and `decoding`.

Shapes: B batch, T time, S keys (cached and new), C hidden size, H query heads, G key/value heads, D head dim,
N chunks of K tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.masking_utils import (
    create_causal_mask,
    create_recurrent_attention_mask,
    create_sliding_window_causal_mask,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .decoding import FixedCache
from .norms import NORMS
from .positions import POSITIONS

CHUNK = 64  # tokens whose scores linear attention writes out: K² per chunk against D² per chunk for the states


class Attention(nn.Module):
    """Projections and heads, shared by both kinds.

    G < H is grouped-query attention (arXiv:2305.13245), G = 1 multi-query (arXiv:1911.02150). QK-norm
    (arXiv:2302.05442) keeps the scores from growing without bound.
    """

    def __init__(self, config, layer_idx: int):
        super().__init__()
        C, H, G, D = config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = D
        self.scaling = D**-0.5
        self.sliding_window = config.sliding_window
        self.num_key_value_groups = H // G  # the library's attention functions look for this name
        self.is_causal = True  # and for this one

        self.q_proj = nn.Linear(C, H * D, bias=config.attention_bias)
        self.k_proj = nn.Linear(C, G * D, bias=config.attention_bias)
        self.v_proj = nn.Linear(C, G * D, bias=config.attention_bias)
        self.o_proj = nn.Linear(H * D, C, bias=config.attention_bias)
        self.o_proj.initial_scale = 0.0  # every block starts as the identity (arXiv:1901.09321)
        self.q_norm = NORMS[config.norm](D, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = NORMS[config.norm](D, eps=config.norm_eps) if config.qk_norm else nn.Identity()
        self.rotate = POSITIONS[config.position_embedding].rotate

    def forward(self, x: Tensor, **context) -> tuple[Tensor, Tensor | None]:
        """(B, T, C) -> (B, T, C) and, where the implementation computes them, the weights (B, H, T, S)."""
        heads = (*x.shape[:2], -1, self.head_dim)
        q = self.q_norm(self.q_proj(x).view(heads)).transpose(1, 2)  # (B, H, T, D)
        k = self.k_norm(self.k_proj(x).view(heads)).transpose(1, 2)  # (B, G, T, D)
        v = self.v_proj(x).view(heads).transpose(1, 2)  # (B, G, T, D)
        y, weights = self.attend(q, k, v, **context)
        return self.o_proj(y.flatten(2)), weights  # (B, T, H, D) -> (B, T, H*D) -> (B, T, C)


class SoftmaxAttention(Attention):
    """softmax(q·kᵀ/√D)·v over the tokens before (arXiv:1706.03762), or over the last `sliding_window` of them."""

    is_stateful = False

    @staticmethod
    def layer_type(config) -> str:
        """The library's name for such a layer: its caches go by it."""
        return "full_attention" if config.sliding_window is None else "sliding_attention"

    @staticmethod
    def mask(config, x: Tensor, attention_mask: Tensor | dict | None, position_ids: Tensor | None, cache: Cache | None):
        """(B or 1, 1, T, S) from a padding mask (B, S): nothing ahead, no padding, nothing outside the window."""
        kind = SoftmaxAttention.layer_type(config)
        if isinstance(attention_mask, dict):  # `generate` made it, for a static cache
            return attention_mask[kind]
        make = {"full_attention": create_causal_mask, "sliding_attention": create_sliding_window_causal_mask}[kind]
        return make(
            config=config,
            inputs_embeds=x,
            attention_mask=attention_mask,
            past_key_values=cache,
            position_ids=position_ids,  # as given: texts packed into one row show by positions that start again
        )

    def attend(self, q, k, v, rotation=None, attention_mask=None, past_key_values: Cache | None = None, **kwargs):
        q, k = self.rotate(q, k, rotation)
        if past_key_values is not None:
            k, v = past_key_values.update(k, v, self.layer_idx)  # (B, G, S, D)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        return attend(
            self,
            q,
            k,
            v,
            attention_mask,
            dropout=self.config.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            sliding_window=self.sliding_window,
            **kwargs,
        )

    def decoding_cache(self, prompt: Cache, seen: int, length: int) -> FixedCache:
        return FixedCache(prompt, seen, length, self.sliding_window)


def eager_attention(module, q, k, v, attention_mask, scaling, dropout=0.0, **kwargs) -> tuple[Tensor, Tensor]:
    """The definition, written out: also the only implementation that returns the weights."""
    k = k.repeat_interleave(module.num_key_value_groups, dim=1)  # (B, H, S, D)
    v = v.repeat_interleave(module.num_key_value_groups, dim=1)
    scores = q @ k.mT * scaling  # (B, H, T, S)
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1, dtype=torch.float32).to(q.dtype)  # fp16 sums of exponentials would overflow
    weights = F.dropout(weights, dropout, module.training)
    return (weights @ v).transpose(1, 2), weights  # (B, T, H, D)


class LinearAttention(Attention):
    """φ(q)·Σφ(k)vᵀ / φ(q)·Σφ(k) with φ = elu + 1 (arXiv:2006.16236): sums that run on, so a state of fixed size.

    With rotary positions the numerator's features are turned and the denominator's are not (arXiv:2104.09864, eq. 19),
    which keeps the denominator positive. The state of a layer is (B, H, D, D+1): Σφ(k)vᵀ, and Σφ(k) as last column.
    """

    is_stateful = True

    @staticmethod
    def layer_type(config) -> str:
        # A running state and keys: the library's `generate` counts the tokens of a cache by its keys, so the layer
        # leaves one number for each token there. Its type without keys cannot be generated with in 5.23.
        return "hybrid"

    @staticmethod
    def mask(config, x: Tensor, attention_mask: Tensor | dict | None, position_ids: Tensor | None, cache: Cache | None):
        """The padding mask (B, T) of the new tokens; causality is in the sums."""
        if isinstance(attention_mask, dict):
            return attention_mask["linear_attention"]
        return create_recurrent_attention_mask(config, x, attention_mask, past_key_values=cache)

    def attend(self, q, k, v, rotation=None, attention_mask=None, past_key_values: Cache | None = None, **kwargs):
        q, k = F.elu(q.float()) + 1, F.elu(k.float()) + 1  # running sums want float32 whatever the model's dtype
        if attention_mask is not None:
            k = k * attention_mask[:, None, :, None]  # padding adds nothing to either sum
        k = k.repeat_interleave(self.num_key_value_groups, dim=1)  # (B, H, T, D)
        values = v.float().repeat_interleave(self.num_key_value_groups, dim=1)
        turned_q, turned_k = self.rotate(q, k, rotation)

        state = self.state_before(past_key_values, k)
        key_sums = k.cumsum(2) + state[..., -1].unsqueeze(2)  # (B, H, T, D)
        total = (q * key_sums).sum(-1, keepdim=True).clamp_min(1e-6)  # 0 only for padding before the first token
        y, scores = LINEAR_FORMS.get(self.config._attn_implementation, chunked)(
            turned_q, turned_k, values, state[..., :-1]
        )
        if past_key_values is not None:
            state = torch.cat((state[..., :-1] + turned_k.mT @ values, key_sums[:, :, -1, :, None]), dim=-1)
            past_key_values.update_recurrent_state(state, self.layer_idx)
            marks = k.new_zeros(len(k), 1, k.shape[2], 1)
            past_key_values.update(marks, marks, self.layer_idx)
        return (y / total).to(v.dtype).transpose(1, 2), None if scores is None else (scores / total).to(v.dtype)

    def state_before(self, cache: Cache | None, k: Tensor) -> Tensor:
        state = None if cache is None else cache.layers[self.layer_idx].recurrent_states[0]
        return k.new_zeros(*k.shape[:2], self.head_dim, self.head_dim + 1) if state is None else state

    def decoding_cache(self, prompt: Cache, seen: int, length: int) -> Cache:
        return prompt  # the state has its final size from the start


def quadratic(q: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The numerator with every score written out: the form that can return weights (of the new tokens)."""
    scores = (q @ k.mT).tril()  # (B, H, T, T)
    return scores @ v + q @ state, scores


def chunked(q: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, None]:
    """The numerator in time linear in T: scores inside a chunk, one running sum between chunks."""
    T = q.shape[2]
    K = min(CHUNK, T)
    q, k, v = (F.pad(x, (0, 0, 0, -T % K)).unflatten(2, (-1, K)) for x in (q, k, v))  # (B, H, N, K, D)
    sums = k.mT @ v  # (B, H, N, D, D)
    before = sums.cumsum(2) - sums + state.unsqueeze(2)
    y = (q @ k.mT).tril() @ v + q @ before
    return y.flatten(2, 3)[:, :, :T], None


# by attention implementation; any other name means `chunked`
LINEAR_FORMS = {
    "eager": quadratic,
    "sdpa": chunked,
}

ATTENTIONS = {
    "softmax": SoftmaxAttention,
    "linear": LinearAttention,
}
