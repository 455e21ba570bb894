"""Which characters of a rendered conversation are answers, found from the chat template itself.

Uses `transformers` and jinja; of ours `data.console`. Nothing of any model's format is known here. Where a template
marks answers with `{% generation %}`, its word is taken. Any other is asked: what it writes when an answer is to come
is the prompt, and the conversation rendered with that answer changed shows where the answer is over.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, takewhile

from jinja2 import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from data.console import one_line

# Private-use characters, which no text holds: around control tokens in what somebody wrote, and in place of answers.
OPEN, CLOSE, ANSWER, BEFORE = "\U0010fff0", "\U0010fff1", "\U0010fff2", "\U0010fff3"
PRIVATE = re.compile(f"[{OPEN}-{BEFORE}]")
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
NO_TEMPLATE = (
    "this model's tokenizer has no chat template, so nothing says how a conversation is to be written: take a chat "
    'model, give the tokenizer a template (tokenizer.chat_template), or train on plain text, {"text": …} a line'
)
NO_END = (
    "the model's chat template ends an answer with no special token, so that nothing could teach the model to stop: "
    "let it write one, such as the tokenizer's eos_token, behind each answer"
)


@dataclass(frozen=True)
class Template:
    """A tokenizer's chat template at work."""

    tokenizer: object

    def write(self, messages: list[dict], tools: list[dict] | None = None, answer_next: bool = False) -> str:
        """The conversation as the template has it. Raises ValueError where there is no template or it refuses."""
        if not self.tokenizer.chat_template:
            raise ValueError(NO_TEMPLATE)
        try:
            return self.tokenizer.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=answer_next
            )
        except (TemplateError, TypeError, KeyError, ValueError) as error:  # whatever a template does with what it lacks
            raise ValueError(f"the model's chat template refuses the conversation: {one_line(error)[:200]}") from error

    @cached_property
    def end_or_none(self) -> str | None:
        """As `end`; None where there is no template, or it ends answers with no such token."""
        try:
            return self.end
        except ValueError:
            return None

    @cached_property
    def end(self) -> str:
        """The added token with which the template ends an answer, as its text."""
        exchange = [{"role": "user", "content": "."}, {"role": "assistant", "content": ANSWER}]
        behind = self.write(exchange).rpartition(ANSWER)[2].lstrip()
        added = [str(token) for token in self.tokenizer.added_tokens_decoder.values() if str(token).strip()]
        found = None
        while token := max((one for one in added if behind.startswith(one)), key=len, default=None):
            found, behind = token, behind.removeprefix(token)  # of several side by side the last
        if found is None:
            raise ValueError(NO_END)
        return found

    @cached_property
    def control(self) -> re.Pattern:
        """The tokens that only the template may write as such: the special ones, and that which ends an answer.

        Entries that a tokenizer calls ordinary, such as Qwen's `<think>`, are read as entries in anybody's text.
        """
        tokens = {str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special} | {self.end}
        return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))

    @cached_property
    def marks_answers(self) -> bool:
        return bool(GENERATION.search(self.tokenizer.get_chat_template()))

    @cached_property
    def takes_tools(self) -> bool:
        """Whether tools that are offered to the model are written out at all."""
        tool = {"name": ANSWER, "description": ANSWER, "parameters": {"type": "object", "properties": {}}}
        try:
            return ANSWER in self.write([{"role": "user", "content": "."}], [{"type": "function", "function": tool}])
        except ValueError:
            return False

    def guard(self, value: object) -> object:
        """Every control token in what somebody wrote (messages, tools) between marks, so that it stays text.

        Raises ValueError for text that holds one of the marks.
        """
        if isinstance(value, str):
            if PRIVATE.search(value):
                raise ValueError("it holds a private-use character (U+10FFF0 to U+10FFF3) that is used as a mark here")
            return self.control.sub(rf"{OPEN}\g<0>{CLOSE}", value)
        if isinstance(value, dict):
            return {self.guard(key): self.guard(one) for key, one in value.items()}
        return [self.guard(one) for one in value] if isinstance(value, list) else value

    def answers(self, messages: list[dict], tools: list[dict] | None) -> tuple[str, list[tuple[int, int]]]:
        """The conversation rendered, and the span of characters of each answer, the token that ends it included.

        Args:
            messages: guarded, so that every control token in the text is one of the template's.
        """
        if tools and not self.takes_tools:
            raise ValueError("the model's chat template has no place for tools: leave them out, or take another model")
        text = self.write(messages, tools)
        if self.marks_answers:
            return text, self._marked(text, messages, tools)
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        spans = [self.span(text, messages, tools, i) for i in turns]
        for i, ((_, end), (start, _)) in enumerate(pairwise(spans)):
            if end > start:
                raise ValueError(f"it cannot be told where the chat template ends message {turns[i] + 1}, an answer")
        return text, spans

    def span(self, text: str, messages: list[dict], tools: list[dict] | None, i: int) -> tuple[int, int]:
        """Where in the rendered conversation the answer stands that is message `i`."""
        prompt = self.write(messages[:i], tools, answer_next=True)
        start = len(prompt) if text.startswith(prompt) else self._start_by_turn(text, messages, tools, i)
        last, end = self._end_alone(text, messages, tools, i, start) or self._end_by_change(text, messages, tools, i)
        if not text[start:last].strip():
            raise ValueError(f"the model's chat template leaves out what message {i + 1}, an answer, says")
        return start, self._swallowed(text, end)

    def _end_alone(
        self, text: str, messages: list[dict], tools: list[dict] | None, i: int, start: int
    ) -> tuple[int, int] | None:
        """Where the token that ends an answer begins and ends; None where the last turn is written as no other is."""
        alone = self.write(messages[: i + 1], tools).rstrip()
        ends = list(self.control.finditer(alone, min(start, len(alone))))
        if not text.startswith(alone) or not ends or ends[-1].end() != len(alone):
            return None
        # some templates end the whole conversation once more behind the turn's end
        usual = [one for one in ends if one[0] == self.end and not self.control.sub("", alone[one.end() :]).strip()]
        return (usual or ends[-1:])[0].span()

    def _start_by_turn(self, text: str, messages: list[dict], tools: list[dict] | None, i: int) -> int:
        """Where an answer begins when what comes before it is written otherwise by now than it is in the prompt.

        What the template writes between the message before and the answer is compared with what it writes between that
        message and an answer to come: as far as they agree is the prompt.
        """
        last, answer = {**messages[i - 1], "content": BEFORE}, {"role": "assistant", "content": ANSWER}
        now = self.write([*messages[: i - 1], last, answer, *messages[i + 1 :]], tools)
        now = now.partition(ANSWER)[0].rpartition(BEFORE)[2]
        then = self.write([*messages[: i - 1], last], tools, answer_next=True).rpartition(BEFORE)[2]
        agreed = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(now, then, strict=False)))
        head, _ = self._around(messages, tools, i)
        start = len(head) - len(now) + agreed
        if not head.endswith(now) or not text.startswith(head[:start]):
            raise ValueError(f"it cannot be told where the chat template begins message {i + 1}, an answer")
        return start

    def _end_by_change(self, text: str, messages: list[dict], tools: list[dict] | None, i: int) -> tuple[int, int]:
        """Where the tokens that end an answer begin, and where they end: they stay when the answer is changed."""
        _, tail = self._around(messages, tools, i)
        first = self.control.search(tail)
        if first is None or not text.endswith(tail[first.start() :]):
            raise ValueError(f"it cannot be told where the chat template ends message {i + 1}, an answer")
        behind, found = first.end(), first
        while found is not None:  # through the usual end, where only control tokens come before that
            if found[0] == self.end:
                behind = found.end()
                break
            following = self.control.search(tail, found.end())
            apart = following is None or tail[found.end() : following.start()].strip()
            found = None if apart else following
        shift = len(text) - len(tail)
        return shift + first.start(), shift + behind

    def _around(self, messages: list[dict], tools: list[dict] | None, i: int) -> tuple[str, str]:
        """What the template writes before and behind an answer, whatever the answer says."""
        plain = {"role": "assistant", "content": ANSWER}
        calls = [
            {**call, "function": {"name": ANSWER, "arguments": {ANSWER: ANSWER}}}
            for call in messages[i].get("tool_calls", [])[:1]
        ]
        # some templates want a tool's answer to follow a call
        for changed in [plain, *([{**plain, "tool_calls": calls}] if calls else [])]:
            try:
                written = self.write([*messages[:i], changed, *messages[i + 1 :]], tools)
            except ValueError:
                continue
            if ANSWER in written:
                return written.partition(ANSWER)[0], written.rpartition(ANSWER)[2]
        raise ValueError(f"the model's chat template leaves out what message {i + 1}, an answer, says")

    def _swallowed(self, text: str, end: int) -> int:
        """White space behind an end that the tokenizer takes for a part of it (`rstrip`, as Phi's) goes with it."""
        token = next(one for one in self.tokenizer.added_tokens_decoder.values() if str(one) == self.end)
        return len(text) - len(text[end:].lstrip()) if token.rstrip else end

    def _marked(self, text: str, messages: list[dict], tools: list[dict] | None) -> list[tuple[int, int]]:
        """The spans that the template itself marks, each up to the token that ends the turn and no further."""
        _, found = render_jinja_template(
            conversations=[messages],
            tools=tools,
            chat_template=self.tokenizer.get_chat_template(),
            return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )
        spans = []
        for start, stop in found[0]:
            ends = [match for match in self.control.finditer(text, start, stop) if match[0] == self.end]
            behind = text[stop:].lstrip() if not ends else ""
            if ends and not text[ends[-1].end() : stop].strip():
                stop = ends[-1].end()  # a line end behind it is nothing that a model would write
            elif behind.startswith(self.end):  # else nothing would teach the model to stop
                stop = len(text) - len(behind) + len(self.end)
            spans.append((start, self._swallowed(text, stop)))
        if not spans:
            raise ValueError("the model's chat template marks no answer in it ({% generation %})")
        return spans
