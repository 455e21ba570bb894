"""Chat: the template's own words are read, its own mark ends an answer, and who cannot converse says so."""

import io
import shutil

import pytest
import torch
from torch import nn
from transformers import LlamaConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data.tokenizer_kinds import train_tokenizer
from hub.runs import Run
from interpret.chat import answer_to, caveat, one_template, turn_ends, written_out
from interpret.continuation import settings_from, take_turns
from interpret.generate import main

TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "the cat?"},
    {"role": "assistant", "content": "the mat"},
    {"role": "user", "content": "the dog?"},
]
CHATML = (
    "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nthe cat?<|im_end|>\n"
    "<|im_start|>assistant\nthe mat<|im_end|>\n<|im_start|>user\nthe dog?<|im_end|>\n<|im_start|>assistant\n"
)
# the form of Mistral's: answers end with the token that ends a text
INSTRUCT = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content | trim }}<|endoftext|>"
    "{% else %}{{ raise_exception('only user and assistant roles are supported') }}{% endif %}{% endfor %}"
)


@pytest.fixture
def tokenizer():
    return train_tokenizer("bpe", ["the cat sat on the mat, and the dog sat on the cat. "] * 20, 280)


@pytest.fixture
def model():
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=280, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=256, initializer_range=0.4, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).eval()


def settings(count: int = 8):
    return settings_from(count, False, 1, None, None, 1, 7)


def answer(model, tokenizer, messages, count: int = 8):
    text, tokens = answer_to("cats", model, tokenizer, messages, settings(count))
    for _ in take_turns([(text, tokens)]):
        pass
    return text


def test_the_model_reads_what_its_template_writes(model, tokenizer):
    assert written_out(tokenizer, TALK, answer_next=True) == CHATML
    text = answer(model, tokenizer, TALK)
    ids = tokenizer(CHATML, add_special_tokens=False)["input_ids"]
    assert text.prompt_tokens == len(ids)
    with torch.no_grad():
        own = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    assert text.tokens[0].probability == pytest.approx(own[text.tokens[0].id].item(), rel=1e-4)


def test_the_templates_own_mark_ends_an_answer(model, tokenizer):
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert turn_ends(tokenizer) == {end}
    assert tokenizer.eos_token_id != end  # nothing else would end the answer there
    model.lm_head.bias = nn.Parameter(100.0 * nn.functional.one_hot(torch.tensor(end), 280))
    text = answer(model, tokenizer, TALK)
    assert ([token.id for token in text.tokens], text.stop, text.text) == ([end], "eos", "")


def test_another_template_ends_otherwise(model, tokenizer):
    tokenizer.chat_template = INSTRUCT
    assert turn_ends(tokenizer) == {tokenizer.eos_token_id}
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} and so on{% endfor %}"
    assert turn_ends(tokenizer) == set()  # a word that people use ends nothing


def test_what_the_template_refuses_is_one_sentence(model, tokenizer):
    tokenizer.chat_template = INSTRUCT
    with pytest.raises(ValueError, match="refuses the conversation: only user and assistant roles"):
        answer(model, tokenizer, TALK)


def test_without_a_template_there_is_no_chat(model, tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        answer(model, tokenizer, TALK)


def test_a_base_without_a_template_is_spoken_to_in_its_adapters(tokenizer):
    def like(text: str = "the cat sat on the mat, and the dog sat on the cat. ", template=None):
        other = train_tokenizer("bpe", [text] * 20, 280)
        other.chat_template = template
        return other

    base, stranger, own = like(), like("a bird in the hand is worth two in the bush. "), like(template=INSTRUCT)
    assert one_template([tokenizer, base]) == [tokenizer, tokenizer]
    assert one_template([base, tokenizer]) == [tokenizer, tokenizer]
    assert one_template([tokenizer, stranger]) == [tokenizer, stranger]  # other tokens: nothing can be read for it
    assert one_template([tokenizer, own]) == [tokenizer, own]
    assert one_template([base]) == [base]


def test_a_token_that_the_model_does_not_know_is_named(model, tokenizer):
    tokenizer.add_tokens([f"<|{i}|>" for i in range(281 - len(tokenizer))], special_tokens=True)
    last = tokenizer.convert_ids_to_tokens(280)
    with pytest.raises(ValueError, match="cats knows 280 tokens, and the chat template writes one that is not among"):
        answer(model, tokenizer, [{"role": "user", "content": last}])


def test_a_long_conversation_is_named(model, tokenizer):
    with pytest.raises(ValueError, match="tokens to read, and cats was made for 256"):
        answer(model, tokenizer, TALK * 8)


def test_a_pretrained_run_says_that_nobody_taught_it(model, tokenizer, workspace):
    for kind, expected in (("pretrain", "pretrained on plain text"), ("finetune", ""), ("import", "")):
        run = Run.create(workspace, f"cats-{kind}", kind, ["python"], "", 0, {})
        model.save_pretrained(run.path)
        found = caveat(run.id, workspace)
        assert found.count(expected) and bool(found) == bool(expected)
        checkpoint = run.path / "checkpoints" / "step-000001"
        shutil.copytree(run.path, checkpoint, ignore=shutil.ignore_patterns("run.json", "checkpoints"))
        assert caveat(str(checkpoint), workspace) == found


def test_the_conversation_in_a_terminal_goes_on(model, tokenizer, workspace, tmp_path, capsys, monkeypatch):
    model.save_pretrained(tmp_path / "cats")
    tokenizer.save_pretrained(tmp_path / "cats")
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat?\n\n  the dog?\n"))
    ref = str(tmp_path / "cats")
    arguments = [ref, "--chat", "--max-new-tokens", "8", "--seed", "7", "--workspace", str(workspace.root)]
    assert main(arguments) == 0
    first = answer(model, tokenizer, [{"role": "user", "content": "the cat?"}])
    said = [{"role": "user", "content": "the cat?"}, {"role": "assistant", "content": first.text}]
    second = answer(model, tokenizer, [*said, {"role": "user", "content": "the dog?"}])
    assert capsys.readouterr().out == f"{first.text}\n{second.text}\n"
    assert main([*arguments, "--prompt", "the cat?"]) == 0
    assert capsys.readouterr().out == f"{first.text}\n"
    with pytest.raises(ValueError, match="leave --json, --count and --probabilities out"):
        main([*arguments, "--json"])
