"""How far two models' weights lie apart, matrix by matrix: the spectral norm of the change.

Of ours here `interpret.structure` and `writing`; bitsandbytes only where a matrix is kept in 4 bits. The spectral norm,
the largest singular value, is the most that the change can add to a vector of length 1. What an adapter adds,
B·A·scale, is measured without being merged (arXiv:2106.09685).

Shapes: matrices are (outputs, inputs), whatever way a module keeps them; R is the rank of an adapter.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from interpret.structure import inner, structure, widths
from interpret.writing import DIVERGED

STEPS = 200  # of the Lanczos iteration; matrices of random numbers, the slowest, take about 40
CLOSE = 1e-4  # of the squared norm; as the bound is squared over a gap, the error is in truth about 1e-7


@dataclass(frozen=True)
class Change:
    """One matrix in two models. `norm` is the first one's spectral norm, `change` that of second − first."""

    layer: int | None  # None outside the layers
    module: str
    norm: float
    change: float

    @property
    def relative(self) -> float:
        return self.change / self.norm if self.norm else float("inf" if self.change else 0)

    @property
    def name(self) -> str:
        return _name(self.layer, self.module)


@dataclass(frozen=True)
class Changes:
    """Every matrix that both models have, in the order of the forward pass; names of those that cannot be compared."""

    matrices: list[Change]
    left_out: list[str]


@dataclass(frozen=True)
class Weight:
    """A matrix: what stands there, and what an adapter adds, as pairs (B·scale, A) of (outputs, R) and (R, inputs)."""

    base: Tensor
    added: tuple[tuple[Tensor, Tensor], ...]

    @property
    def whole(self) -> Tensor:
        return self.base + sum(b @ a for b, a in self.added) if self.added else self.base


@torch.no_grad()
def weight_changes(first: nn.Module, second: nn.Module) -> Changes:
    """Compare the matrices of two models by their place and name.

    Raises ValueError where no matrix has the same name and shape in both.
    """
    ones, others = dict(_modules(first)), dict(_modules(second))
    found, left_out = [], [_name(*key) for key in {**ones, **others} if key not in ones or key not in others]
    for layer, name in [key for key in ones if key in others]:
        one, other = weight_of(ones[layer, name]), weight_of(others[layer, name])
        if one.base.shape == other.base.shape:
            found.append(Change(layer, name, spectral_norm(one.whole), spectral_norm_of_change(one, other)))
        else:
            left_out.append(_name(layer, name))
    if not found:
        raise ValueError("the two models have no matrix of the same name and shape: no change can be measured")
    return Changes(found, left_out)


def spectral_norm_of_change(one: Weight, other: Weight) -> float:
    """‖other − one‖. Where only adapters differ, from their thin factors alone."""
    if not torch.equal(one.base, other.base.to(one.base.device)):
        return spectral_norm(other.whole.to(one.base.device) - one.whole)
    factors = [(b, a) for b, a in other.added] + [(-b, a) for b, a in one.added]
    if not factors:
        return 0.0
    b, a = torch.cat([b for b, _ in factors], dim=1), torch.cat([a for _, a in factors])
    # B·A = Q_B·(R_B·R_Aᵀ)·Q_Aᵀ, and orthonormal columns change no singular value
    return float(torch.linalg.matrix_norm(torch.linalg.qr(b)[1] @ torch.linalg.qr(a.T)[1].T, 2))


def spectral_norm(matrix: Tensor, seed: int = 0) -> float:
    """The largest singular value, by Lanczos iteration on MᵀM: products with vectors alone, from a random one on.

    Stops where what is left (Paige's bound) can move it by no more than the share CLOSE. Every direction is made
    orthogonal to all before it, twice over, as rounding would let those that were found return. Raises ValueError for a
    matrix whose entries are not numbers.
    """
    if not torch.isfinite(matrix).all():
        raise ValueError(DIVERGED)
    matrix = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T  # directions in the smaller space
    direction = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(seed)).to(matrix)
    basis, inner, squared = matrix.new_zeros(matrix.shape[1], 0), torch.zeros(0, 0, dtype=torch.float64), 0.0
    for step in range(min(STEPS, matrix.shape[1])):
        left = direction.norm()
        basis = torch.cat([basis, (direction / left)[:, None]], dim=1)
        direction = matrix.T @ (matrix @ basis[:, -1])
        along = basis[:, -1] @ direction
        for _ in range(2):
            direction = direction - basis @ (basis.T @ direction)
        inner = torch.nn.functional.pad(inner, (0, 1, 0, 1))  # MᵀM on the directions so far: three diagonals
        inner[step, step] = along.double().cpu()
        if step:
            inner[step - 1, step] = inner[step, step - 1] = left.double().cpu()
        values, vectors = torch.linalg.eigh(inner)
        squared = max(float(values[-1]), 0.0)
        if float(direction.norm()) * abs(float(vectors[-1, -1])) <= CLOSE * squared:
            break
    return squared**0.5


def weight_of(module: nn.Module) -> Weight:
    """A module's matrix in float32, unpacked where it is kept in 4 bits; the adapter's factors apart from it."""
    own = inner(module)
    weight = own.weight if hasattr(module, "base_layer") else module.weight  # with the rows that are learnt, if any
    if getattr(weight, "quant_state", None) is not None:
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(weight.data, weight.quant_state)
    base = weight.detach().float()
    return Weight(base.T if hasattr(own, "nf") else base, tuple(_added(module)))  # GPT-2's Conv1D is transposed


def _added(module: nn.Module) -> Iterator[tuple[Tensor, Tensor]]:
    """What the active LoRA adapters add; nothing where they are merged into the matrix already."""
    if not hasattr(module, "base_layer") or module.merged or module.disable_adapters:
        return
    for name in module.active_adapters:
        if name in getattr(module, "lora_magnitude_vector", {}):
            raise ValueError("this adapter rescales the matrix it stands on (DoRA): merge it first")
        if name in module.lora_A:
            scale = module.scaling[name]
            yield module.lora_B[name].weight.float() * scale, module.lora_A[name].weight.float()
        elif name in module.lora_embedding_A:  # kept transposed, as an embedding is
            scale = module.scaling[name]
            yield module.lora_embedding_A[name].T.float() * scale, module.lora_embedding_B[name].T.float()


def _modules(model: nn.Module) -> Iterator[tuple[tuple[int | None, str], nn.Module]]:
    """Every module with a matrix by its layer and its name there; tied ones once."""
    parts = structure(model)
    layers = [layer.module for layer in parts.layers]
    for name, module in _with_matrix(model, "", skip=layers):
        if module is not parts.head or not _tied(parts.head, parts.embedding):
            yield (None, name.rpartition(".")[2]), module  # without the names of what is around the decoder
    for number, layer in enumerate(layers):
        for name, module in _with_matrix(layer, ""):
            yield (number, name), module


def _with_matrix(module: nn.Module, prefix: str, skip: list[nn.Module] = ()) -> Iterator[tuple[str, nn.Module]]:
    """Linear maps and embeddings inside; an adapter around one counts as that one."""
    for name, child in module.named_children():
        if child in skip:
            continue
        base = inner(child)
        if widths(base) is not None or isinstance(base, nn.Embedding):
            yield prefix + name, child
        else:
            yield from _with_matrix(child, f"{prefix}{name}.", skip)


def _tied(head: nn.Module, embedding: nn.Module) -> bool:
    return inner(head).weight is inner(embedding).weight


def _name(layer: int | None, module: str) -> str:
    return module if layer is None else f"blocks.{layer}.{module}"
