"""The feed-forward half of a block, plain or gated, and its activations.

Imports torch alone. Shapes: B batch, T time, C hidden size, F intermediate size.
"""

from torch import Tensor, nn


class ReLUSquared(nn.Module):
    """max(x, 0)² (arXiv:2109.08668): as cheap as ReLU, and its slope is continuous."""

    def forward(self, x: Tensor) -> Tensor:
        return x.relu().square()


ACTIVATIONS = {
    "relu": nn.ReLU,
    "relu2": ReLUSquared,
    "gelu": nn.GELU,  # x·Φ(x) (arXiv:1606.08415)
    "gelu_new": lambda: nn.GELU(approximate="tanh"),  # GPT-2's approximation of it
    "silu": nn.SiLU,  # x·sigmoid(x) (arXiv:1702.03118)
}


class FeedForward(nn.Module):
    """down(act(up(x))), each position by itself."""

    def __init__(self, config):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.mlp_bias)
        self.down_proj.initial_scale = 0.0  # every block starts as the identity (arXiv:1901.09321)
        self.act_fn = ACTIVATIONS[config.hidden_act]()

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.up_proj(x)))  # (B, T, C) -> (B, T, F) -> (B, T, C)


class GatedFeedForward(FeedForward):
    """down(act(gate(x)) ⊙ up(x)): SwiGLU with silu, GEGLU with gelu (arXiv:2002.05202)."""

    def __init__(self, config):
        super().__init__(config)
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


# by `gated_mlp`
FEED_FORWARDS = {
    False: FeedForward,
    True: GatedFeedForward,
}
