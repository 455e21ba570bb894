"""What somebody asks a model to write, checked, and what it has written so far.

May import `data`; of ours here `interpret.sampling` and `interpret.writing`. Stands between fields that may hold
anything, on a page or in a program's request, and `write`, which takes settings that mean something.
"""

import math
import secrets
import shlex
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from data.workspace import Workspace
from interpret.sampling import Sampling
from interpret.writing import SEEDS, Token, prompt_ids, write

MOST_TOKENS = 2_000  # of one answer: a page that colours more is slow to look at, and the command writes more
LONGEST_PROMPT = 100_000  # characters; more than any context here, and more would only keep the tokenizer busy

REDRAW = 1 / 15  # seconds between two looks at a growing text; more often is more than the eye wants
DRAWN_PER_SECOND = 5_000  # tokens: all of a text is sent each time, so a long one is drawn less often


@dataclass(frozen=True)
class Settings:
    """How to write: the same for every model that is compared."""

    sampling: Sampling
    max_new_tokens: int
    seed: int

    def command(self, ref: str, prompt: str, workspace: Workspace) -> str:
        """What to type in a terminal for the same text."""
        # a prompt that begins with a dash would be read as a flag
        words = ["python", "-m", "interpret.generate", ref, *([f"--prompt={prompt}"] if prompt[:1] == "-" else [])]
        words += ["--prompt", prompt] if prompt and prompt[0] != "-" else []
        words += ["--max-new-tokens", str(self.max_new_tokens)]
        for name, value in vars(self.sampling).items():
            if name != "greedy" and value != getattr(Sampling, name):  # the class holds the defaults
                words += [f"--{name.replace('_', '-')}", str(value)]
        words += ["--greedy"] if self.sampling.greedy else ["--seed", str(self.seed)]
        words += [] if workspace.root == Workspace().root else ["--workspace", str(workspace.root)]
        return shlex.join(words)


def settings_from(max_new_tokens, greedy, temperature, top_k, top_p, repetition_penalty, seed) -> Settings:
    """The fields as they were filled in: numbers, or text that holds one; an empty seed is drawn.

    Empty `top_k` and `top_p` keep all tokens. Where nothing is drawn, the three settings of the draw do not matter.
    Raises ValueError that names the first field which holds something else.
    """
    count = _within("new tokens", _whole("new tokens", max_new_tokens), 1, MOST_TOKENS)
    seed = _whole("seed", seed)
    penalty = _needed("repetition penalty", _number("repetition penalty", repetition_penalty))
    draw = {}
    if not greedy:
        draw["temperature"] = _needed("temperature", _number("temperature", temperature))
        draw |= {"top_k": _whole("top-k", top_k), "top_p": _number("top-p", top_p)}
    return Settings(
        Sampling(bool(greedy), repetition_penalty=penalty, **draw),
        max_new_tokens=count,
        # short enough to be read aloud; any other is taken too
        seed=secrets.randbelow(2**31) if seed is None else _within("seed", seed, 0, SEEDS - 1),
    )


@dataclass(eq=False)  # two texts are never the same one
class Continuation:
    """A text in the making: what one model makes of a prompt. Holds nothing of the model itself."""

    ref: str
    prompt: str
    settings: Settings
    prompt_tokens: int
    context: int | None  # positions that the model was made for; None: it does not say
    tokens: list[Token] = field(default_factory=list)
    seconds: float = 0.0
    stop: str | None = None  # why it ended: as in Token, or "stopped" by who asked for it; None: it goes on

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)

    @property
    def rate(self) -> float:
        """Tokens a second, the reading of the prompt included."""
        return len(self.tokens) / self.seconds if self.seconds else 0.0

    @property
    def nats(self) -> float:
        """Mean negative log-likelihood of a token in nats: the loss that training would compute for this text."""
        if any(token.probability == 0 for token in self.tokens):  # underflow: less than float32 can tell
            return math.inf
        return -sum(math.log(token.probability) for token in self.tokens) / len(self.tokens)

    @property
    def beyond(self) -> int:
        """How many of its tokens stand further back than the model was made for, where texts get worse."""
        length = self.prompt_tokens + len(self.tokens)
        return max(0, length - self.context) if self.context else 0


