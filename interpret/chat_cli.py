"""The conversation of `python -m interpret.generate RUN --chat`: a message a line, each answered as it is written.

May import `data`; of ours here `interpret.chat` and `interpret.continuation`.
"""

import sys
from collections.abc import Iterable, Iterator

from data.workspace import Workspace
from interpret.chat import answer_to, caveat
from interpret.continuation import Settings, take_turns

PROMPT = "> "


def converse(ref: str, model, tokenizer, settings: Settings, messages: Iterable[str], workspace: Workspace) -> None:
    """Print the model's answer to each message, the messages before it and their answers being known to it.

    Raises ValueError where the model's template does not allow it, and where the conversation becomes too long.
    """
    if warning := caveat(ref, workspace):
        print(warning, file=sys.stderr)
    talk = []
    for message in messages:
        talk.append({"role": "user", "content": message})
        text, tokens = answer_to(ref, model, tokenizer, talk, settings)
        for _ in take_turns([(text, tokens)]):
            print(text.tokens[-1].text, end="", flush=True)
        print(flush=True)
        talk.append({"role": "assistant", "content": text.text})


def typed() -> Iterator[str]:
    """The lines that somebody types, or that are piped in; an end of input (Ctrl-D) ends the conversation."""
    while True:
        if sys.stdin.isatty():
            print(PROMPT, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()
