"""What one optimizer step did to each weight: update ratio, spread of the gradient, size of the weights.

May import nothing of ours but `training.sharding`. Costs a copy of the weight matrices and a few passes over them;
every result is a tensor on the device under (measure, parameter's name), to be fetched with all others.
"""

import torch
from torch import Tensor, nn

from training.sharding import whole

Results = dict[tuple[str, str], Tensor]


class StepMeasures:
    """Made before a step, told of the gradients within it, asked after it.

    update_ratio: std(p_after - p_before) / std(p_before) of the real step, for each matrix. One that is still constant
    (zero at the start) has no scale to compare with: its ratio is not finite. update_ratio_sgd: learning rate ·
    std(gradient) / std(p), what plain SGD would have done. Vectors have no ratio.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer):
        self.rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = {name.removesuffix(".weight"): p for name, p in trained}
        self.before = {name: p.detach().clone() for name, p in self.parameters.items() if p.ndim >= 2}
        self.spread = {name: whole(before).std() for name, before in self.before.items()}
        self.found: Results = {}

    def gradients(self, clipped: Tensor | float) -> None:
        """Between clipping and the optimizer's step.

        Args:
            clipped: what clipping multiplied every gradient with; the measures are of the gradient before.
        """
        for name, p in self.parameters.items():
            if p.grad is None or p.numel() < 2:  # a single element has no spread
                continue
            std = whole(p.grad.detach()).float().std() / clipped
            self.found["grad_variance", name] = std.square()
            if name in self.before:
                self.found["update_ratio_sgd", name] = self.rates[id(p)] * std / self.spread[name]

    def results(self) -> Results:
        """After the step."""
        for name, before in self.before.items():
            after = self.parameters[name].detach()
            self.found["update_ratio", name] = whole(after - before).std() / self.spread[name]
            self.found["weight_rms", name] = whole(after).float().square().mean().sqrt()
        return self.found
