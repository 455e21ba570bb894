"""AdamW and Muon over one model: which parameters go where, and Muon itself.

Muon keeps a momentum of each weight matrix and steps along the nearest orthogonal matrix instead, so that every
direction of the matrix learns at the same rate (https://kellerjordan.github.io/posts/muon/, arXiv:2502.16982).
Embeddings, the head and vectors have no such geometry: they get AdamW (arXiv:1711.05101) in the same optimizer.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

# Five odd quintics a·x + b·x³ + c·x⁵ whose composition maps singular values in [1e-3, 1] closest to 1:
# Polar Express (arXiv:2505.16932). Each step is optimal for the interval the one before leaves over.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
# AdamW with its moments in 8 bits (arXiv:2110.02861), or in memory that CUDA pages out to the host.
OF_BITSANDBYTES = {"adamw_8bit": "AdamW8bit", "paged_adamw": "PagedAdamW", "paged_adamw_8bit": "PagedAdamW8bit"}
SAFETY = 1.02  # the Frobenius norm bounds the largest singular value only up to rounding; the first quintic needs <= 1


def orthogonalize(matrices: Tensor, coefficients: Iterable[tuple[float, float, float]] = POLAR_EXPRESS) -> Tensor:
    """Replace the singular values of each matrix by about 1, by matrix products alone (no SVD).

    Args:
        matrices: (N, R, C), any R and C. Computed in its own dtype.
        coefficients: one (a, b, c) a step of X <- a·X + b·(XXᵀ)X + c·(XXᵀ)²X.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the Gram matrix of the shorter side is the cheaper one
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * SAFETY + 1e-7)
    for a, b, c in coefficients:
        gram = x @ x.mT  # (N, R, R)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon for the groups marked `use_muon`, fused AdamW for the others.

    Args:
        groups: parameter groups; each has `use_muon`, `lr`, `weight_decay`, and `momentum` or `betas`.
        coefficients: of the orthogonalisation.
    """

    def __init__(self, groups: list[dict], coefficients: Iterable[tuple[float, float, float]] = POLAR_EXPRESS):
        defaults = {"use_muon": False, "lr": 1e-3, "weight_decay": 0.0, "momentum": 0.95, "betas": (0.9, 0.95)}
        super().__init__(groups, defaults)
        self.coefficients = tuple(coefficients)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step on the gradients at hand; a closure, which Accelerate passes as None, is not supported."""
        assert closure is None
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["use_muon"]:
                self._step_matrices(group, parameters)
            elif parameters:
                self._step_adamw(group, parameters)

    def _step_matrices(self, group: dict, parameters: list[nn.Parameter]) -> None:
        by_shape = defaultdict(list)  # matrices of one shape are orthogonalised in one batch
        for p in parameters:
            by_shape[p.shape].append(p)
        for (rows, columns), matrices in by_shape.items():
            for p in matrices:
                self.state[p].setdefault("momentum", torch.zeros_like(p))
            momenta = [self.state[p]["momentum"] for p in matrices]
            gradients = [p.grad for p in matrices]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's look-ahead
            # bf16 is the tensor cores' speed on CUDA; on a CPU without bf16 units it is five times slower than fp32
            update = torch.stack(ahead).to(torch.bfloat16 if ahead[0].is_cuda else torch.float32)
            update = orthogonalize(update, self.coefficients).to(matrices[0].dtype)
            torch._foreach_mul_(matrices, 1 - group["lr"] * group["weight_decay"])
            # a tall matrix's update is scaled so that its effect on the output keeps its size (the post's sqrt rule)
            scale = -group["lr"] * max(1, rows / columns) ** 0.5
            torch._foreach_add_(matrices, list(update.unbind()), alpha=scale)

    def _step_adamw(self, group: dict, parameters: list[nn.Parameter]) -> None:
        for p in parameters:
            if not self.state[p]:
                self.state[p].update(
                    step=torch.zeros((), dtype=torch.float32, device=p.device),
                    exp_avg=torch.zeros_like(p),
                    exp_avg_sq=torch.zeros_like(p),
                )
        states = [self.state[p] for p in parameters]
        adamw(
            parameters,
            [p.grad for p in parameters],
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """(hidden matrices, embeddings and head, vectors): what Muon may have, what it may not, what is never decayed."""
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    head = model.get_output_embeddings()
    tables |= {id(p) for p in head.parameters()} if head is not None else set()
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim == 2 and id(p) not in tables]
    embeddings = [p for p in parameters if p.ndim >= 2 and (id(p) in tables or p.ndim > 2)]
    vectors = [p for p in parameters if p.ndim < 2]
    return matrices, embeddings, vectors


def build_optimizer(model: nn.Module, recipe) -> torch.optim.Optimizer:
    """The optimizer a `TrainRecipe` asks for; a group keeps its peak rate as `peak_lr`, which the schedule scales."""
    matrices, embeddings, vectors = parameter_groups(model)
    rate, other = recipe.learning_rate, recipe.embedding_learning_rate or recipe.learning_rate
    adam = {"betas": (recipe.beta1, recipe.beta2)}
    muon = {"use_muon": True, "momentum": recipe.momentum} if recipe.optimizer == "muon" else adam
    groups = [
        {"params": matrices, "lr": rate, "weight_decay": recipe.weight_decay, **muon},
        {"params": embeddings, "lr": other, "weight_decay": recipe.weight_decay, **adam},
        {"params": vectors, "lr": other if recipe.optimizer == "muon" else rate, "weight_decay": 0.0, **adam},
    ]
    groups = [{**group, "peak_lr": group["lr"]} for group in groups if group["params"]]
    if recipe.optimizer == "muon":
        return Muon(groups)
    if recipe.optimizer in OF_BITSANDBYTES:
        import bitsandbytes

        return getattr(bitsandbytes.optim, OF_BITSANDBYTES[recipe.optimizer])(groups, eps=1e-8)
    return torch.optim.AdamW(groups, eps=1e-8, fused=True)
