"""Attention: weights equal two independent computations, statistics closed forms, and the command writes both."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import GPT2Config, LlamaConfig, MambaConfig, Qwen2Config, Qwen3Config
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data.tokenizer_kinds import train_tokenizer
from interpret.attention import STATISTICS, check, eager, patterns, statistics
from interpret.attention_cli import main
from modeling import LabGPTConfig

PROMPT = "the cat 🦊 sat on the mat, and the dog"
VOCABULARY = 280
SIZE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"max_position_embeddings": 96, "initializer_range": 0.4, "bos_token_id": None, "eos_token_id": None}
GROUPED = {"intermediate_size": 64, "num_key_value_heads": 2}
CONFIGS = {
    "labgpt": LabGPTConfig(**SIZE),
    "labgpt-grouped": LabGPTConfig(**SIZE, num_key_value_heads=2, qk_norm=False, norm_position="post"),
    "labgpt-learned": LabGPTConfig(**SIZE, position_embedding="learned", norm="layernorm"),
    "labgpt-sinusoidal": LabGPTConfig(**SIZE, position_embedding="sinusoidal"),
    "labgpt-alibi": LabGPTConfig(**SIZE, position_embedding="alibi"),
    "labgpt-none": LabGPTConfig(**SIZE, position_embedding="none"),
    "labgpt-window": LabGPTConfig(**SIZE, sliding_window=3),
    "llama": LlamaConfig(**SIZE, **GROUPED),
    "qwen2": Qwen2Config(**SIZE, **GROUPED),
    "qwen3": Qwen3Config(**SIZE, **GROUPED, head_dim=8),
    "gpt2": GPT2Config(**SIZE),
}


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


def build(config):
    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    return build(CONFIGS[request.param])


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A saved model, as the command opens it."""
    path = tmp_path_factory.mktemp("models") / "labgpt"
    build(CONFIGS["labgpt"]).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


# ── the weights ──


def test_every_row_is_a_distribution_over_what_came_before(model, tokenizer):
    attention = patterns(model, tokenizer, PROMPT)
    T = len(attention.ids)
    assert attention.weights.shape == (2, 4, T, T)
    assert attention.weights.dtype == np.float32
    assert attention.layers == [0, 1]
    np.testing.assert_allclose(attention.weights.sum(-1), 1, atol=1e-6)
    assert (np.triu(attention.weights, 1) == 0).all()
    assert attention.weights.std() > 0.05  # these heads do choose
    # what a query can see by the model's own mask is what its window says
    visible = [np.minimum(np.arange(T) + 1, window or T) for window in attention.windows]
    np.testing.assert_array_equal((attention.weights > 0).sum(-1).max(1), visible)


def test_tokens_are_spelled_one_by_one(tokenizer):
    attention = patterns(build(CONFIGS["labgpt"]), tokenizer, PROMPT)
    assert attention.tokens[0] == "<|endoftext|>"
    assert attention.tokens[1:5] == ["the", " cat", " ", "<0xF0>"]
    assert len(attention.tokens) == len(attention.ids)


