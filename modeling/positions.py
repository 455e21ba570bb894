"""How the model knows where a token stands: five kinds, acting in three places.

Imports torch and the library's cache type. A kind overrides the one place where it acts and inherits "nothing" for
the other two: `embed` adds to the residual stream, `rotation` and `rotate` turn queries and keys, `bias` adds to the
attention scores. No kind keeps a buffer: what follows from the positions is computed from them, so nothing is lost
when a model is built on the meta device or cast to half precision.

Shapes: B batch, T time, S keys (cached and new), C hidden size, H heads, D head dim, R rotated part of D.
"""

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache

Rotation = tuple[Tensor, Tensor]  # cosines and sines


class NoPositions(nn.Module):
    """No position information (arXiv:2305.19466): the causal mask alone tells a prefix from its continuation."""

    supports_flex = True

    def __init__(self, config):
        super().__init__()

    def check_length(self, length: int) -> None:
        """Raise ValueError where there is no position for the last of so many tokens."""

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Token embeddings (B, T, C) -> the residual stream's beginning (B, T, C)."""
        return x

    def rotation(self, x: Tensor, position_ids: Tensor) -> Rotation | None:
        """What `rotate` will need, computed once for all layers. `x` lends its dtype and device."""
        return None

    @staticmethod
    def rotate(q: Tensor, k: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        return q, k

    def bias(self, mask: Tensor | None, x: Tensor, cache: Cache | None) -> Tensor | None:
        """The attention mask (B or 1, 1, T, S), with anything that depends on the distance added to it."""
        return mask


class LearnedPositions(NoPositions):
    """A trained vector for each position, added to the token's (arXiv:1706.03762, GPT-2): nothing beyond the table."""

    def __init__(self, config):
        super().__init__(config)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)

    def check_length(self, length: int) -> None:
        table = self.embed_positions.num_embeddings
        if length > table:
            raise ValueError(f"{length} tokens do not fit: learned positions end at max_position_embeddings={table}")

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        self.check_length(x.shape[1])
        return x + self.embed_positions(position_ids)


class SinusoidalPositions(NoPositions):
    """Fixed sines and cosines of geometric wavelengths, 2π to 10000·2π (arXiv:1706.03762, 3.5)."""

    def embed(self, x: Tensor, position_ids: Tensor) -> Tensor:
        C = x.shape[-1]
        frequencies = 10000.0 ** -(torch.arange(0, C, 2, device=x.device) / C)  # (C/2,)
        angles = position_ids[..., None] * frequencies  # (B, T, C/2)
        table = torch.cat((angles.sin(), angles.cos()), dim=-1)
        # embeddings start at 1/√C a component; √C (3.4 of the paper) brings them to the waves' size
        return x * C**0.5 + table.to(x.dtype)


class RotaryPositions(NoPositions):
    """Each pair of query and key components is turned by an angle that grows with the position (arXiv:2104.09864).

    So q·k depends on the distance alone. `rope_type: linear` divides the positions by `factor` (arXiv:2306.15595);
    `partial_rotary_factor` leaves the rest of each head unturned. Pairs are (i, i + R/2), as in the library's Llama.
    """

    def __init__(self, config):
        super().__init__(config)
        self.size = config.rotary_dim
        self.theta = config.rope_parameters["rope_theta"]
        self.factor = config.rope_parameters.get("factor", 1.0)

    def rotation(self, x: Tensor, position_ids: Tensor) -> Rotation:
        steps = torch.arange(0, self.size, 2, dtype=torch.float32, device=x.device)
        frequencies = 1.0 / (self.theta ** (steps / self.size)) / self.factor  # (R/2,)
        angles = position_ids[:, None, :, None].float() * frequencies  # (B, 1, T, R/2)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    @staticmethod
    def rotate(q: Tensor, k: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        return turn(q, *rotation), turn(k, *rotation)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first R components of x (B, H, T, D), pair by pair: (a, b) -> (a·cos − b·sin, b·cos + a·sin)."""
    half = cos.shape[-1]
    a, b, rest = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)


class AlibiPositions(NoPositions):
    """Scores lose slope·distance, each head at its own slope 2^(−8h/H), h = 1…H (arXiv:2108.12409)."""

    supports_flex = False  # the bias is added to a float mask, which flex attention does not take

    def __init__(self, config):
        super().__init__(config)
        self.heads = config.num_attention_heads

    def bias(self, mask: Tensor | None, x: Tensor, cache: Cache | None) -> Tensor:
        # Distances count places in the row, padding included: between two tokens of a text there is none.
        T = x.shape[1]
        seen = 0 if cache is None else cache.get_seq_length()
        S, first = (T, 0) if cache is None else cache.get_mask_sizes(T, 0)
        queries = torch.arange(T, device=x.device) + seen
        keys = torch.arange(S, device=x.device) + first
        return self.masked(mask, queries, keys, x.dtype)

    def masked(self, mask: Tensor | None, queries: Tensor, keys: Tensor, dtype: torch.dtype) -> Tensor:
        """Bias (1, H, T, S) where the mask lets a query at one place see a key at another, lowest elsewhere."""
        head = torch.arange(1, self.heads + 1, device=keys.device)
        slopes = 2.0 ** (-8.0 * head / self.heads)
        distance = queries[:, None] - keys  # (T, S)
        bias = (-slopes[:, None, None] * distance).to(dtype)[None]
        if mask is None:  # the library leaves a plain causal mask to the kernel; with a bias it has to be written out
            mask = distance >= 0
        if mask.dtype == torch.bool:
            return torch.where(mask, bias, torch.finfo(dtype).min)
        return mask + bias


POSITIONS = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rope": RotaryPositions,
    "alibi": AlibiPositions,
    "none": NoPositions,
}
