"""Writing: choices equal the library's, probabilities equal a plain forward pass, text comes out whole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    LlamaConfig,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    Qwen3Config,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data.tokenizer_kinds import train_tokenizer
from hub.models import open_model
from hub.runs import Run
from interpret.generate import main
from interpret.sampling import Sampling, distribution
from interpret.writing import TextStream, plain_steps, prompt_ids, spell, steps, write
from modeling import LabGPTConfig

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "the cat 🦊"
VOCABULARY = 280
SIZE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"max_position_embeddings": 96, "initializer_range": 0.4, "bos_token_id": None, "eos_token_id": None}
SMALL_HEADS = {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}
CONFIGS = {
    "labgpt": LabGPTConfig(**SIZE),
    "labgpt-learned": LabGPTConfig(**SIZE, position_embedding="learned", norm="layernorm"),
    "llama": LlamaConfig(**SIZE, **SMALL_HEADS),
    "qwen3": Qwen3Config(**SIZE, **SMALL_HEADS),
    "gpt2": GPT2Config(**SIZE),
}
SETTINGS = [
    Sampling(),
    Sampling(temperature=0.6),
    Sampling(top_k=7),
    Sampling(top_p=0.8),
    Sampling(repetition_penalty=1.4),
    Sampling(temperature=1.7, top_k=50, top_p=0.7, repetition_penalty=0.8),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """These models are so small that a second thread only gets in the way."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer("bpe", ["the cat sat on the mat, and the dog sat on the cat. "] * 20, VOCABULARY)


def build(name: str):
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(CONFIGS[name]).eval()


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return build(request.param)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A saved model, as the command opens it."""
    path = tmp_path_factory.mktemp("models") / "labgpt"
    build("labgpt").save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def continuation(model, ids: list[int], **settings) -> list[int]:
    """What the library's own `generate` writes."""
    start = torch.tensor([ids])
    out = model.generate(start, attention_mask=torch.ones_like(start), pad_token_id=0, top_k=0, **settings)
    return out[0, len(ids) :].tolist()


def library_distribution(logits, seen, sampling: Sampling):
    """The oracle: the library's own processors, in the order in which `generate` applies them."""
    processors = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)])
    processors.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p:
        processors.append(TopPLogitsWarper(sampling.top_p))
    return processors(seen[None], logits[None].clone())[0].softmax(-1)


# ── the choice of a token ──


@pytest.mark.parametrize("sampling", SETTINGS, ids=str)
def test_distribution_is_the_librarys(sampling):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        logits = 3 * torch.randn(200, generator=generator)
        seen = torch.randint(200, (30,), generator=generator)
        torch.testing.assert_close(
            distribution(logits, seen, sampling), library_distribution(logits, seen, sampling), rtol=1e-5, atol=1e-7
        )


def test_top_p_of_one_keeps_everything():
    logits = torch.linspace(0, -60, 2000)  # the tail is lost in the rounding of a sum
    nothing = torch.tensor([], dtype=torch.long)
    assert torch.equal(distribution(logits, nothing, Sampling(top_p=1.0)), logits.softmax(-1))


def test_distribution_by_hand():
    own, nothing = torch.tensor([0.15, 0.5, 0.05, 0.3]), torch.tensor([], dtype=torch.long)

    def check(expected: list[float], logits=None, seen=nothing, **settings):
        found = distribution(own.log() if logits is None else logits, seen, Sampling(**settings))
        torch.testing.assert_close(found, torch.tensor(expected).float())

    check([0, 1, 0, 0], greedy=True)
    check([0, 0.625, 0, 0.375], top_k=2)
    check([0, 0.625, 0, 0.375], top_p=0.7)  # 0.5 is too little, 0.5 + 0.3 is enough
    check([0, 1, 0, 0], top_p=0.4)  # never nothing at all
    check((own**2 / (own**2).sum()).tolist(), temperature=0.5)
    # a score above zero is divided by the penalty, one below is multiplied; a token counts once however often it came
    penalized = torch.tensor([1.0, -4.0, 0.0]).softmax(-1).tolist()
    check(penalized, torch.tensor([2.0, -2.0, 0.0]), torch.tensor([0, 1, 1]), repetition_penalty=2.0)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 1e-30}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": 1e-30}, "repetition_penalty"),
        ({"greedy": True, "temperature": 0.5}, "greedy"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, named):
    with pytest.raises(ValueError, match=named):
        Sampling(**settings)


