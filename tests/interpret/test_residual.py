"""The residual stream: shares sum to the model's own logit and are what the definition says, in every model."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kurtosis
from torch import nn
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from interpret.attribution import attribute, frozen_norm, token_id
from interpret.prompt import read_prompt
from interpret.residual import BINS, CENTRAL, NEAR_ZERO, read_stream, read_values, statistics
from interpret.residual_cli import main
from interpret.residual_figure import largest
from interpret.structure import ADDS, stream_kind, structure
from tests.interpret.conftest import build

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "the cat sat on the mat, and the dog"
AT = 5


def with_vectors(model: nn.Module) -> nn.Module:
    """The same with gains and biases that are not 1 and 0."""
    model = copy.deepcopy(model)
    torch.manual_seed(5)
    with torch.no_grad():
        for vector in (p for p in model.parameters() if p.ndim == 1):
            vector.add_(0.3 * torch.randn_like(vector))
    return model


@pytest.fixture(scope="module")
def model(any_model):
    return with_vectors(any_model)


def logits_of(model, tokenizer) -> torch.Tensor:
    """Before the cap, (T, V) float64."""
    with torch.no_grad():
        logits = model(torch.tensor([read_prompt(model, tokenizer, PROMPT).ids]), use_cache=False).logits[0].double()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return cap * torch.atanh(logits / cap) if cap else logits


# ── a logit taken apart ──


@pytest.mark.parametrize("by_head", [False, True])
def test_shares_sum_to_the_models_own_logit(model, tokenizer, by_head):
    if stream_kind(model, structure(model)) != ADDS:
        with pytest.raises(ValueError, match=r"post-norm.*no shares; its norms can be looked at"):
            attribute(model, tokenizer, PROMPT)
        return
    logits = logits_of(model, tokenizer)
    found = attribute(model, tokenizer, PROMPT, " cat", " dog", AT, by_head)
    cat, dog = (logits[AT, token_id(tokenizer, text)] for text in (" cat", " dog"))
    total = sum(found.shares.values()) + found.bias
    assert total == pytest.approx(float(cat - dog), abs=1e-4)
    assert abs(found.rest) < 1e-4
    assert bool(found.capped) == bool(getattr(model.config, "final_logit_softcapping", None))
    heads = [f"L{layer}H{head}" for layer in range(2) for head in range(4)]
    parts = heads if by_head else ["L0.attention", "L1.attention"]
    names = [name for name in found.shares if not name.endswith((".bias", ".mlp"))]
    assert names == ["embedding", *parts]
    assert np.std(list(found.shares.values())) > 0.01


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_each_share_is_what_the_definition_says(name, tokenizer):
    """By hand in float64, from the library's modules and weights by their own names."""
    model, caught, hooks = with_vectors(build(name)), {}, []
    gpt2 = name == "gpt2"
    inner = model.transformer if gpt2 else model.model
    layers = inner.h if gpt2 else inner.layers
    attention, norm = "attn" if gpt2 else "self_attn", inner.ln_f if gpt2 else inner.norm

    def catch(module: nn.Module, key, entering: bool = False) -> None:
        def hook(_module, inputs, output) -> None:
            caught[key] = (inputs if entering else output if isinstance(output, tuple) else [output])[0][0, AT].double()

        hooks.append(module.register_forward_hook(hook))

    for i, layer in enumerate(layers):
        module = getattr(layer, attention)
        catch(module, (i, "attention"))
        catch(layer.mlp, (i, "mlp"))
        catch(module.c_proj if gpt2 else module.o_proj, (i, "z"), entering=True)
    catch(norm, "stream", entering=True)
    logits_of(model, tokenizer)
    for hook in hooks:
        hook.remove()
    found, split = (attribute(model, tokenizer, PROMPT, " cat", position=AT, by_head=by_head) for by_head in (0, 1))

    token = token_id(tokenizer, " cat")
    stream, gain, row = caught["stream"], norm.weight.detach().double(), model.lm_head.weight[token].detach().double()
    centre = stream.mean() if gpt2 else 0.0
    scale = ((stream - centre).square().mean() + 1e-5).sqrt() if gpt2 else (stream.square().mean() + 1e-6).sqrt()

    def share(vector) -> float:
        vector = vector - vector.mean() if gpt2 else vector
        return float((vector / scale * gain * row).sum())

    for i, layer in enumerate(layers):
        for part in ("attention", "mlp"):
            assert found.shares[f"L{i}.{part}"] == pytest.approx(share(caught[i, part]), abs=1e-4)
        matrix = (layer.attn.c_proj.weight.T if gpt2 else layer.self_attn.o_proj.weight).detach().double()  # (C, H*D)
        for head in range(4):
            own = slice(8 * head, 8 * head + 8)
            assert split.shares[f"L{i}H{head}"] == pytest.approx(share(matrix[:, own] @ caught[i, "z"][own]), abs=1e-4)
    assert found.bias == pytest.approx(float((norm.bias.detach().double() * row).sum()) if gpt2 else 0.0, abs=1e-5)


