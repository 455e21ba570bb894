"""An example as the tokens that a model reads, and which of them it is to write.

Uses numpy and `tokenizers`; of ours `finetune.template`, `data` and `interpret.writing`. The chat template writes
the text. Prompt and answer are encoded each by itself, so that a model is trained on the very ids that it will be given
and has to produce. What somebody wrote that looks like a special token is encoded as the text it is: nobody's words can
end a turn or begin one.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain

import numpy as np
from tokenizers import Tokenizer as Backend

from data.encoding import Encoder
from data.workspace import sha256_json
from finetune.formats import where
from finetune.template import CLOSE, OPEN, Template
from interpret.writing import spell

# Instruct models name the token that ends a turn their eos; a document is ended by what ended those of pretraining.
END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "<|end▁of▁sentence|>", "</s>", "<eos>")
BEGINNING = 32  # tokens of a plain text that a model is given to go on from
LITERAL = re.compile(f"{OPEN}(.*?){CLOSE}|[{OPEN}{CLOSE}]", re.DOTALL)


@dataclass(frozen=True)
class Rendered:
    """An example in tokens: `scored[i]` says that token i is part of an answer and a target; `pieces` spell them."""

    text: str
    ids: np.ndarray  # (T,) int32
    scored: np.ndarray  # (T,) bool
    pieces: list[str]


@dataclass(frozen=True)
class Segment:
    """A part of an example that is encoded by itself."""

    text: str
    scored: bool
    literal: bool = False
    """Encoded as text alone: no special token is looked for in it."""
    begins: bool = False
    """Begins a text: where the tokenizer puts a space before every text, this part gets one."""


def render(example: dict, tokenizer) -> Rendered:
    """The example as the tokenizer's chat template has it; plain text as it is, ended by the end-of-text token.

    Of a conversation every answer is scored, the token that ends it included; of a text all but the first token, which
    nothing comes before. Raises ValueError that names the example's source where it has one.
    """
    renderer = renderer_of(tokenizer)
    segments = renderer.segments(example)
    ((ids, scored),) = renderer.encode([segments])
    text = "".join(segment.text for segment in segments)
    return Rendered(text, ids, scored, [spell(tokenizer, i) for i in ids.tolist()])


def prompt_of(example: dict, tokenizer) -> tuple[list[int], str]:
    """What a model is given to answer last, and the answer it should give.

    Returns:
        The ids of all that stands before the last answer, the generation prompt included; and the answer as the
        template writes it, thoughts and tool calls with it, without the token that ends it. Of a plain text the
        beginning, half of it at most, and how it goes on.
    """
    renderer = renderer_of(tokenizer)
    if "text" in example:
        ids = render(example, tokenizer).ids.tolist()[:-1]  # without the token that ends it
        begun = max(1, min(BEGINNING, len(ids) // 2))
        return ids[:begun], tokenizer.decode(ids[begun:])
    prompt, answer = renderer.prompt(example)
    ((ids, _),) = renderer.encode([prompt])
    return ids.tolist(), answer


def answer_end(tokenizer) -> int:
    """The id of the token with which the template ends an answer: what generation has to stop at."""
    return tokenizer.convert_tokens_to_ids(renderer_of(tokenizer).template.end)


def end_of_text(tokenizer) -> int:
    """The id of the token that ends a document."""
    ends_turn = renderer_of(tokenizer).template.end_or_none == tokenizer.eos_token
    known = tokenizer.get_added_vocab()
    found = next((known[token] for token in END_OF_TEXT if token in known), None) if ends_turn else None
    return tokenizer.eos_token_id if found is None else found


def renderer_of(tokenizer) -> "Renderer":
    """One for each tokenizer as it is now: it holds a copy of the tokenizer, which takes long to make."""
    state = [tokenizer.chat_template, tokenizer.eos_token, tokenizer.bos_token, len(tokenizer)]
    return _renderer(tokenizer, json.dumps(state))


@lru_cache(maxsize=4)
def _renderer(tokenizer, _state: str) -> "Renderer":
    return Renderer(tokenizer)


class Renderer:
    """Examples to segments to ids, for one tokenizer."""

    def __init__(self, tokenizer):
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError("the model's tokenizer has no tokenizer.json: open and save it with its fast class first")
        self.tokenizer, self.template = tokenizer, Template(tokenizer)
        self.backend = Backend.from_str(tokenizer.backend_tokenizer.to_str())  # a copy: others set how theirs cuts
        self.backend.no_truncation()
        self.backend.no_padding()

    @cached_property
    def literal(self) -> Backend:
        """The same tokenizer, which takes control tokens for the text that they are spelled with."""
        state = json.loads(self.backend.to_str())
        for token in state["added_tokens"]:  # some mark what ends a turn as an ordinary word
            token["special"] |= token["content"] == self.template.end_or_none
        return Encoder(Backend.from_str(json.dumps(state))).backend

    @cached_property
    def sha256(self) -> str:
        """Of all that decides the ids of an example."""
        named = {name: str(token) for name, token in self.tokenizer.special_tokens_map.items()}
        return sha256_json([self.backend.to_str(), self.tokenizer.chat_template, named])

    @cached_property
    def newline(self) -> list[int]:
        return self.backend.encode("\n", add_special_tokens=False).ids

    @cached_property
    def prefixes(self) -> bool:
        """Whether it puts a space before every text, as SentencePiece's do; parts of a text must go without."""
        alone, behind = (self.backend.encode(text, add_special_tokens=False).ids for text in ("x", "\nx"))
        return alone != behind[len(self.newline) :]

    @cached_property
    def beginning(self) -> str:
        """The token that the tokenizer puts before every text, its bos, or nothing."""
        ids = self.backend.encode("x").ids
        return self.tokenizer.bos_token if self.tokenizer.bos_token_id in ids[:1] else ""

    def segments(self, example: dict) -> list[Segment]:
        """The parts of an example, in order. Raises ValueError that names where the example came from."""
        if "text" in example:
            end = self.tokenizer.convert_ids_to_tokens(end_of_text(self.tokenizer))
            document = Segment(example["text"], scored=True, literal=True, begins=True)
            return [Segment(self.beginning, scored=True), document, Segment(end, scored=True)]
        try:
            messages, tools = self.template.guard(example["messages"]), self.template.guard(example.get("tools"))
            text, spans = self.template.answers(messages, tools)
        except ValueError as error:
            raise ValueError(f"{where(example)}: {error}") from error
        parts, at = [], 0
        for start, end in spans:
            parts += [(text[at:start], False), (text[start:end], True)]
            at = end
        return joined([*parts, (text[at:], False)])

    def prompt(self, example: dict) -> tuple[list[Segment], str]:
        """The segments before the last answer, and that answer's text."""
        turns = [i for i, message in enumerate(example.get("messages", ())) if message["role"] == "assistant"]
        if not turns:
            raise ValueError(f"{where(example)}: there is no assistant turn, so no answer to compare with")
        try:
            messages, tools = self.template.guard(example["messages"]), self.template.guard(example.get("tools"))
            prompt = self.template.write(messages[: turns[-1]], tools, answer_next=True)
            text = self.template.write(messages, tools)
            start, end = self.template.span(text, messages, tools, turns[-1])
        except ValueError as error:
            raise ValueError(f"{where(example)}: {error}") from error
        answer = text[start:end].rstrip().removesuffix(self.template.end)
        return joined([(prompt, False)]), LITERAL.sub(r"\1", answer)

    def encode(self, examples: Sequence[list[Segment]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(ids (T,) int32, scored (T,) bool) of each example, all of them encoded at once, on all cores."""
        ids = iter(self._encode([segment for segments in examples for segment in segments]))
        pairs = []
        for segments in examples:
            parts = [(next(ids), segment.scored) for segment in segments]
            scored = np.repeat([one for _, one in parts], [len(part) for part, _ in parts])
            scored[:1] = False  # nothing comes before it
            pairs.append((np.fromiter(chain.from_iterable(part for part, _ in parts), dtype=np.int32), scored))
        return pairs

    def _encode(self, segments: list[Segment]) -> list[list[int]]:
        """The ids of every segment."""
        ids: list[list[int]] = [[] for _ in segments]
        for literal in (False, True):
            chosen = [k for k, segment in enumerate(segments) if segment.literal == literal]
            if not chosen:
                continue
            backend = self.literal if literal else self.backend
            # a line end keeps the tokenizer from putting its space before what is no beginning
            leads = ["\n" if self.prefixes and not segments[k].begins else "" for k in chosen]
            texts = [lead + segments[k].text for k, lead in zip(chosen, leads, strict=True)]
            encodings = backend.encode_batch_fast(texts, add_special_tokens=False)
            for k, lead, encoding in zip(chosen, leads, encodings, strict=True):
                ids[k] = encoding.ids[len(self.newline) :] if lead else encoding.ids
        return ids


def joined(parts: Iterable[tuple[str, bool]]) -> list[Segment]:
    """The segments of a rendered text that comes in parts, (text, whether it is scored) each."""
    segments = [one for part, scored in parts for one in split_literals(part, scored)]
    return [replace(segments[0], begins=True), *segments[1:]]


def split_literals(text: str, scored: bool) -> list[Segment]:
    """Text that was rendered from guarded messages: the guarded tokens apart, without their marks."""
    segments, at = [], 0
    for found in LITERAL.finditer(text):
        segments += [Segment(text[at : found.start()], scored), Segment(found[1] or "", scored, literal=True)]
        at = found.end()
    return [segment for segment in [*segments, Segment(text[at:], scored)] if segment.text]