def test_the_weights_are_softmax_of_queries_times_keys(tokenizer):
    """The oracle: Llama's projections, caught by hooks; rotation as multiplication by complex numbers; by hand."""
    model = build(CONFIGS["llama"])
    caught = {}
    for i, layer in enumerate(model.model.layers):
        for name in ("q_proj", "k_proj"):
            getattr(layer.self_attn, name).register_forward_hook(
                lambda _module, _inputs, out, key=(i, name): caught.__setitem__(key, out[0].double().numpy())
            )
    attention = patterns(model, tokenizer, PROMPT)
    T, D = len(attention.ids), 8
    angles = np.arange(T)[:, None] * 10000.0 ** (-np.arange(0, D, 2) / D)  # (T, D/2)

    def rotated(x: np.ndarray) -> np.ndarray:
        pairs = x.reshape(T, -1, D)  # the library pairs component k with k + D/2
        turned = (pairs[..., : D // 2] + 1j * pairs[..., D // 2 :]) * np.exp(1j * angles)[:, None]
        return np.concatenate([turned.real, turned.imag], -1)

    for i in range(2):
        q, k = rotated(caught[i, "q_proj"]), rotated(caught[i, "k_proj"])
        for head in range(4):
            scores = q[:, head] @ k[:, head // 2].T / math.sqrt(D)  # two query heads share a key head
            exponentials = np.tril(np.exp(scores - scores.max(-1, keepdims=True)))
            expected = exponentials / exponentials.sum(-1, keepdims=True)
            np.testing.assert_allclose(attention.pattern(i, head), expected, atol=2e-6)


def test_the_weights_are_the_librarys_own(tokenizer):
    model = build(CONFIGS["gpt2"])
    attention = patterns(model, tokenizer, PROMPT)
    model.set_attn_implementation("eager")
    own = model(torch.tensor([attention.ids]), output_attentions=True).attentions
    for layer, weights in enumerate(own):
        np.testing.assert_array_equal(attention.weights[layer], weights[0].detach().numpy())


def test_the_model_is_left_as_it_was(model, tokenizer):
    ids = torch.tensor([[5, 6, 7, 8]])
    before, logits = model.config._attn_implementation, model(ids).logits
    assert before == "sdpa"
    patterns(model, tokenizer, PROMPT)
    with pytest.raises(RuntimeError), eager(model):
        assert model.config._attn_implementation == "eager"
        raise RuntimeError
    assert model.config._attn_implementation == before
    assert torch.equal(model(ids).logits, logits)


def test_a_failure_leaves_neither_hooks_nor_eager_attention(tokenizer):
    model = build(CONFIGS["llama"])

    def broken(*_):
        raise RuntimeError("out of memory")

    handle = model.lm_head.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        patterns(model, tokenizer, PROMPT)
    handle.remove()
    assert model.config._attn_implementation == "sdpa"
    left = [hook for module in model.modules() for hook in module._forward_hooks.values()]
    assert not [hook for hook in left if hook.__module__ == "interpret.attention"]  # the library's own stay


def test_a_hybrid_names_its_layers_truly(tokenizer):
    config = CONFIG_MAPPING["lfm2"](
        **{**SIZE, "num_hidden_layers": 4}, **GROUPED, full_attn_idxs=[1, 3], conv_bias=False
    )
    attention = patterns(build(config), tokenizer, PROMPT)
    assert attention.layers == [1, 3]
    assert attention.windows == [None, None]
    np.testing.assert_array_equal(attention.pattern(3, 2), attention.weights[1, 2])
    with pytest.raises(ValueError, match="layer 0 has no attention to show; layers that have it: 1, 3"):
        attention.pattern(0, 0)
    with pytest.raises(ValueError, match="no head 4; this model's heads: 0 to 3"):
        attention.pattern(1, 4)


def test_half_precision_passes_the_check(tokenizer):
    model = build(CONFIGS["qwen3"]).to(torch.bfloat16)
    narrow, wide = patterns(model, tokenizer, PROMPT), patterns(model.float(), tokenizer, PROMPT)
    assert np.abs(narrow.weights.sum(-1) - 1).max() > 1e-4  # the tolerance of float32 would have refused it
    np.testing.assert_allclose(narrow.weights, wide.weights, atol=0.06)


# ── what is refused, what is cut ──


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (LabGPTConfig(**SIZE, attention="linear"), "attention is linear"),
        (MambaConfig(**SIZE, state_size=4), r"\(mamba\) gives no attention weights: a state-space or recurrent"),
        # its softmax has one more place, for attending to nothing, that is cut off: rows sum to less than 1
        (
            CONFIG_MAPPING["gpt_oss"](**SIZE, **GROUPED, head_dim=8, num_local_experts=2, num_experts_per_tok=1),
            r"layer 0, head \d: the weights of token \d+ sum to 0\.\d{6}, not to 1 ± 1e-05",
        ),
    ],
    ids=["linear", "mamba", "gpt_oss"],
)
def test_other_kinds_of_attention_are_told_in_a_sentence(config, sentence, tokenizer):
    with pytest.raises(ValueError, match=sentence):
        patterns(build(config), tokenizer, PROMPT)


def test_check_finds_what_is_wrong():
    good = torch.ones(2, 5, 5).tril()
    good /= good.sum(-1, keepdim=True)
    check(0, good)

    ahead = good.clone()
    ahead[1, 2] = torch.tensor([0.3, 0.3, 0.3, 0.1, 0.0])
    with pytest.raises(ValueError, match=r"layer 7, head 1: a token gives weight 0\.100000 to a later one"):
        check(7, ahead)
    off = good.clone()
    off[1, 3, 0] += 0.01
    with pytest.raises(ValueError, match=r"head 1: the weights of token 3 sum to 1\.010000"):
        check(7, off)
    off[1, 3, 0] = math.nan
    with pytest.raises(ValueError, match="token 3 sum to nan"):
        check(7, off)


def test_a_long_prompt_is_cut_and_says_so(tokenizer):
    model = build(CONFIGS["labgpt"])
    whole, cut = patterns(model, tokenizer, PROMPT), patterns(model, tokenizer, PROMPT, max_tokens=6)
    assert whole.note == ""
    assert cut.note == f"The prompt has {len(whole.ids)} tokens: only the first 6 are read."
    assert cut.tokens == whole.tokens[:6]
    # nothing that comes later changes what came before
    np.testing.assert_allclose(cut.weights, whole.weights[:, :, :6, :6], atol=1e-6)
    assert len(patterns(model, tokenizer, "cat " * 1000).ids) == 256


def test_a_model_with_learned_positions_is_cut_at_its_last(tokenizer):
    cut = patterns(build(CONFIGS["gpt2"]), tokenizer, "the cat sat " * 60)
    assert len(cut.ids) == 96
    assert "only the first 96 are read, which is all the positions that the model has." in cut.note


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "sentence"),
    [
        ("", 256, "the prompt is empty"),
        (" \n", 256, "the prompt is empty"),
        ("x" * 200_000, 256, "200,000 characters: shorten it to 100,000"),
        ("cat", 1, "max_tokens=1 must be at least 2"),
    ],
)
def test_prompts_that_cannot_be_read(prompt, max_tokens, sentence, tokenizer):
    with pytest.raises(ValueError, match=sentence):
        patterns(build(CONFIGS["labgpt"]), tokenizer, prompt, max_tokens)


