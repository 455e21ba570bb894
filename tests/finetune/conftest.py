"""Tiny tokenizers with the chat formats of real models: Qwen's own templates, as `trl` ships them, and the lab's."""

from pathlib import Path

import pytest
import trl
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AddedToken, PreTrainedTokenizerFast

from data.tokenizer_kinds import train_tokenizer

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
TEXT = [
    "You are a helpful assistant. What is the capital of France? It is Paris, the city of light, and not of tales.\n",
    '{"name": "multiply", "arguments": {"a": 2, "b": 3}}\n\nThe user asked: 2 * 3? The answer is 6.\n',
    "Once upon a time there was a fox who lived in the woods. Tell me a story about a fox.\n\n",
] * 8
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = [
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]  # Qwen's: entries,
# but not special ones
QWEN_SPLIT = (  # of Qwen2.5's and Qwen3's tokenizer.json
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def with_template(tokenizer: PreTrainedTokenizerFast, template: str, special: tuple[str, ...] = (), **named: str):
    """The tokenizer with a template, the special entries that it writes, and eos or bos."""
    tokenizer.add_special_tokens({**named, "extra_special_tokens": [AddedToken(one, special=True) for one in special]})
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def template():
    """name -> the text of a published chat template."""
    return lambda name: (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def qwen(template):
    """name of a template -> a small tokenizer that cuts text as Qwen's does, with Qwen's special entries."""

    def make(name: str = "qwen3") -> PreTrainedTokenizerFast:
        backend = Tokenizer(models.BPE())
        backend.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
        backend.train_from_iterator(TEXT, trainer)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
        named = {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
        with_template(tokenizer, template(name), tuple(SPECIAL), **named)
        tokenizer.add_tokens([AddedToken(word, special=False, normalized=False) for word in WORDS])
        return tokenizer

    return make


@pytest.fixture(scope="session")
def lab():
    """A tokenizer of the lab's own, with its ChatML template."""
    return lambda: train_tokenizer("bpe", TEXT, 360)


@pytest.fixture(scope="session")
def sentencepiece():
    """template, special entries -> a tokenizer that puts a space before every text, as Llama 2's does."""

    def make(template: str, special: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
        backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        entries = ["<unk>", *(f"<0x{code:02X}>" for code in range(256))]
        trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=entries, show_progress=False)
        backend.train_from_iterator([text.replace("\n", " ") for text in TEXT], trainer)
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
        return with_template(tokenizer, template, special, bos_token="<s>", eos_token="</s>")

    return make