def test_a_difference_is_the_difference(tokenizer):
    model = build("qwen3")
    cat, dog = (attribute(model, tokenizer, PROMPT, token, position=AT) for token in (" cat", " dog"))
    both = attribute(model, tokenizer, PROMPT, " cat", " dog", AT)
    for name, value in both.shares.items():
        assert value == pytest.approx(cat.shares[name] - dog.shares[name], abs=1e-6)
    assert both.target == f"logit of ' cat' minus that of ' dog' behind {both.tokens[AT]!r} (position {AT})"


def test_the_likeliest_token_behind_the_last_is_taken_apart_where_none_is_named(tokenizer):
    model = build("llama")
    found = attribute(model, tokenizer, PROMPT)
    logits = logits_of(model, tokenizer)
    assert found.position == len(logits) - 1
    assert found.logit == pytest.approx(float(logits[-1].max()), abs=1e-4)


def test_narrow_types_tell_their_rounding(tokenizer):
    found = attribute(with_vectors(build("qwen2")).bfloat16(), tokenizer, PROMPT, by_head=True)
    assert abs(found.rest) < 0.05 * (1 + abs(found.logit))
    assert found.capped == ""


def test_an_adapted_model(tokenizer):
    peft = pytest.importorskip("peft")
    lora = {"r": 4, "target_modules": ["q_proj", "o_proj", "down_proj", "lm_head"], "init_lora_weights": False}
    torch.manual_seed(0)
    model = peft.get_peft_model(with_vectors(build("qwen3", tie_word_embeddings=False)), peft.LoraConfig(**lora)).eval()
    logits = logits_of(model, tokenizer)
    for by_head in (False, True):
        found = attribute(model, tokenizer, PROMPT, " cat", by_head=by_head)
        assert found.logit == pytest.approx(float(logits[-1, token_id(tokenizer, " cat")]), abs=1e-4)
        assert abs(found.rest) < 1e-4
    assert read_stream(model, tokenizer, PROMPT).layers == 2


def test_a_model_in_4_bits(tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes")
    from transformers import BitsAndBytesConfig

    sizes = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
    build("qwen3", **sizes).save_pretrained(tmp_path)
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantised, dtype=torch.float32).eval()
    assert type(structure(model).layers[0].output).__name__ == "Linear4bit"
    logits = logits_of(model, tokenizer)
    for by_head in (False, True):
        found = attribute(model, tokenizer, PROMPT, " cat", by_head=by_head)
        assert found.logit == pytest.approx(float(logits[-1, token_id(tokenizer, " cat")]), abs=1e-3)
        assert abs(found.rest) < 1e-3
    assert read_stream(model, tokenizer, PROMPT).layers == 2
    assert list(read_values(model, tokenizer, PROMPT, "mlp_post").statistics) == [
        "blocks.0.mlp_post",
        "blocks.1.mlp_post",
    ]


def test_what_is_no_norm_is_refused():
    with pytest.raises(ValueError, match="neither a layer norm nor an RMS norm"):
        frozen_norm(nn.Tanh(), torch.randn(16))
    gain, shift, centred = frozen_norm(nn.Identity(), torch.randn(16))
    torch.testing.assert_close(gain, torch.ones(16, dtype=torch.float64))
    assert not centred and not shift.any()


def test_a_token_is_one_token(tokenizer):
    assert token_id(tokenizer, " cat") == read_prompt(build("llama"), tokenizer, "the cat").ids[-1]
    with pytest.raises(ValueError, match=r"' cat sat' is 2 tokens \(' cat', ' sat'\): name one"):
        token_id(tokenizer, " cat sat")


