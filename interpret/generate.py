"""`python -m interpret.generate`: let a model write, and see how likely each token was to it.

May import `hub` and `data`. Reads the command line and prints; the writing is in `interpret.writing`, the choice of a
token in `interpret.sampling`.
"""

import json
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import torch
from transformers.utils import logging

from data.console import Parser, cli
from data.workspace import Workspace
from hub.models import open_model
from interpret.chat_cli import converse, typed
from interpret.continuation import Settings
from interpret.sampling import Sampling
from interpret.writing import SEEDS, Token, write

STOPS = {
    "eos": "the model ended its text",
    "length": "stopped by --max-new-tokens",
    "context": "stopped at the model's last position",
}


@dataclass(frozen=True)
class Text:
    """One continuation, done."""

    seed: int
    tokens: list[Token]
    seconds: float

    @property
    def text(self) -> str:
        return "".join(token.text for token in self.tokens)


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    sampling = Sampling(given.greedy, given.temperature, given.top_k, given.top_p, given.repetition_penalty)
    logging.disable_progress_bar()  # weights are read in a moment, and the text is what should be seen
    model, tokenizer = open_model(given.run, Workspace(given.workspace))
    if getattr(model, "hf_quantizer", None) is None:  # what is quantised computes where it was opened
        model.to(given.device)

    first = secrets.randbelow(2**31) if given.seed is None else given.seed
    if given.chat:
        settings, messages = (
            Settings(sampling, given.max_new_tokens, first),
            [given.prompt] if given.prompt else typed(),
        )
        converse(given.run, model, tokenizer, settings, messages, Workspace(given.workspace))
        return 0
    texts = []
    for seed in range(first, first + given.count):  # one for each text: any of them can be had again alone
        tokens = write(model, tokenizer, given.prompt, sampling, given.max_new_tokens, seed, given.probabilities or 0)
        texts.append(collect(seed, tokens) if given.json else show(given, seed, tokens))
    if given.json:
        print(json.dumps(record(given, sampling, texts), indent=2, ensure_ascii=False))
    return 0