def test_one_token_alone_is_refused(tokenizer):
    alone = train_tokenizer("bpe", ["the cat sat on the mat. "] * 20, VOCABULARY)
    alone.bos_token = None  # nothing stands before a prompt
    with pytest.raises(ValueError, match="'t' is a single token"):
        patterns(build(CONFIGS["labgpt"]), alone, "t")


# ── the statistics ──


def of(pattern: np.ndarray, window: int | None = None) -> dict[str, float]:
    found = statistics(pattern[None, None], [window])
    assert list(found) == list(STATISTICS)
    return {name: float(values[0, 0]) for name, values in found.items()}


def test_statistics_of_uniform_attention():
    T = 9
    uniform = np.tril(np.ones((T, T))) / np.arange(1, T + 1)[:, None]
    harmonic = sum(1 / (i + 1) for i in range(1, T)) / (T - 1)
    assert of(uniform) == pytest.approx(
        {
            "distance": T / 4,  # token i looks i/2 back; the mean of i over 1 … T-1 is T/2
            "entropy": math.lgamma(T + 1) / (T - 1),  # the mean of ln 2 … ln T
            "relative_entropy": 1,
            "first": harmonic,
            "previous": harmonic,
            "itself": harmonic,
        }
    )


def test_statistics_of_heads_that_look_at_one_token():
    T = 7
    previous = np.eye(T, k=-1)
    previous[0, 0] = 1
    shares = {"entropy": 0, "relative_entropy": 0, "first": 1 / (T - 1), "previous": 1, "itself": 0}
    assert of(previous) == pytest.approx({"distance": 1, **shares})
    itself = of(np.eye(T))
    assert (itself["distance"], itself["itself"], itself["first"]) == (0, 1, 0)
    first = np.zeros((T, T))
    first[:, 0] = 1
    found = of(first)
    assert (found["first"], found["entropy"], found["distance"]) == (1, 0, T / 2)


