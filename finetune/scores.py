"""What a model still can, and whether it can do the new task: `python -m finetune.scores MODEL`.

May import `interpret`, `training`, `hub` and `data`; of ours `finetune.suites`, `stories` and `rendering`. Questions
are answered greedily and are right to the letter or wrong; texts are read. Any causal language model is asked in the
same way, adapters and quantised ones too, and is left as it was.

Shapes: B prompts, T tokens.
"""

import json
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch

from data.console import Parser, cli
from finetune.rendering import answer_end, prompt_of
from finetune.stories import examples, fulfils
from finetune.suites import LEVELS, SUITES, Item, Level, drawn, of_level
from hub.models import open_model
from hub.words import table, text
from interpret.probe_fit import wilson
from interpret.writing import end_tokens
from training.evaluate import Z95, Scores
from training.evaluate import score as read
from training.machine import choose_device
from training.probe import evaluating

BATCH = 50  # prompts answered at once
READ = 8  # texts read at once: a large vocabulary's logits take memory
SPARE = 4  # tokens that an answer may be longer than the longest right one before it is cut off
STORIES_SEED = 1_000_003  # of the stories that the command asks for; examples to train on have small ones


@dataclass(frozen=True)
class Score:
    """How one suite went; the interval holds 95 %.

    Attributes:
        value: of `exact` the share of right answers, of `perplexity` the perplexity: e to the nats per token.
        count: questions or texts.
    """

    value: float
    interval_low: float
    interval_high: float
    count: int
    kind: Literal["exact", "perplexity"]

    @property
    def loss(self) -> float:
        """Of a perplexity, the mean nats per token."""
        return math.log(self.value)


def score(
    model, tokenizer, level: Level = "primer", limit: int | None = None, seed: int = 0, chat: bool = False
) -> dict[str, Score]:
    """Every suite, by its name.

    Args:
        limit: ask so many questions of each suite at most, drawn by `seed`.
        chat: ask through the chat template; else the model goes on with a text. Texts are read alike in both.
    """
    found = {}
    for name, suite in SUITES.items():
        chosen = of_level(level, name)
        chosen = chosen if limit is None else drawn(chosen, limit, seed)
        of_suite = read_texts if suite.kind == "perplexity" else ask
        found[name] = of_suite(model, tokenizer, chosen, chat)
    return found


def ask(model, tokenizer, items: Sequence[Item], chat: bool = False) -> Score:
    """The share of items answered to the letter: the first line of what is written, without a full stop at its end."""
    ends = end_tokens(model, tokenizer)
    if chat:
        ends.add(answer_end(tokenizer))
        prompts = [spoken_to(tokenizer, item.message) for item in items]
    else:
        prompts = [begun(tokenizer, item.prompt) for item in items]
    longest = max(len(tokenizer(f" {item.answer}", add_special_tokens=False)["input_ids"]) for item in items)
    said = answers(model, tokenizer, prompts, longest + SPARE, ends)
    return share([same(text, item.answer) for text, item in zip(said, items, strict=True)])


def begun(tokenizer, text: str) -> list[int]:
    """The ids of a text behind the token that begins every document, where the tokenizer has one."""
    bos = tokenizer.bos_token_id
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids if bos is None else [bos, *ids]