def start(
    ref: str,
    model,
    tokenizer,
    prompt: str,
    settings: Settings,
    ids: list[int] | None = None,
    ends: Collection[int] = (),
) -> tuple[Continuation, Iterator[Token]]:
    """A text that has not begun, and the tokens it will be made of. Raises ValueError for a prompt that does not fit.

    Args:
        ref: what the model is called.
        ids: the prompt's tokens where they are not simply those of its text, as in a chat.
        ends: tokens that end the text besides the model's own.
    """
    check_length(prompt)
    ids = prompt_ids(model, tokenizer, prompt) if ids is None else ids
    context = getattr(model.config, "max_position_embeddings", None)
    if context and len(ids) >= context:
        raise ValueError(
            f"that is {len(ids):,} tokens to read, and {ref} was made for {context:,} with its own text: shorten it"
        )
    tokens = write(model, tokenizer, ids, settings.sampling, settings.max_new_tokens, settings.seed, also_end=ends)
    return Continuation(ref, prompt, settings, len(ids), context), tokens


def check_length(prompt: str) -> None:
    """Raises ValueError where a prompt is no text, or too long to be looked at at all."""
    if not isinstance(prompt, str):
        raise ValueError(f"the prompt {_shown(prompt)} is no text")
    if len(prompt) > LONGEST_PROMPT:
        raise ValueError(f"the prompt has {len(prompt):,} characters: shorten it to {LONGEST_PROMPT:,} at most")


def take_turns(started: list[tuple[Continuation, Iterator[Token]]]) -> Iterator[None]:
    """One token of each text, again and again until all have ended; every `next` is one round.

    Who sets a text's `stop` from outside ends it before its next token.
    """
    while live := [(text, tokens) for text, tokens in started if text.stop is None]:
        for text, tokens in live:
            begin = time.perf_counter()
            token = next(tokens)
            text.seconds += time.perf_counter() - begin
            text.tokens.append(token)
            text.stop = token.stop or text.stop
        yield


def end(texts: list[Continuation]) -> None:
    """Whoever still writes one of them sees it before the next token, wherever a page's cancelling reaches."""
    for text in texts:
        text.stop = text.stop or "stopped"


def paced(rounds: Iterator[None], texts: list[Continuation]) -> Iterator[None]:
    """Those of the rounds after which the texts should be drawn anew."""
    drawn = time.monotonic()
    for _ in rounds:
        if time.monotonic() - drawn >= max(REDRAW, sum(len(text.tokens) for text in texts) / DRAWN_PER_SECOND):
            yield
            drawn = time.monotonic()


def _number(name: str, value) -> float | None:
    """None for an empty field. Raises ValueError where it holds no number."""
    if value is None or str(value).strip() == "":
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} {_shown(value)} is not a number") from None


def _whole(name: str, value) -> int | None:
    if isinstance(value, int):
        return value
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal() and len(value) < 100:
        return int(value)  # all its digits, which a float would round
    found = _number(name, value)
    if found is not None and not found.is_integer():
        raise ValueError(f"{name} {_shown(value)} is not a whole number")
    return None if found is None else int(found)


def _needed(name: str, value):
    if value is None:
        raise ValueError(f"{name} is empty: write a number, 1 where nothing should change")
    return value


def _within(name: str, value: int | None, low: int, high: int) -> int:
    if value is None:
        raise ValueError(f"{name} is empty: write a number from {low:,} to {high:,}")
    if not low <= value <= high:
        raise ValueError(f"{name} {_shown(value)} must be from {low:,} to {high:,}")
    return value


def _shown(value) -> str:
    """What somebody wrote, no more of it than can be recognised."""
    text = f"{value!r}"
    return text if len(text) <= 24 else f"{text[:24]}…"
