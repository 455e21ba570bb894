"""Small corpora for the tests of this room."""

import json
import os
from pathlib import Path

import pytest

from data.corpora import add_corpus

LINES = [
    'The fox said:  "I don\'t know" 3,141 times.',
    "naïve café — 你好, мир! 🦊",
    "def f(x):\n\treturn x  # two  spaces\r\n",
    "literally <|endoftext|> and <|im_start|>user",
    "e\u0301 is e with an accent; so is é",
]


@pytest.fixture
def write(tmp_path):
    """Write a file under tmp_path: text, bytes, or a list of JSON rows."""

    def write(name: str, content: str | bytes | list) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def texts() -> list[str]:
    """Forty different documents in several scripts, some with spelled-out special tokens."""
    return [f"{i}: {LINES[i % len(LINES)]} Then {LINES[(i * 3 + 1) % len(LINES)]}" for i in range(40)]


@pytest.fixture
def corpus(write, workspace, texts):
    return add_corpus("small", [write("small.jsonl", [{"text": text} for text in texts])], workspace)


@pytest.fixture
def published_texts() -> Path:
    """The folder that stands in for downloads."""
    folder = os.environ.get("LLM_LAB_CORPORA")
    if not folder:
        pytest.skip("$LLM_LAB_CORPORA names no folder with the_verdict.txt and tiny_shakespeare.txt")
    return Path(folder)
