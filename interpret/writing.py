"""A model continues a prompt, token by token: each with its probability and what else might have stood there.

Imports `interpret.sampling`. Works on any causal language model that `hub.models` opened, and gives plain values, so
that the command and a page can show the same.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from inspect import signature

import torch
from torch import Tensor, nn
from transformers.convert_slow_tokenizer import bytes_to_unicode

from interpret.sampling import Sampling, distribution

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what a decoder shows for bytes that are not a whole character (yet)
BYTES = {letter: byte for byte, letter in bytes_to_unicode().items()}  # byte-level vocabularies write a letter a byte
SEEDS = 2**64  # a random generator of torch tells as many apart
DIVERGED = "the model's scores are not numbers: its training diverged, or its weights are damaged"


@dataclass(frozen=True)
class Candidate:
    """A token that might have been chosen."""

    id: int
    token: str
    probability: float


@dataclass(frozen=True)
class Token:
    """One token the model wrote.

    `probability` and those of the runners-up are the model's own: softmax of its logits over the whole vocabulary, at
    temperature 1. `drawn_with` is the probability that the settings made of it.
    """

    id: int
    token: str  # its own spelling
    text: str  # what it adds to the text: nothing while a character waits for its other bytes
    probability: float
    drawn_with: float
    rank: int  # 1: the model found no token likelier
    runners_up: tuple[Candidate, ...]  # the likeliest other tokens
    stop: str | None = None  # why the text ends here: "eos", "length" or "context"


@torch.inference_mode()  # as a decorator it holds inside only, never for whoever receives the tokens
def write(
    model,
    tokenizer,
    prompt: str | list[int],
    sampling: Sampling | None = None,
    max_new_tokens: int = 200,
    seed: int = 0,
    runners_up: int = 5,
    also_end: Collection[int] = (),
) -> Iterator[Token]:
    """Continue `prompt` until the model ends its text, `max_new_tokens` are written, or no position is left.

    The texts of all tokens together are exactly what follows the prompt. Raises ValueError, at the first token, where
    the prompt does not fit.

    Args:
        prompt: a text, read behind the token that begins every document; or tokens, read as they are.
        also_end: tokens that end this text besides the model's own, such as the end of a turn in a chat.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be at least 1")
    if runners_up < 0:
        raise ValueError(f"runners_up={runners_up} must be at least 0")
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed={seed} must be at least 0 and below 2^64")
    sampling = sampling or Sampling()
    ids = prompt_ids(model, tokenizer, prompt) if isinstance(prompt, str) else list(prompt)
    room = positions_left(model, len(ids))
    count = max_new_tokens if room is None else min(max_new_tokens, room)
    ends, text = end_tokens(model, tokenizer) | set(also_end), TextStream(tokenizer, ids)
    generator = torch.Generator(model.device).manual_seed(seed)

    for n, (chosen, logits) in enumerate(steps(model, ids, count, sampling, generator), start=1):
        stop = None
        if chosen in ends:
            stop = "eos"
        elif n == count:
            stop = "length" if count == max_new_tokens else "context"
        own = logits.float().softmax(-1)  # (V,)
        if own.isnan().any():
            raise ValueError(DIVERGED)
        drawn = distribution(logits, torch.tensor(ids, device=logits.device), sampling)
        likeliest = own.topk(min(runners_up + 1, len(own)))
        others = [(i, p) for p, i in zip(*map(Tensor.tolist, likeliest), strict=True) if i != chosen]
        yield Token(
            id=chosen,
            token=spell(tokenizer, chosen),
            text=("" if stop == "eos" else text.add(chosen)) + (text.rest() if stop else ""),
            probability=float(own[chosen]),
            drawn_with=float(drawn[chosen]),
            rank=1 + int((own > own[chosen]).sum()),
            runners_up=tuple(Candidate(i, spell(tokenizer, i), p) for i, p in others[:runners_up]),
            stop=stop,
        )
        if stop:
            return
        ids.append(chosen)


def steps(
    model, ids: list[int], count: int, sampling: Sampling, generator: torch.Generator
) -> Iterator[tuple[int, Tensor]]:
    """The next `count` tokens, each with the logits (V,) it was chosen by."""
    # a model that brings its own decoder knows the fastest way
    way = own_steps if hasattr(model, "decode") else plain_steps
    try:
        yield from way(model, ids, count, sampling, generator)
    except RuntimeError as error:
        if "probability tensor" not in str(error):  # what torch says when it is to draw by numbers that are none
            raise
        raise ValueError(DIVERGED) from error