# ── the model's writing ──


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_is_the_librarys(model, tokenizer, penalty):
    tokens = list(write(model, tokenizer, PROMPT, Sampling(greedy=True, repetition_penalty=penalty), 20))
    ids = prompt_ids(model, tokenizer, PROMPT)
    expected = continuation(model, ids, max_new_tokens=20, do_sample=False, repetition_penalty=penalty)
    assert [token.id for token in tokens] == expected
    assert {token.drawn_with for token in tokens} == {1.0}


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2"])
def test_drawing_is_the_librarys(name, tokenizer):
    """The same distribution and the same random numbers: the same tokens."""
    model, settings = build(name), {"temperature": 0.9, "top_k": 100, "top_p": 0.9, "repetition_penalty": 1.2}
    tokens = list(write(model, tokenizer, PROMPT, Sampling(**settings), 24, seed=5))
    torch.manual_seed(5)
    ids = prompt_ids(model, tokenizer, PROMPT)
    start = torch.tensor([ids])
    out = model.generate(
        start, attention_mask=torch.ones_like(start), pad_token_id=0, max_new_tokens=24, do_sample=True, **settings
    )
    assert [token.id for token in tokens] == out[0, len(ids) :].tolist()


@pytest.mark.parametrize("sampling", [SETTINGS[0], SETTINGS[-1]], ids=str)
def test_probabilities_are_those_of_a_plain_forward_pass(model, tokenizer, sampling):
    tokens = list(write(model, tokenizer, PROMPT, sampling, 16, seed=1, runners_up=4))
    ids = prompt_ids(model, tokenizer, PROMPT)
    written = [token.id for token in tokens]
    with torch.no_grad():
        logits = model(torch.tensor([ids + written])).logits[0, len(ids) - 1 : -1]
    for n, (token, own) in enumerate(zip(tokens, logits.softmax(-1), strict=True)):
        ranked = own.argsort(descending=True).tolist()
        assert token.probability == pytest.approx(own[token.id].item(), rel=1e-3, abs=1e-7)
        assert token.rank == 1 + ranked.index(token.id)
        assert [other.id for other in token.runners_up] == [i for i in ranked if i != token.id][:4]
        for other in token.runners_up:
            assert other.probability == pytest.approx(own[other.id].item(), rel=1e-3, abs=1e-7)
        drawn = library_distribution(logits[n], torch.tensor(ids + written[:n]), sampling)
        assert token.drawn_with == pytest.approx(drawn[token.id].item(), rel=1e-3)
        assert token.drawn_with > 0


def test_the_same_seed_writes_the_same_text(model, tokenizer):
    def text(seed):
        return "".join(token.text for token in write(model, tokenizer, PROMPT, Sampling(), 10, seed=seed))

    assert text(1) == text(1) != text(2)


def test_who_receives_the_tokens_can_compute_gradients(model, tokenizer):
    for _ in write(model, tokenizer, PROMPT, max_new_tokens=2):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_a_models_own_decoder_is_used_and_writes_the_same():
    model, ids = build("labgpt"), [1, 20, 30]
    for sampling in (Sampling(greedy=True), *SETTINGS):
        own, plain = (
            [int(t) for t, _ in way(model, ids, 10, sampling, torch.Generator().manual_seed(2))]
            for way in (steps, plain_steps)
        )
        assert own == plain
    model.decode = lambda ids, **settings: iter(())
    assert list(steps(model, ids, 20, Sampling(), torch.Generator())) == []


def test_why_a_text_stops(tokenizer):
    model, greedy = build("gpt2"), Sampling(greedy=True)
    tokens = list(write(model, tokenizer, PROMPT, greedy, 12))
    assert [token.stop for token in tokens] == [None] * 11 + ["length"]

    third = tokens[2].id
    first = [token.id for token in tokens].index(third)
    model.generation_config.eos_token_id = [VOCABULARY - 1, third]
    shorter = list(write(model, tokenizer, PROMPT, greedy, 12))
    assert shorter[:-1] == tokens[:first]
    assert (shorter[-1].id, shorter[-1].stop) == (third, "eos")