def test_the_shares_that_matter_least_are_added_up():
    shares = {"a": 1.0, "b": -0.2, "c": 0.1, "d": -3.0}
    assert largest(shares, 4) == shares
    assert largest(shares, 3) == {"a": 1.0, "d": -3.0, "2 others": pytest.approx(-0.1)}


# ── the stream ──


def test_norms_are_those_of_the_librarys_hidden_states(model, tokenizer):
    stream = read_stream(model, tokenizer, PROMPT)
    with torch.no_grad():
        hidden = model(torch.tensor([stream.ids]), use_cache=False, output_hidden_states=True).hidden_states
    for place in range(2):  # the library's last is behind the final norm
        expected = np.linalg.norm(hidden[place][0].double().numpy(), axis=-1)
        np.testing.assert_allclose(stream.norms[place], expected, rtol=1e-4)
        np.testing.assert_allclose(stream.rms[place], expected / 32**0.5, rtol=1e-4)
    last = structure(model).final_norm(stream.vectors[2])
    np.testing.assert_allclose(last.detach().numpy(), hidden[2][0].numpy(), atol=1e-4)


def test_what_parts_add_by_hand(tokenizer):
    model, caught = build("llama"), {}
    for i, layer in enumerate(model.model.layers):
        for name in ("self_attn", "mlp"):
            getattr(layer, name).register_forward_hook(
                lambda _m, _i, out, key=(i, name): caught.__setitem__(
                    key, (out[0] if isinstance(out, tuple) else out)[0].double().numpy()
                )
            )
    stream = read_stream(model, tokenizer, PROMPT)
    before = stream.vectors.double().numpy()
    for layer in range(2):
        for part, name, onto in (
            ("attention", "self_attn", before[layer]),
            ("feed-forward", "mlp", before[layer] + caught[layer, "self_attn"]),
        ):
            for t, (added, there) in enumerate(zip(caught[layer, name], onto, strict=True)):
                length = sum(x * x for x in added) ** 0.5
                cosine = (
                    sum(x * y for x, y in zip(added, there, strict=True)) / length / sum(y * y for y in there) ** 0.5
                )
                assert stream.added[part][layer, t] == pytest.approx(length, rel=1e-4)
                assert stream.cosines[part][layer, t] == pytest.approx(cosine, abs=1e-4)


def test_similarities(tokenizer):
    stream = read_stream(build("gpt2"), tokenizer, PROMPT)
    T = len(stream.ids)
    # the oracle: of vectors whose mean is 0, cosines are correlations
    centred = replace(stream, vectors=stream.vectors - stream.vectors.mean(-1, keepdim=True))
    np.testing.assert_allclose(centred.between_tokens(1), np.corrcoef(stream.vectors[1].numpy()), atol=1e-5)
    tokens, layers = stream.between_tokens(2), stream.between_layers(-1)
    np.testing.assert_allclose(tokens.diagonal(), 1, atol=1e-6)
    assert layers.shape == (3, 3)
    assert layers[0, 2] == pytest.approx(float(torch.cosine_similarity(*stream.vectors[[0, 2], -1], dim=0)), abs=1e-5)
    assert stream.alike[2] == pytest.approx(tokens[~np.eye(T, dtype=bool)].mean(), abs=1e-6)
    repeated = [i for i, token in enumerate(stream.tokens) if token == " the"]
    rope = read_stream(build("llama"), tokenizer, PROMPT).between_tokens(0)  # positions are not in the stream
    assert len(repeated) == 2 and rope[tuple(repeated)] == pytest.approx(1, abs=1e-6)
    with pytest.raises(ValueError, match="no layer 3: the stream enters layers 0 to 1, and 2 stands for"):
        stream.between_tokens(3)


# ── the values of a site ──


def test_statistics_against_another_implementation():
    values = np.random.default_rng(0).standard_t(5, (50, 40)).astype(np.float32)
    values[13, 7] = -90
    found = statistics(values, values.reshape(-1))
    assert (found.count, found.largest, found.at) == (2000, -90, (13, 7))
    assert found.mean == pytest.approx(values.mean(dtype=np.float64))
    assert found.std == pytest.approx(values.std(dtype=np.float64))
    assert found.kurtosis == pytest.approx(kurtosis(values.astype(np.float64), axis=None, fisher=False))
    root = (values.astype(np.float64) ** 2).mean() ** 0.5
    assert found.near_zero == sum(abs(x) <= NEAR_ZERO * root for x in values.flat) / 2000
    assert np.isnan(statistics(np.ones((2, 2)), np.ones(4)).kurtosis)