def own_steps(
    model, ids: list[int], count: int, sampling: Sampling, generator: torch.Generator
) -> Iterator[tuple[int, Tensor]]:
    """The same by the decoder that travels with a model's weights."""
    for step in model.decode(
        torch.tensor([ids], device=model.device),
        max_new_tokens=count,
        do_sample=not sampling.greedy,
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        generator=generator,
    ):
        yield int(step.token_ids[0]), step.logits[0]


def plain_steps(
    model, ids: list[int], count: int, sampling: Sampling, generator: torch.Generator
) -> Iterator[tuple[int, Tensor]]:
    """The same for any architecture of the library: read what is new, draw, append."""
    seen = torch.tensor([ids], device=model.device)  # (1, T)
    new, memory = seen, {}
    # logits of a long prompt are large, and only the last position's are wanted
    last = {"logits_to_keep": 1} if "logits_to_keep" in signature(model.forward).parameters else {}
    for _ in range(count):
        output = model(input_ids=new, use_cache=True, **memory, **last)
        logits = output.logits[0, -1]
        token = torch.multinomial(distribution(logits, seen[0], sampling), 1, generator=generator)  # (1,)
        yield int(token), logits
        seen = torch.cat((seen, token[None]), dim=1)
        cache = getattr(output, "past_key_values", None)
        new, memory = (seen, {}) if cache is None else (token[None], {"past_key_values": cache})


def prompt_ids(model, tokenizer, prompt: str) -> list[int]:
    """The prompt's tokens behind the one that begins every document, where the tokenizer has one."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    bos = tokenizer.bos_token_id
    if not ids and bos is None:  # a prompt can do without; an empty one needs something to go on from
        bos = getattr(model.config, "bos_token_id", None)
        bos = tokenizer.eos_token_id if bos is None else bos
        if bos is None:
            raise ValueError("this model has no token that begins a text: write a prompt")
    ids = ids if bos is None or ids[:1] == [bos] else [bos, *ids]
    entries = model.get_input_embeddings().weight.shape[0]
    if max(ids) >= entries:
        raise ValueError(f"the tokenizer does not fit the model: it gives token {max(ids)}, the model knows {entries}")
    return ids


def positions_left(model, length: int) -> int | None:
    """How many tokens fit behind a prompt of `length`; None where positions are computed and never end.

    Only a model with a vector learned for each position has a last one. Others go on, the worse the further they are
    beyond what they were trained on.
    """
    names = (name.rsplit(".", 1)[-1] for name, module in model.named_modules() if isinstance(module, nn.Embedding))
    if not any(name == "wpe" or "position" in name for name in names):  # GPT-2's name for it, and everyone else's
        return None
    context = model.config.max_position_embeddings
    if length >= context:
        raise ValueError(
            f"the prompt is {length:,} tokens long and this model has {context:,} positions in all, "
            "with none beyond: shorten it"
        )
    return context - length


def end_tokens(model, tokenizer) -> set[int]:
    """The tokens that end a text: the model's (a chat model has several), and the tokenizer's."""
    settings = getattr(model, "generation_config", None)
    ends = getattr(settings, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    return {end for end in (*ends, tokenizer.eos_token_id) if end is not None}


def spell(tokenizer, token_id: int) -> str:
    """A token by itself: its text, or its bytes (`<0xF0>`) where that is only a part of a character."""
    text = tokenizer.decode([token_id], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    if text and UNFINISHED not in text:
        return text
    entry = tokenizer.convert_ids_to_tokens(token_id) or ""  # models round their vocabulary up: some ids have no entry
    if entry.isascii() or not all(letter in BYTES for letter in entry):
        return entry
    return "".join(f"<0x{BYTES[letter]:02X}>" for letter in entry)


class TextStream:
    """Token ids in, text out, as soon as it is certain; printed text cannot be taken back.

    A character can be spread over several tokens (an emoji is four bytes), so text that ends unfinished waits. And a
    token's text can depend on what stands before it (some decoders drop a space at the very beginning), so new tokens
    are decoded together with the piece before them, and what that piece said is cut off.
    """

    def __init__(self, tokenizer, ids: list[int]):
        self.tokenizer = tokenizer
        self.told, self.waiting = list(ids), []  # the last piece that was given out, and what came since

    def add(self, token_id: int) -> str:
        self.waiting.append(token_id)
        return "" if self._decode(self.told + self.waiting).endswith(UNFINISHED) else self.rest()

    def rest(self) -> str:
        """All that waits, finished or not."""
        text = self._decode(self.told + self.waiting)[len(self._decode(self.told)) :]
        # a piece without text, a special token, would make what follows it a beginning
        self.told, self.waiting = self.waiting if text else self.told + self.waiting, []
        return text

    def _decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