@pytest.mark.parametrize("name", ["gpt2", "labgpt-learned"])
def test_learned_positions_end(name, tokenizer):
    model, context = build(name), SIZE["max_position_embeddings"]
    prompt = "🦊" * ((context - 8) // 4)  # four bytes each
    length = len(prompt_ids(model, tokenizer, prompt))
    tokens = list(write(model, tokenizer, prompt, Sampling(), 500))
    assert (len(tokens), tokens[-1].stop) == (context - length, "context")
    with pytest.raises(ValueError, match=f"prompt is 97 tokens long and this model has {context} positions"):
        next(write(model, tokenizer, "🦊" * 24))


def test_computed_positions_go_on(tokenizer):
    assert sum(1 for _ in write(build("labgpt"), tokenizer, "🦊" * 24, Sampling(), 5)) == 5


def test_a_prompt_stands_at_the_beginning_of_a_document(tokenizer):
    model, end = build("llama"), tokenizer.eos_token_id
    assert prompt_ids(model, tokenizer, "") == [end]
    assert prompt_ids(model, tokenizer, "the cat") == [end, *tokenizer("the cat")["input_ids"]]
    assert prompt_ids(model, tokenizer, "<|endoftext|>the cat") == prompt_ids(model, tokenizer, "the cat")


def test_a_tokenizer_without_a_beginning(tokenizer):
    model, bare = build("llama"), PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    assert prompt_ids(model, bare, "the cat") == bare("the cat")["input_ids"]
    with pytest.raises(ValueError, match="write a prompt"):
        prompt_ids(model, bare, "")
    model.config.bos_token_id = 7  # Qwen names its only here
    assert prompt_ids(model, bare, "") == [7]


def test_a_tokenizer_that_does_not_fit(tokenizer):
    model = AutoModelForCausalLM.from_config(LlamaConfig(**{**SIZE, **SMALL_HEADS, "vocab_size": 16}))
    with pytest.raises(ValueError, match="does not fit"):
        prompt_ids(model, tokenizer, "the cat")


# ── the text, as it comes ──


def pieces(tokenizer, ids: list[int], prompt: list[int] | None = None) -> list[str]:
    stream = TextStream(tokenizer, prompt or [])
    return [*(stream.add(i) for i in ids), stream.rest()]


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_a_character_comes_when_its_last_byte_is_there(kind):
    tokenizer = train_tokenizer(kind, ["the cat"] * 3, 261)
    ids = tokenizer("a🦊b")["input_ids"]
    assert len(ids) == 6
    assert pieces(tokenizer, ids) == ["a", "", "", "", "🦊", "b", ""]
    assert pieces(tokenizer, ids[:3]) == ["a", "", "", tokenizer.decode(ids[:3])[1:]]  # cut off in the middle


def test_streamed_text_is_the_decoded_text(tokenizer):
    """Whatever bytes come, valid or not, with special tokens between."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        ids = torch.randint(VOCABULARY, (40,), generator=generator).tolist()
        assert "".join(pieces(tokenizer, ids)) == tokenizer.decode(ids, skip_special_tokens=True)


def test_a_space_that_only_the_beginning_lacks():
    """SentencePiece's way: "▁cat" is " cat" after a word and "cat" at the beginning."""
    vocabulary = {token: i for i, token in enumerate(["<s>", "▁the", "▁cat", "s"])}
    backend = Tokenizer(models.BPE(vocabulary, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    assert pieces(tokenizer, [2, 3, 0, 1], prompt=[0, 1]) == [" cat", "s", "", " the", ""]
    assert pieces(tokenizer, [1, 2, 3], prompt=[0]) == ["the", " cat", "s", ""]


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_a_part_of_a_character_is_spelled_by_its_bytes(kind):
    tokenizer = train_tokenizer(kind, ["the cat"] * 3, 261)
    spelled = [spell(tokenizer, i) for i in tokenizer("é t<|im_end|>")["input_ids"]]
    assert spelled == ["<0xC3>", "<0xA9>", " ", "t", "<|im_end|>"]
    assert spell(tokenizer, 9999) == ""


def test_texts_of_tokens_join_to_the_text(model, tokenizer):
    tokens = list(write(model, tokenizer, PROMPT, Sampling(), 30, seed=4))
    ids = prompt_ids(model, tokenizer, PROMPT) + [token.id for token in tokens]
    text = PROMPT + "".join(token.text for token in tokens)
    assert text == tokenizer.decode(ids, skip_special_tokens=True)


# ── the command ──


def test_the_command_prints_the_text(folder, capsys, monkeypatch):
    model, tokenizer = open_model(folder)
    expected = "".join(token.text for token in write(model, tokenizer, PROMPT, Sampling(top_k=9), 20, seed=3))
    flags = ["--max-new-tokens", "20", "--top-k", "9", "--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["generate", str(folder), "--prompt", PROMPT, *flags])
    assert main() == 0
    out, err = capsys.readouterr()
    assert out == f"{PROMPT}{expected}\n"
    assert err.startswith("[20 tokens, ")
    assert "seed 3" in err


def test_a_run_is_found_by_its_name(workspace, folder, capsys):
    run = Run.create(workspace, "cats", "pretrain", ["python"], "", 0, {})
    for file in folder.iterdir():
        (run.path / file.name).write_bytes(file.read_bytes())
    for name in ("latest", "cats", run.id, f"{run.id}@main"):
        assert main([name, "--greedy", "--max-new-tokens", "3", "--workspace", str(workspace.root)]) == 0
    texts = capsys.readouterr().out.splitlines()
    assert len(texts) % 4 == 0
    assert texts[: len(texts) // 4] * 4 == texts


def test_json_holds_what_is_needed_to_write_it_again(folder, capsys):
    flags = ["--max-new-tokens", "6", "--temperature", "0.8", "--json"]
    main([str(folder), "--prompt", PROMPT, "--count", "2", "--probabilities", "3", *flags])
    made = json.loads(capsys.readouterr().out)
    assert made["sampling"]["temperature"] == 0.8
    first, second = made["texts"]
    assert second["seed"] == first["seed"] + 1
    assert "".join(token["text"] for token in first["tokens"]) == first["text"]
    assert [len(token["runners_up"]) for token in first["tokens"]] == [3] * first["count"]

    main([str(folder), "--prompt", PROMPT, "--seed", str(second["seed"]), *flags])
    (again,) = json.loads(capsys.readouterr().out)["texts"]
    assert again["text"] == second["text"]
    assert "tokens" not in again


def test_the_table_has_a_line_for_each_token(folder, capsys):
    main([str(folder), "--prompt", PROMPT, "--max-new-tokens", "4", "--greedy", "--probabilities"])
    head, *lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert head.split() == ["model", "drawn", "rank", "token", "runners-up"]
    model, tokenizer = open_model(folder)
    for line, token in zip(lines, write(model, tokenizer, PROMPT, Sampling(greedy=True), 4), strict=True):
        assert line.split()[:3] == [f"{token.probability:.1%}", "100.0%", "1"]
        assert json.dumps(token.token, ensure_ascii=False) in line
        assert line.count("%") == 2 + 5


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--temperature", "0"], "temperature"),
        (["--top-p", "2"], "top_p"),
        (["--top-k", "0"], "top_k"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0 must be at least 1"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**64)], "--seed 18446744073709551616 must be below 2\\^64"),
        (["--seed", str(2**64 - 1), "--count", "2"], "must be below 2\\^64"),
        (["--greedy", "--count", "2"], "--count 2"),
        (["--temprature", "1"], "temprature"),
    ],
)
def test_mistakes_are_named_before_a_model_is_read(flags, named):
    with pytest.raises(ValueError, match=named):
        main(["./nowhere", *flags])


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    command = [sys.executable, "-m", "interpret.generate", "no-such-run", "--workspace", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no run 'no-such-run'")
    assert done.stderr.count("\n") == 1
