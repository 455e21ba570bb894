"""Scores: answers as each prompt alone gives them, shares and perplexities by hand, models left as they were."""

import json
import math
from collections import deque

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, Qwen3Config

from data.primer import documents
from data.tokenizer_kinds import train_tokenizer
from finetune.rendering import answer_end, prompt_of
from finetune.scores import answers, ask, main, read_texts, same, score, task_score
from finetune.stories import examples
from finetune.suites import Item, of_level
from hub.adapters import open_quantised
from modeling import LabGPTConfig

SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
GROUPED = {"num_key_value_heads": 2, "intermediate_size": 64}
STORIES = list(examples(20, 5))


@pytest.fixture(autouse=True)
def one_thread():
    """These models are so small that a second thread only gets in the way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("bpe", [text for text, _ in documents(200, 0)], 400)


def build(kind: str, tokenizer):
    """A model with random weights that are large enough for its answers to differ."""
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    sizes = {**SIZES, "vocab_size": len(tokenizer), "max_position_embeddings": 512, **special}
    configs = {
        "qwen3": lambda: Qwen3Config(**sizes, **GROUPED, head_dim=16),
        "gpt2": lambda: GPT2Config(**sizes),
        "labgpt": lambda: LabGPTConfig(**sizes, **GROUPED),
    }
    torch.manual_seed(1)
    return AutoModelForCausalLM.from_config(configs[kind]()).eval()


class Scripted(nn.Module):
    """Says what it is told to, and knows nothing."""

    device, generation_config = torch.device("cpu"), None

    def __init__(self, tokenizer, script: dict[tuple[int, ...], str], end: int):
        super().__init__()
        self.tokenizer, self.script, self.end = tokenizer, script, end

    def generate(self, input_ids, attention_mask, max_new_tokens, **_settings):
        out = torch.full((len(input_ids), input_ids.shape[1] + max_new_tokens), self.end)
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            said = self.tokenizer(self.script[tuple(ids[mask.bool()].tolist())])["input_ids"][:max_new_tokens]
            out[row, input_ids.shape[1] :][: len(said)] = torch.tensor(said)
        return out


@pytest.mark.parametrize(
    ("said", "right"),
    [
        (" 12", True),
        ("12.\n7 + 7 = 14", True),
        ("\n12", True),
        (" 12 apples", False),
        ("112", False),
        ("", False),
        ("the answer is 12", False),
    ],
)
def test_an_answer_is_the_first_line_to_the_letter(said, right):
    assert same(said, "12") is right
    assert same("paris.", "Paris") and not same("Parish", "Paris")


@pytest.mark.parametrize("kind", ["qwen3", "gpt2", "labgpt"])
def test_a_batch_says_what_each_prompt_alone_would(kind, tokenizer):
    model = build(kind, tokenizer)
    prompts = [tokenizer(text)["input_ids"] for text in ("7 + 5 =", "The cow says", "If Mia is older than Tom, the")]
    assert len({len(prompt) for prompt in prompts}) == 3
    alone = []
    for prompt in prompts:
        ids = list(prompt)
        with torch.no_grad():
            for _ in range(6):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        alone.append(ids[len(prompt) :])
    assert answers(model, tokenizer, prompts, 6, {0}) == tokenizer.batch_decode(alone)
    # the third token of the first answer now ends answers, where it comes first
    end = alone[0][2]
    cut = [ids[: ids.index(end)] if end in ids else ids for ids in alone]
    assert answers(model, tokenizer, prompts, 6, {end}) == tokenizer.batch_decode(cut)


def test_the_share_of_right_answers_and_its_interval(tokenizer):
    items = of_level("primer", "arithmetic")[:40]
    bos = tokenizer.bos_token_id
    script = {
        (bos, *tokenizer(item.prompt)["input_ids"]): f" {item.answer if i % 4 else 99}" for i, item in enumerate(items)
    }
    found = ask(Scripted(tokenizer, script, tokenizer.eos_token_id), tokenizer, items)
    expected = binomtest(30, 40).proportion_ci(0.95, "wilson")
    assert (found.value, found.count, found.kind) == (0.75, 40, "exact")
    assert (found.interval_low, found.interval_high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_through_the_chat_template(tokenizer):
    item = Item("unused", "What is 7 + 5?", "12")
    text = "<|im_start|>user\nWhat is 7 + 5?<|im_end|>\n<|im_start|>assistant\n"
    script = {tuple(tokenizer(text)["input_ids"]): "12"}
    assert ask(Scripted(tokenizer, script, answer_end(tokenizer)), tokenizer, [item], chat=True).value == 1
    bare = train_tokenizer("bpe", ["a text"] * 20, 280)
    bare.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        ask(Scripted(bare, {}, 1), bare, [item], chat=True)


def test_perplexity_is_that_of_all_tokens(tokenizer):
    model, texts = build("qwen3", tokenizer), of_level("primer", "text")[:12]
    nats, counts = [], []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
            nats.append(F.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum").item())
            counts.append(ids.shape[1] - 1)
    found = read_texts(model, tokenizer, texts)
    assert found.value == pytest.approx(math.exp(sum(nats) / sum(counts)), rel=1e-5)
    assert found.loss == pytest.approx(sum(nats) / sum(counts), rel=1e-5) and found.count == 12
    drawn = np.random.default_rng(0).integers(12, size=(20_000, 12))
    resampled = np.array(nats)[drawn].sum(1) / np.array(counts)[drawn].sum(1)
    half = (math.log(found.interval_high) - math.log(found.interval_low)) / 2
    assert half == pytest.approx(1.96 * resampled.std() * math.sqrt(12 / 11), rel=0.05)


def test_a_story_counts_when_it_is_what_was_asked_for(tokenizer):
    end, script = answer_end(tokenizer), {}
    for i, example in enumerate(STORIES):
        ids, answer = prompt_of(example, tokenizer)
        wrong = [answer + " The end.", answer[:-1], STORIES[i - 1]["messages"][-1]["content"], ""]
        script[tuple(ids)] = wrong[i % 4] if i < 8 else answer
    found = task_score(Scripted(tokenizer, script, end), tokenizer, STORIES)
    assert (found.value, found.count) == (12 / 20, 20)


def test_a_limit_draws_questions(tokenizer):
    model = build("qwen3", tokenizer)
    found = score(model, tokenizer, limit=3, seed=1)
    assert {name: one.count for name, one in found.items()} == dict.fromkeys(found, 3)
    assert (
        found == score(model, tokenizer, limit=3, seed=1) and found["text"] != score(model, tokenizer, limit=3)["text"]
    )


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_quantised_adapter_is_asked_and_left_as_it_was(tokenizer, tmp_path):
    from peft import LoraConfig, get_peft_model

    build("qwen3", tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    base, _ = open_quantised(tmp_path, "nf4")
    model = get_peft_model(base, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    model.train()
    model.generation_config.repetition_penalty = 1.3
    before = (
        model.generation_config.to_dict(),
        torch.get_rng_state(),
        {n: p.clone() for n, p in model.named_parameters()},
    )
    found = score(model, tokenizer, limit=4)
    assert set(found) == {"arithmetic", "reasoning", "knowledge", "code", "text"}
    assert model.training and model.generation_config.to_dict() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert all(torch.equal(p, before[2][n]) and p.grad is None for n, p in model.named_parameters())


def test_the_command(tokenizer, tmp_path, capsys):
    build("labgpt", tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    at = [str(tmp_path), "--limit", "2", "--device", "cpu"]
    assert main([*at, "--stories", "2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert list(record["scores"]) == ["arithmetic", "reasoning", "knowledge", "code", "text", "stories"]
    text = record["scores"]["text"]
    assert text["loss"] == pytest.approx(math.log(text["value"])) and text["kind"] == "perplexity"
    assert main([*at, "--level", "general", "--chat"]) == 0
    lines = deque(capsys.readouterr().out.splitlines())
    assert lines.popleft().split()[0] == "suite" and len(lines) == 5 and "0% right" in lines[0]
    with pytest.raises(ValueError, match="--limit 0 should be 1 or more"):
        main([str(tmp_path), "--limit", "0"])
