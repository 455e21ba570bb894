"""Recording: every site against the library's own outputs or the definition, edits, subsets, and what is refused."""

import pytest
import torch
from transformers import Gemma2Config, MambaConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from interpret.record import Recording, record, record_to
from interpret.sites import AROUND, IN_LAYER, expand
from interpret.structure import ADDS, NORMALISES, stream_kind, structure
from tests.interpret.conftest import build

pytestmark = pytest.mark.usefixtures("one_thread")
IDS = torch.tensor([[5, 9, 200, 31, 7, 7, 64, 270, 12, 5, 9, 200], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]])
EVERYTHING = [*AROUND, *IN_LAYER]


@pytest.fixture(scope="module")
def recorded(any_model):
    return record(any_model, IDS, EVERYTHING)


def test_sites_are_the_librarys_own_tensors(any_model, recorded):
    any_model.set_attn_implementation("eager")
    with torch.inference_mode():
        out = any_model(IDS, output_hidden_states=True, output_attentions=True, use_cache=False)
    any_model.set_attn_implementation("sdpa")
    torch.testing.assert_close(recorded["logits"], out.logits, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(recorded["ln_final"], out.hidden_states[-1], atol=2e-5, rtol=1e-4)
    for i in range(2):
        torch.testing.assert_close(recorded[f"blocks.{i}.resid_pre"], out.hidden_states[i], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(recorded[f"blocks.{i}.pattern"], out.attentions[i], atol=2e-6, rtol=1e-4)


def test_recording_leaves_no_trace(any_model):
    with torch.inference_mode():
        before = any_model(IDS, use_cache=False).logits

    def state():  # the library leaves hooks of its own
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in any_model.modules()]
        return any_model.config._attn_implementation, hooks

    there = state()
    record(any_model, IDS, EVERYTHING)
    assert state() == there
    with torch.inference_mode():
        assert torch.equal(any_model(IDS, use_cache=False).logits, before)


def test_parts_sum_to_the_stream_and_through_norm_and_head_to_the_logits(any_model, recorded):
    parts = structure(any_model)
    kind = stream_kind(any_model, parts)
    assert kind == (NORMALISES if getattr(any_model.config, "norm_position", "pre") == "post" else ADDS)
    for i in range(2):
        site = {name: recorded[f"blocks.{i}.{name}"] for name in IN_LAYER}
        if kind == ADDS:
            torch.testing.assert_close(site["resid_mid"], site["resid_pre"] + site["attn_out"])
            torch.testing.assert_close(site["resid_post"], site["resid_mid"] + site["mlp_out"], atol=1e-5, rtol=1e-5)
        else:
            torch.testing.assert_close(parts.layers[i].mlp(site["resid_mid"]), site["mlp_out"], atol=1e-5, rtol=1e-5)
    normed = parts.final_norm(recorded["blocks.1.resid_post"])
    torch.testing.assert_close(normed, recorded["ln_final"], atol=1e-5, rtol=1e-5)
    if not getattr(any_model.config, "final_logit_softcapping", None):
        torch.testing.assert_close(parts.head(normed), recorded["logits"], atol=1e-4, rtol=1e-4)


def test_attention_is_what_q_k_and_v_make_of_it(any_model, recorded):
    """In float64, from the recorded queries, keys and values alone; ALiBi's bias is in the scores only."""
    parts, T = structure(any_model), IDS.shape[1]
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    if window := getattr(any_model.config, "sliding_window", None):
        seen &= ~torch.ones(T, T, dtype=torch.bool).tril(-window)
    for i in range(2):
        site = {name: recorded[f"blocks.{i}.{name}"].double() for name in IN_LAYER}
        q, k, v = (site[name].transpose(1, 2) for name in "qkv")
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
        if getattr(any_model.config, "position_embedding", "") == "alibi":
            scores = site["attn_scores"]
        torch.testing.assert_close(site["attn_scores"], scores, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(site["pattern"], scores.softmax(-1), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(site["z"], (site["pattern"] @ v).transpose(1, 2), atol=1e-4, rtol=1e-4)
        out = parts.layers[i].output(site["z"].float().flatten(2))
        torch.testing.assert_close(out, site["attn_out"].float(), atol=1e-4, rtol=1e-4)
        units = parts.layers[i].down(site["mlp_post"].float())
        torch.testing.assert_close(units, site["mlp_out"].float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("site", [name for name in IN_LAYER if name not in ("q", "k", "attn_scores", "pattern")])
def test_replacing_a_site_by_itself_changes_nothing_and_by_another_prompts_reproduces_it(any_model, recorded, site):
    """With the other row's tensor at every place behind the last layer's mixing, the logits are the other row's."""
    name = f"blocks.1.{site}"
    same = record(any_model, IDS, ["logits"], edits={name: lambda x: x.clone()})
    torch.testing.assert_close(same["logits"], recorded["logits"], atol=3e-5, rtol=1e-4)
    swapped = record(any_model, IDS, ["logits", name], edits={name: lambda x: x.flip(0)})
    torch.testing.assert_close(swapped[name], recorded[name].flip(0), atol=1e-4, rtol=1e-4)
    if site in ("resid_pre", "resid_post"):  # all that the layers behind know is in the stream
        torch.testing.assert_close(swapped["logits"], recorded["logits"].flip(0), atol=3e-5, rtol=1e-4)
    else:
        assert not torch.allclose(swapped["logits"], recorded["logits"], atol=1e-3)


@pytest.mark.parametrize("site", ["q", "k", "attn_scores", "pattern"])
def test_attention_can_be_replaced_too(any_model, recorded, site):
    name = f"blocks.0.{site}"
    swapped = record(any_model, IDS, ["blocks.0.pattern"], edits={name: lambda x: x.flip(0)})["blocks.0.pattern"]
    assert not torch.allclose(swapped, recorded["blocks.0.pattern"], atol=1e-3)
    if site in ("attn_scores", "pattern"):
        torch.testing.assert_close(swapped, recorded["blocks.0.pattern"].flip(0), atol=1e-6, rtol=1e-5)


def test_subsets_are_what_was_asked_for_and_hold_nothing_else(any_model, recorded):
    some = record(any_model, IDS[0].tolist(), ["resid_post", "pattern"], layers=[1], positions=[3, -1])
    assert list(some) == ["blocks.1.pattern", "blocks.1.resid_post"]
    torch.testing.assert_close(
        some["blocks.1.resid_post"], recorded["blocks.1.resid_post"][:1, [3, 11]], atol=2e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        some["blocks.1.pattern"], recorded["blocks.1.pattern"][:1, :, [3, 11]], atol=2e-6, rtol=1e-4
    )
    for tensor in some.values():
        assert tensor.untyped_storage().nbytes() == tensor.numel() * 4


def test_on_disk_it_is_the_same(any_model, recorded, tmp_path):
    made = record_to(tmp_path / "set", any_model, [IDS[:1], IDS[1:]], ["resid_mid", "blocks.0.z"], positions=[0, 5])
    read = Recording(tmp_path / "set")
    assert read.sites == made.sites == ["blocks.0.z", "blocks.0.resid_mid", "blocks.1.resid_mid"]
    assert torch.equal(torch.cat(list(read.batches("input_ids"))), IDS)
    there = torch.cat(list(read.batches("blocks.1.resid_mid")))
    torch.testing.assert_close(there, recorded["blocks.1.resid_mid"][:, [0, 5]], atol=2e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"was not recorded; there are blocks.0.z"):
        next(read.batches("logits"))


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_narrow_types_keep_theirs(dtype):
    found = record(build("qwen3").to(dtype), IDS, ["pattern", "resid_mid"])
    assert {tensor.dtype for tensor in found.values()} == {dtype}


def test_names_stand_in_the_order_of_the_forward_pass():
    assert expand(["logits", "pattern", "blocks.0.resid_pre", "embed"], 2, only=[1]) == [
        "embed", "blocks.0.resid_pre", "blocks.1.pattern", "logits",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"sites": ["patern"]}, "no site 'patern'; .*pattern"),
        ({"sites": ["blocks.2.z"]}, "no layer 2: this model's are 0 to 1"),
        ({"sites": ["z"], "layers": [-1]}, "no layer -1"),
        ({"sites": ["z"], "positions": [12]}, "no position 12: the prompt has 12 tokens"),
        ({"sites": ["z"], "inputs": []}, "no tokens"),
        ({"sites": ["z"], "edits": {"resid": lambda x: x}}, "no site 'resid'"),
    ],
)
def test_mistakes_are_sentences(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        record(build("llama"), **({"inputs": IDS} | arguments))


def test_a_prompt_longer_than_the_model_is_refused():
    with pytest.raises(ValueError, match="97 tokens are more than the model's 96 positions"):
        record(build("gpt2"), [1] * 97, ["z"])


def test_linear_attention_has_everything_but_weights():
    model = build("labgpt", attention="linear")
    assert record(model, IDS, ["z", "resid_mid"])["blocks.0.z"].shape == (2, 12, 4, 8)
    with pytest.raises(ValueError, match=r"blocks.0.pattern cannot be recorded: that layer has no softmax attention"):
        record(model, IDS, ["pattern"])


def test_a_stream_between_parts_with_norms_of_their_own_is_refused():
    """Gemma 2 adds normed outputs; the embedding of its token 0, padding, is zero: there all would add up."""
    config = Gemma2Config(
        vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        intermediate_size=32,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    assert len(record(model, [5, 9, 31], ["attn_out", "z", "pattern"])) == 6
    with pytest.raises(ValueError, match=r"\(gemma2\).*looked for a residual stream that attention and feed-forward"):
        record(model, [5, 9, 31], ["resid_mid"])


def test_a_model_built_otherwise_is_refused_by_what_was_looked_for():
    config = MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4)
    with pytest.raises(ValueError, match=r"\(mamba\).*looked for attention and feed-forward in layer 0"):
        record(AutoModelForCausalLM.from_config(config), IDS, ["resid_pre"])