def test_the_most_an_entropy_can_be_is_that_of_the_window():
    T, window = 8, 3
    inside = np.tril(np.ones((T, T))) - np.tril(np.ones((T, T)), -window)
    found = of(inside / inside.sum(-1, keepdims=True), window)
    assert found["relative_entropy"] == pytest.approx(1)
    assert found["entropy"] == pytest.approx((math.log(2) + 6 * math.log(3)) / 7)
    assert of(np.eye(T), window=1)["relative_entropy"] == 0


def test_statistics_keep_layers_and_heads_apart():
    weights = np.random.default_rng(0).dirichlet(np.ones(6), (3, 2, 6))
    weights = np.tril(weights) / np.tril(weights).sum(-1, keepdims=True)
    windows = [None, 4, None]
    together = statistics(weights, windows)
    for layer in range(3):
        for head in range(2):
            alone = of(weights[layer, head], windows[layer])
            assert {name: values[layer, head] for name, values in together.items()} == pytest.approx(alone)


# ── the command ──


def test_the_command_draws_all_heads_and_saves_the_numbers(folder, workspace, tmp_path, capsys, tokenizer):
    out = tmp_path / "new" / "heads.png"
    assert main([str(folder), "--prompt", PROMPT, "--workspace", str(workspace.root), "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert out.read_bytes().startswith(b"\x89PNG")
    assert told["figure"] == str(out)
    expected = patterns(build(CONFIGS["labgpt"]), tokenizer, PROMPT)
    with np.load(told["numbers"]) as saved:
        np.testing.assert_allclose(saved["weights"], expected.weights, atol=1e-6)
        assert saved["tokens"].tolist() == told["tokens"] == expected.tokens
        assert saved["entropy"].shape == (2, 4)
        np.testing.assert_allclose(saved["entropy"], told["statistics"]["entropy"], atol=1e-6)


def test_the_command_draws_one_head_in_the_workspace(folder, workspace, capsys):
    where = ["--workspace", str(workspace.root)]
    main([str(folder), "--prompt", "a $1 cat_1 $ sat", "--layer", "1", "--head", "2", *where])
    printed = capsys.readouterr().out
    (figure,) = (workspace.root / "figures").glob("*layer-1-head-2.png")
    assert str(figure) in printed
    assert figure.with_suffix(".npz").is_file()
    table = [line.split() for line in printed.splitlines()]
    assert [row[:2] for row in table[1:9]] == [[str(layer), str(head)] for layer in range(2) for head in range(4)]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "a cat", "--layer", "2", "--head", "0"], "layers that have it: 0 to 1"),
        (["--prompt", "a cat", "--layer", "0", "--head", "-1"], "no head -1"),
        (["--prompt", "a cat", "--layer", "0"], "give both"),
        (["--prompt", "a cat", "--out", "figure"], "must end in .png"),
        ([], "--prompt"),
    ],
)
def test_mistakes_are_one_sentence(flags, sentence, folder, workspace):
    with pytest.raises(ValueError, match=sentence):
        main([str(folder), *flags, "--workspace", str(workspace.root)])
    assert not workspace.root.exists()  # nothing is written for a mistake
