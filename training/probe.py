"""One look inside the model on fixed inputs: units, residual stream, attention, logits, and copying from the context.

May import nothing of ours but `training.attention_probe`. Modules are found by structure and by the names the library's
models give them, so that any causal language model is measured where it can be; what it has not is left out. Every
result is a tensor on the device under (measure, module's name).

Shapes: B rows, T tokens, F feed-forward units, V vocabulary, R random tokens.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.attention_probe import Repeats, Spread, measuring

PROBE_TOKENS = 4096  # units are judged on a fixed batch of at least so many tokens
ATTENTION_TOKENS = 1024  # heads on fewer: their scores cost most of a look, and their means settle sooner
REPEATED_ROWS = 8
REPEATED_TOKENS = 64  # of each row, at most, before they come again
# The last matrix of a feed-forward block, by the names the library's models give it: its inputs are the activations.
DOWN_PROJECTION = re.compile(r"\.(mlp\.(down_proj|c_proj|fc2|fc_out|dense_4h_to_h)|\d+\.fc2)$")
RELU_FAMILY = ("relu", "relu2", "relu6", "relu_squared")
NEARLY_ZERO = 1e-3  # of the layer's RMS: a GELU or SiLU unit is never exactly 0

Results = dict[tuple[str, str], Tensor]


class Units:
    """Dead and inactive units of one feed-forward block, over all tokens that pass."""

    def __init__(self, relu: bool):
        self.relu, self.tokens = relu, 0
        self.peak = self.squares = self.inactive = torch.zeros(())

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        units = inputs[0].flatten(0, -2).float()  # (B*T, F)
        low, high = units.aminmax(dim=0)
        squares = torch.linalg.vector_norm(units, dim=1).square().sum() / units.shape[1]
        sums = torch.maximum(-low, high), squares, (units <= 0).sum() / units.shape[1]
        if not self.tokens:
            self.peak, self.squares, self.inactive = sums
        else:
            self.peak = torch.maximum(self.peak, sums[0])
            self.squares, self.inactive = self.squares + sums[1], self.inactive + sums[2]
        self.tokens += len(units)

    def results(self, name: str) -> Results:
        """The percentage silent on every token, and the share of activations at or below 0.

        Silent: exactly 0 where the activation can be (ReLU), else below 1e-3 of the layer's RMS.
        """
        threshold = 0.0 if self.relu else NEARLY_ZERO * (self.squares / self.tokens).sqrt()
        dead = (self.peak <= threshold).float().mean() * 100
        return {("dead_perc", name): dead, ("inactive_frac", name): self.inactive / self.tokens}


class Stream:
    """Root mean square of the residual stream behind one layer."""

    def __init__(self):
        self.squares, self.tokens = torch.zeros(()), 0

    def __call__(self, _module: nn.Module, _inputs, output: Tensor | tuple[Tensor, ...]) -> None:
        x = (output[0] if isinstance(output, tuple) else output).float()  # (B, T, C)
        self.squares = self.squares.to(x.device) + torch.linalg.vector_norm(x, dim=-1).square().sum() / x.shape[-1]
        self.tokens += x.shape[0] * x.shape[1]

    def results(self, name: str) -> Results:
        return {("residual_rms", name): (self.squares / self.tokens).sqrt()}


class Probe:
    """Fixed inputs, and what the model does with them.

    Args:
        ids: (B, T) text the model has to read, the same at each measurement.
        rows: how many of them at once; a training step's micro-batch is known to fit the memory.
    """

    def __init__(self, model: nn.Module, ids: Tensor, rows: int):
        self.model, self.ids, self.rows = model, ids, rows
        self.repeated = repeated_tokens(model.config.vocab_size, ids.shape[1]).to(ids.device)

    @torch.no_grad()
    def measure(self) -> Results:
        """The model is left as it was: evaluation mode, hooks and the swapped attention are gone afterwards."""
        names = {module: name for name, module in self.model.named_modules()}
        spread, repeats = Spread(), Repeats()
        largest, z = [], []
        with evaluating(self.model):
            with watched(self.model) as watchers:
                for ids, attention in self.halves(spread):
                    with attention:
                        for logits in self.read(ids):
                            largest.append(logits.abs().amax())
                            z.append(logits.logsumexp(-1).flatten())
            found: Results = {("logit_max", ""): torch.stack(largest).amax(), ("logit_z", ""): torch.cat(z).mean()}
            for name, watcher in watchers.items():
                found |= watcher.results(name)
            if len(self.repeated):
                with measuring(self.model, repeats):
                    found["in_context_score", ""] = in_context_score(list(self.read(self.repeated)), self.repeated)
        return found | spread.results(names) | repeats.results(names)

    def halves(self, spread: Spread) -> Iterator[tuple[Tensor, AbstractContextManager]]:
        """The rows whose attention is measured, and the rest, if any, each with how it is to be read."""
        rows = -(-ATTENTION_TOKENS // self.ids.shape[1])
        yield self.ids[:rows], measuring(self.model, spread)
        if rows < len(self.ids):
            yield self.ids[rows:], nullcontext()

    def read(self, ids: Tensor) -> Iterator[Tensor]:
        """Logits (b, T, V), as many rows at a time as the memory is known to hold."""
        for rows in ids.split(self.rows):
            yield self.model(input_ids=rows, use_cache=False).logits.float()


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, Units | Stream]]:
    """Inside the block each layer's residual stream and each feed-forward block's units are watched, by name."""
    activation = getattr(model.config, "hidden_act", None) or getattr(model.config, "activation_function", "")
    watchers: dict[str, Units | Stream] = {}
    handles = []
    for name, block in layers(model).items():
        watchers[name] = Stream()
        handles.append(block.register_forward_hook(watchers[name]))
    for name, module in model.named_modules():
        if DOWN_PROJECTION.search(name):
            watchers[name] = Units(activation in RELU_FAMILY)
            handles.append(module.register_forward_pre_hook(watchers[name]))
    try:
        yield watchers
    finally:
        for handle in handles:
            handle.remove()


def layers(model: nn.Module) -> dict[str, nn.Module]:
    """The model's layers by name: its first list of as many modules as its configuration has hidden layers."""
    count = getattr(model.config, "num_hidden_layers", None)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return {f"{name}.{i}": layer for i, layer in enumerate(module)}
    return {}


def repeated_tokens(vocabulary: int, context: int) -> Tensor:
    """(rows, 2R) ids: R different random tokens, then the same again; no rows where not even two fit twice."""
    length = min(context // 2, REPEATED_TOKENS, vocabulary)
    if length < 2:
        return torch.zeros(0, 0, dtype=torch.long)
    random = np.random.Generator(np.random.Philox(key=0))  # the same for every run
    # different ones: a token that comes twice by chance would have two places to be copied from
    halves = np.stack([random.permutation(vocabulary)[:length] for _ in range(REPEATED_ROWS)])
    return torch.from_numpy(np.concatenate((halves, halves), axis=1)).long()


def in_context_score(logits: list[Tensor], ids: Tensor) -> Tensor:
    """Loss inside the first copy minus loss inside the second, nats per token; the step between them is left out."""
    losses = F.cross_entropy(torch.cat(logits)[:, :-1].mT, ids[:, 1:], reduction="none")  # (rows, 2R-1)
    half = ids.shape[1] // 2
    return losses[:, : half - 1].mean() - losses[:, half:].mean()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block, whatever mode it was afterwards: dropout must not touch a measurement."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