def spoken_to(tokenizer, message: str) -> list[int]:
    """The ids of a message as the chat template writes it, the beginning of the answer behind it."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,  # an answer, where a model would think aloud first; other templates do not read it
    )
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def same(said: str, answer: str) -> bool:
    lines = said.strip().splitlines() or [""]
    return lines[0].strip().removesuffix(".").casefold() == answer.casefold()


def task_score(model, tokenizer, examples: Sequence[dict]) -> Score:
    """The share of `finetune.stories` answered as asked: a whole story of the grammar, every wish in it, and an end.

    Args:
        examples: conversations whose last answer the model is to give.
    """
    prompts, references = zip(*(prompt_of(example, tokenizer) for example in examples), strict=True)
    longest = max(map(len, tokenizer(list(references), add_special_tokens=False)["input_ids"]))
    said = answers(model, tokenizer, prompts, longest + SPARE, {answer_end(tokenizer)})
    requests = [[m["content"] for m in example["messages"] if m["role"] == "user"][-1] for example in examples]
    return share([fulfils(request, text.strip()) for request, text in zip(requests, said, strict=True)])


def read_texts(model, tokenizer, texts: Sequence[str], _chat: bool = False) -> Score:
    """The perplexity of texts, each read by itself; its interval is that of the mean over texts of unequal length."""
    sequences = [np.array(begun(tokenizer, text)) for text in texts]
    scores: Scores = read(model, sequences, READ, model.device)
    loss, n = scores.loss, len(texts)
    # a mean of tokens, of which those of one text hang together: the ratio estimator's error, text by text
    deviations = scores.nats - loss * scores.tokens
    half = Z95 * math.sqrt((deviations**2).sum() * n / (n - 1)) / scores.tokens.sum() if n > 1 else math.inf
    return Score(*(perplexity(nats) for nats in (loss, loss - half, loss + half)), n, "perplexity")


def perplexity(nats: float) -> float:
    return math.exp(min(nats, 700.0))  # beyond that it is no float any more


def share(right: Sequence[bool]) -> Score:
    value = sum(right) / len(right)
    return Score(value, *wilson(value, len(right)), len(right), "exact")


@torch.no_grad()
def answers(model, tokenizer, prompts: Sequence[list[int]], max_new_tokens: int, ends: Collection[int]) -> list[str]:
    """What the model writes behind each prompt, greedily, up to one of `ends` or `max_new_tokens`."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))  # little is padding
    said = [""] * len(prompts)
    with evaluating(model):
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            ids, mask = padded_left([prompts[i] for i in chosen])
            out = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=max_new_tokens,
                eos_token_id=sorted(ends),
                pad_token_id=min(ends),
                do_sample=False, temperature=None, top_k=None, top_p=None,
                repetition_penalty=1.0,  # some models' own settings are not greedy
            )  # fmt: skip
            for i, row in zip(chosen, out[:, ids.shape[1] :].tolist(), strict=True):
                written = next((k for k, token in enumerate(row) if token in ends), len(row))
                said[i] = tokenizer.decode(row[:written], skip_special_tokens=True)
    return said


def padded_left(prompts: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, mask), (B, T) each: prompts that end at the right, where they are gone on with."""
    longest = max(map(len, prompts))
    ids, mask = torch.zeros(2, len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    model, tokenizer = open_model(given.model, given.workspace)
    if not getattr(model, "is_quantized", False):  # one that is lies where it was quantised
        model = model.to(choose_device(given.device))
    scores = score(model, tokenizer, given.level, given.limit, given.seed, given.chat)
    if given.stories:
        scores["stories"] = task_score(model, tokenizer, list(examples(given.stories, STORIES_SEED)))
    if given.json:
        print(json.dumps({"model": given.model, "level": given.level, "scores": records(scores)}, indent=2))
    else:
        print(show(scores))
    return 0


def parse(arguments: list[str] | None):
    parser = Parser(
        prog="python -m finetune.scores",
        description="What a model can: sums, conclusions, facts, Python, and how well it reads; with 95 % intervals.",
        epilog="examples:\n  python -m finetune.scores latest\n  python -m finetune.scores latest --stories 50 --json\n"
        "  python -m finetune.scores Qwen/Qwen2.5-0.5B-Instruct --level general --chat",
    )
    add = parser.add_argument
    add("model", metavar="RUN[@REVISION]", help="a run's id, name or `latest`; a folder; an id on the Hub")
    add("--level", choices=LEVELS, default="primer", help="in the primer's wording, or plain questions "
        "(default: primer)")  # fmt: skip
    add("--chat", action="store_true", help="ask through the chat template (default: as a text to go on with)")
    add("--limit", metavar="N", type=int, help="ask N questions of each suite, drawn by --seed (default: all)")
    add("--seed", metavar="N", type=int, default=0, help="of the draw (default: 0)")
    add("--stories", metavar="N", type=int, default=0, help="also ask for N stories, the new task (default: none)")
    add("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    add("--threads", metavar="N", type=int, help="processor threads (default: torch's choice)")
    add("--json", action="store_true", help="print the result for programs")
    add("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    given = parser.parse_args(arguments)
    for name, least in (("limit", 1), ("threads", 1), ("stories", 0)):
        value = getattr(given, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} {value} should be {least} or more")
    return given


def records(scores: dict[str, Score]) -> dict[str, dict]:
    """For programs; a perplexity with its loss in nats per token."""
    return {n: asdict(s) | ({"loss": s.loss} if s.kind == "perplexity" else {}) for n, s in scores.items()}


def show(scores: dict[str, Score]) -> str:
    """A line a suite."""
    rows = [["suite", "score", "95 % interval", "of", "what"]]
    for name, one in scores.items():
        about = SUITES[name].about if name in SUITES else "stories told as they were asked for"
        if one.kind == "exact":
            said = [f"{value:.0%}" for value in (one.value, one.interval_low, one.interval_high)]
            rows.append([name, f"{said[0]} right", f"{said[1]} to {said[2]}", text(one.count), about])
        else:
            interval = text((one.interval_low, one.interval_high))
            rows.append([name, f"perplexity {text(one.value)}", interval, text(one.count), about])
    return table(rows)


if __name__ == "__main__":
    cli(main)