def test_of_attention_only_what_may_be_seen_counts(tokenizer):
    model = build("llama")
    weights, scores = (read_values(model, tokenizer, PROMPT, site) for site in ("pattern", "blocks.1.attn_scores"))
    T = len(read_prompt(model, tokenizer, PROMPT).ids)
    for one in (*weights.statistics.values(), *scores.statistics.values()):
        assert one.count == 4 * T * (T + 1) // 2
        assert np.isfinite(one.largest)
    assert list(scores.statistics) == ["blocks.1.attn_scores"]
    for one in weights.statistics.values():
        assert one.mean == pytest.approx(2 / (T + 1), abs=1e-6)  # every row sums to 1


def test_the_histogram_spans_the_middle_and_counts_what_is_outside(tokenizer):
    model = build("labgpt-learned", hidden_act="relu")
    found = read_values(model, tokenizer, PROMPT, "mlp_post")
    total = sum(one.count for one in found.statistics.values())
    assert found.counts.sum() + found.outside == total
    assert found.outside <= (1 - CENTRAL) * total + 2
    assert len(found.edges) == BINS + 1
    for one in found.statistics.values():
        assert 0.3 < one.near_zero < 0.7  # about half of the units of a random network are off
    with pytest.raises(ValueError, match="no site 'mlp_pst'; did you mean 'mlp_post'"):
        read_values(model, tokenizer, PROMPT, "mlp_pst")


def test_a_diverged_model_is_told(tokenizer):
    model = build("gpt2")
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="resid_post holds values that are not numbers"):
        read_values(model, tokenizer, PROMPT, "resid_post")


# ── the command ──


@pytest.fixture(scope="module")
def folders(tokenizer, tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    for name in ("gpt2", "labgpt-post"):
        build(name).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


def test_the_command_draws_and_saves_the_numbers(folders, workspace, tmp_path, capsys, tokenizer):
    out = tmp_path / "stream.png"
    flags = ["--token", " cat", "--minus", " dog", "--by-head", "--site", "blocks.1.z", "--layer", "2"]
    where = ["--workspace", str(workspace.root), "--out", str(out)]
    assert main([str(folders / "gpt2"), "--prompt", PROMPT, *flags, *where, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = attribute(build("gpt2"), tokenizer, PROMPT, " cat", " dog", by_head=True)
    assert told["attribution"]["shares"] == pytest.approx(expected.shares, abs=1e-4)
    assert list(told["values"]) == ["blocks.1.z"]
    assert out.read_bytes().startswith(b"\x89PNG")
    stream = read_stream(build("gpt2"), tokenizer, PROMPT)
    with np.load(told["numbers"]) as saved:
        np.testing.assert_allclose(saved["norms"], stream.norms, rtol=1e-4)
        np.testing.assert_allclose(saved["between tokens"], stream.between_tokens(2), atol=1e-5)
        assert dict(zip(saved["share names"].tolist(), saved["shares"], strict=True)) == pytest.approx(
            expected.shares, abs=1e-4
        )
        assert "--minus ' dog'" in str(saved["command"])


def test_of_a_post_norm_model_the_norms_are_told_and_shares_only_refused(folders, workspace, capsys):
    asked = [str(folders / "labgpt-post"), "--prompt", PROMPT, "--workspace", str(workspace.root)]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert "feed-forward adds" in printed and "a logit has no shares" in printed
    with pytest.raises(ValueError, match="a logit has no shares"):
        main([*asked, "--token", " cat"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--token", "catdog x"], "name one"),
        (["--position", "99"], "no position 99"),
        (["--layer", "-1"], "no layer -1"),
        (["--site", "resid"], "no site 'resid'"),
    ],
)
def test_mistakes_are_one_sentence(flags, sentence, folders, workspace):
    with pytest.raises(ValueError, match=sentence):
        main([str(folders / "gpt2"), "--prompt", PROMPT, *flags, "--workspace", str(workspace.root)])
    assert not workspace.root.exists()
