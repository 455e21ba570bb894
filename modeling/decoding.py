"""Generation one token at a time without the library's bookkeeping: for streaming and sampling.

The model's own layers run on a cache that is allocated once, so nothing here knows a kind of attention, position or
norm. Imports torch and the library's cache type.

Shapes: B batch, T time, L the whole length, S keys, G key/value heads, D head dim, V vocabulary.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache


@dataclass
class Step:
    """One generated token for each row. Made in inference mode: clone a tensor before a gradient is to pass it."""

    token_ids: Tensor  # (B,)
    logits: Tensor  # (B, V) as the model gave them, before penalty, temperature and filters


def decode(
    model,
    input_ids: Tensor,
    *,
    max_new_tokens: int,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    generator: torch.Generator | None = None,
    eos_token_id: int | list[int] | tuple[int, ...] | None = None,
) -> Iterator[Step]:
    """Continue each row of `input_ids` (B, T), none of it padding; the arguments mean what they mean to `generate`.

    Args:
        eos_token_id: ends a row; None: the model's own; `()`: nothing does. A row that has ended gives padding (or its
            end token again) until all have.
    """
    check_sampling(max_new_tokens, temperature, top_k, top_p, repetition_penalty)
    model.model.positions.check_length(input_ids.shape[1] + max_new_tokens - 1)  # the last token is not read again

    def choose(logits: Tensor, text: Tensor) -> Tensor:
        scores = penalized(logits, text, repetition_penalty)
        if not do_sample:
            return scores.argmax(-1)
        probabilities = filtered(scores / temperature, top_k, top_p).softmax(-1)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    ends = model.generation_config.eos_token_id if eos_token_id is None else eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or ())
    return steps(model, input_ids, max_new_tokens, choose, torch.tensor(ends, device=input_ids.device))


@torch.inference_mode()  # as a decorator: inside a generator, `with` would hold for the caller's code as well
def steps(model, text: Tensor, max_new_tokens: int, choose: Callable, ends: Tensor) -> Iterator[Step]:
    """The loop: choose a token from the logits, give it out, read it."""
    pad = model.generation_config.pad_token_id
    ended = torch.zeros(len(text), dtype=torch.bool, device=text.device)
    with evaluating(model):
        decoder = Decoder(model, text, max_new_tokens)
        logits = decoder.logits
        for left in reversed(range(max_new_tokens)):
            token_ids = choose(logits, text)
            if len(ends):
                token_ids = torch.where(ended, ends[0] if pad is None else pad, token_ids)
                ended = ended | torch.isin(token_ids, ends)
            yield Step(token_ids, logits)
            if left == 0 or (len(ends) and ended.all()):
                return
            text = torch.cat((text, token_ids[:, None]), dim=1)
            logits = decoder.read(token_ids)


class Decoder:
    """A model in the middle of a text: `logits` for the next token, and `read` to go on by one."""

    def __init__(self, model, input_ids: Tensor, max_new_tokens: int):
        B, T = input_ids.shape
        length = T + max_new_tokens
        prompt = model(input_ids, use_cache=True, logits_to_keep=1)
        self.logits = prompt.logits[:, -1]  # (B, V)
        self.model = with_fast_linears(model, B)
        self.cache = model.model.layers[0].self_attn.decoding_cache(prompt.past_key_values, T, length)
        self.next_position = T
        self.position_ids = torch.arange(length, device=input_ids.device)[None]  # (1, L)
        self.rotation = self.model.model.positions.rotation(self.logits, self.position_ids)  # (1, 1, L, R/2) or None

    def read(self, token_ids: Tensor) -> Tensor:
        """One token for each row (B,) -> logits of the next (B, V).

        The model's own forward less what one token needs no more: no mask, no tables, no outputs to collect.
        """
        body, here = self.model.model, slice(self.next_position, self.next_position + 1)
        position_ids = self.position_ids[:, here]
        x = body.positions.embed(body.embed_tokens(token_ids[:, None]), position_ids)  # (B, 1, C)
        context = {
            "rotation": self.rotation and tuple(part[:, :, here] for part in self.rotation),
            "attention_mask": body.positions.bias(None, x, self.cache),
            "position_ids": position_ids,
            "past_key_values": self.cache,
        }
        for layer in body.layers:
            x = layer(x, **context)
        self.next_position += 1
        return self.model.soft_cap(self.model.lm_head(body.norm(x)))[:, -1]


class FixedCache:
    """Keys and values of all layers in tensors of the final length: nothing grows, nothing is copied.

    Answers what the layers and positions ask of a cache of the library's.
    """

    def __init__(self, prompt: Cache, seen: int, length: int, window: int | None):
        self.seen = seen
        self.window = window or length
        self.layers = [tuple(self._extend(x, length) for x in (layer.keys, layer.values)) for layer in prompt.layers]

    def _extend(self, x: Tensor, length: int) -> Tensor:
        """(B, G, S, D) at the place of its last S tokens (a sliding cache keeps no others) -> (B, G, L, D)."""
        buffer = x.new_zeros(*x.shape[:2], length, x.shape[-1])
        buffer[:, :, self.seen - x.shape[2] : self.seen] = x
        return buffer

    def update(self, k: Tensor, v: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Write one token (B, G, 1, D); give all it may look at, (B, G, S, D)."""
        keys, values = self.layers[layer_idx]
        keys[:, :, self.seen] = k[:, :, 0]
        values[:, :, self.seen] = v[:, :, 0]
        visible = slice(self._first(), self.seen + 1)
        if layer_idx == len(self.layers) - 1:
            self.seen += 1
        return keys[:, :, visible], values[:, :, visible]

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return self.seen + query_length - self._first(), self._first()

    def _first(self) -> int:
        return max(0, self.seen + 1 - self.window)


