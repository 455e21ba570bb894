"""Normalisation of the residual stream, and of queries and keys.

Imports torch alone. LayerNorm: (x − mean) / std · g + b (arXiv:1607.06450). RMSNorm: x / rms(x) · g (arXiv:1910.07467).
"""

from torch import nn

# Each takes (size, eps) and normalises the last dimension. The classes are torch's own: fused by `torch.compile`, and
# known by name to the library's weight initialisation.
NORMS = {
    "layernorm": nn.LayerNorm,
    "rmsnorm": nn.RMSNorm,
}