def parse(arguments: list[str] | None):
    parser = Parser(
        prog="python -m interpret.generate",
        description="Let a model continue a text. By default it draws from its own distribution, nothing cut off.",
        epilog="examples:\n"
        "  python -m interpret.generate latest --prompt 'One sunny day,'\n"
        "  python -m interpret.generate latest@best --greedy --probabilities\n"
        "  python -m interpret.generate latest --chat\n"
        "  python -m interpret.generate Qwen/Qwen3-0.6B --prompt 'To be' --temperature 0.7 --top-p 0.9 --seed 1",
    )
    devices = ["cpu"] if not torch.accelerator.is_available() else [torch.accelerator.current_accelerator().type, "cpu"]
    add = parser.add_argument
    add("run", metavar="RUN[@REVISION]", help="a run's id, name or `latest`; a folder; an id on the Hub")
    add("--prompt", metavar="TEXT", default="", help="what to continue (default: nothing, the beginning of a text)")
    add("--chat", action="store_true", help="converse: each line you type is a message; with --prompt that one alone")
    add("--max-new-tokens", metavar="N", type=int, default=200, help="write at most N tokens (default: 200)")
    add("--greedy", action="store_true", help="always the likeliest token, instead of drawing one")
    add(
        "--temperature", metavar="T", type=float, default=1.0, help="below 1 more cautious, above 1 bolder (default: 1)"
    )
    add("--top-k", metavar="K", type=int, help="draw from the K likeliest tokens only")
    add("--top-p", metavar="P", type=float, help="draw from the fewest tokens that together have probability P only")
    add("--repetition-penalty", metavar="R", type=float, default=1.0, help="above 1 avoids what occurred (default: 1)")
    add("--seed", metavar="N", type=int, help="the same seed writes the same text (default: a new one each time)")
    add("--count", metavar="N", type=int, default=1, help="write N texts, each with the next seed (default: 1)")
    add(
        "--probabilities", metavar="K", type=int, nargs="?", const=5,
        help="show each token's probability and the K likeliest others (default: 5): the model's own, at temperature 1 "
        "over the whole vocabulary, and beside it the probability it was drawn with under the settings",
    )  # fmt: skip
    add("--json", action="store_true", help="print the result for programs")
    add("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    add("--threads", metavar="N", type=int, help="processor threads (default: torch's choice)")
    add("--device", choices=devices, default=devices[0], help=f"where to compute (default: {devices[0]})")
    given = parser.parse_args(arguments)
    for name, least in (("max_new_tokens", 1), ("count", 1), ("threads", 1), ("probabilities", 0), ("seed", 0)):
        value = getattr(given, name)
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} {value} must be at least {least}")
    if given.seed is not None and given.seed + given.count > SEEDS:
        raise ValueError(f"--seed {given.seed} must be below 2^64, and so must the seed of each of --count texts")
    if given.chat and (given.json or given.count > 1 or given.probabilities is not None):
        raise ValueError("--chat prints one conversation: leave --json, --count and --probabilities out")
    if given.greedy and given.count > 1:
        raise ValueError(f"--greedy writes the same text every time: --count {given.count} makes no sense with it")
    return given


def collect(seed: int, tokens: Iterable[Token]) -> Text:
    """Wait for all tokens."""
    begin = time.perf_counter()
    return Text(seed, list(tokens), time.perf_counter() - begin)


def show(given, seed: int, tokens: Iterable[Token]) -> Text:
    """Print a text, or a table of its tokens, as they come; then how it went."""
    if given.count > 1:
        print(f"── seed {seed} ──")
    printed = show_text if given.probabilities is None else show_table
    text = collect(seed, printed(given.prompt, tokens))
    how = "greedy" if given.greedy else f"seed {seed}"
    count, rate = len(text.tokens), len(text.tokens) / text.seconds
    # on stderr, so that what is piped is the text alone
    print(f"[{count:,} tokens, {rate:,.0f} a second, {how}; {STOPS[text.tokens[-1].stop]}]", file=sys.stderr)
    return text


def show_text(prompt: str, tokens: Iterable[Token]) -> Iterator[Token]:
    """Print the text as it comes."""
    started = False
    for token in tokens:
        if not started:  # only now is it sure that the prompt was taken
            print(prompt, end="")
            started = True
        print(token.text, end="", flush=True)
        yield token
    print(flush=True)


def show_table(prompt: str, tokens: Iterable[Token]) -> Iterator[Token]:
    """Print a line for each token as it comes, and the text at the end."""
    text = prompt
    for n, token in enumerate(tokens):
        if n == 0:
            print("  model   drawn  rank  token           runners-up")
        others = "  ".join(f"{quote(other.token)} {percent(other.probability)}" for other in token.runners_up)
        numbers = f"{percent(token.probability):>7} {percent(token.drawn_with):>7} {token.rank:>5}"
        print(f"{numbers}  {quote(token.token):<14}  {others}".rstrip(), flush=True)
        text += token.text
        yield token
    print(f"\n{text}", flush=True)


def quote(token: str) -> str:
    """In quotes, so that spaces and line ends can be seen."""
    return json.dumps(token, ensure_ascii=False)


def percent(probability: float) -> str:
    return f"{probability:.1%}"


def record(given, sampling: Sampling, texts: list[Text]) -> dict:
    """Everything needed to write the same again, and what was written."""

    def tokens(text: Text) -> dict:
        return {} if given.probabilities is None else {"tokens": [asdict(token) for token in text.tokens]}

    return {
        "model": given.run,
        "prompt": given.prompt,
        "max_new_tokens": given.max_new_tokens,
        "sampling": asdict(sampling),
        "texts": [
            {
                "seed": text.seed,
                "text": text.text,
                "stop": text.tokens[-1].stop,
                "count": len(text.tokens),
                **tokens(text),
            }
            for text in texts
        ],
    }


if __name__ == "__main__":
    cli(main)