class VectorLinear(nn.Module):
    """A linear layer for few rows on a CPU: slices of the matrix, as a batch, times the input as columns.

    As one product with one row the kernels measured 2 to 5 times slower, and on one thread however many there are
    (torch 2.13 with MKL: 3.9 ms and 3.8 ms for the matrices of a 10 M model on one and two threads, here 1.8 and 0.9).
    """

    MOST_ROWS = 4  # from there on one product is as fast

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias  # shared, not copied
        self.slices = next((n for n in range(2, 65) if linear.out_features % n == 0), 1)

    def forward(self, x: Tensor) -> Tensor:
        columns = x.flatten(0, -2).t().expand(self.slices, -1, -1)  # (B, 1, C) -> (N, C, B)
        y = torch.bmm(self.weight.view(self.slices, -1, x.shape[-1]), columns)  # (N, F/N, B)
        y = y.flatten(0, 1).t().view(*x.shape[:-1], -1)  # (B, 1, F)
        return y if self.bias is None else y + self.bias


def with_fast_linears(module: nn.Module, rows: int) -> nn.Module:
    """The same modules on the same weights, the plain linear layers among them replaced where that pays."""
    if type(module) is nn.Linear:  # a subclass (quantised, adapted) knows better what it does
        on_cpu = module.weight.device.type == "cpu" and module.weight.dtype == torch.float32
        return VectorLinear(module) if on_cpu and rows <= VectorLinear.MOST_ROWS else module
    twin = copy.copy(module)
    twin._modules = {name: with_fast_linears(child, rows) for name, child in module._modules.items()}
    return twin


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout inside the block, whatever it was before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def check_sampling(max_new_tokens, temperature, top_k, top_p, repetition_penalty) -> None:
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be above 0; for the likeliest token use do_sample=False")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1; leave it out to keep all tokens")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p} must be above 0 and at most 1")
    if repetition_penalty <= 0:
        raise ValueError(f"repetition_penalty={repetition_penalty} must be above 0; 1 changes nothing")


def penalized(logits: Tensor, text: Tensor, penalty: float) -> Tensor:
    """Tokens of the text so far become less likely (arXiv:1909.05858): divided above 0, multiplied below."""
    if penalty == 1.0:
        return logits
    said = logits.gather(1, text)
    return logits.scatter(1, text, torch.where(said < 0, said * penalty, said / penalty))


def filtered(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """The `top_k` likeliest (arXiv:1805.04833), then the fewest that hold `top_p` of them (arXiv:1904.09751)."""
    if top_k is not None:
        least = logits.topk(min(top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None and top_p < 1.0:
        ascending, order = logits.sort()
        tail = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        tail[:, -1] = False  # the likeliest stays
        logits = logits.masked_fill(tail.scatter(1, order, tail), -torch.inf)
    return logits
