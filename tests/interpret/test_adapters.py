"""Models with a LoRA adapter, quantised to 4 bits, or both: looked into like any other.

The oracles are the library's own outputs, the adapter merged into the weights, and the weights made 32 bits again.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import BitsAndBytesConfig

from hub.models import open_model
from interpret import timeline_measure
from interpret.ablation import effect, parse_target
from interpret.attention import patterns
from interpret.attention_cli import draw_heads
from interpret.attribution import attribute
from interpret.compare import compare
from interpret.compare_weights import weight_changes
from interpret.heads import KINDS, head_scores
from interpret.lens import lens
from interpret.patching import patching
from interpret.probe import probe
from interpret.probe_sets import Example, ProbeSet
from interpret.prompt import read_prompt
from interpret.record import record
from interpret.residual import read_stream
from interpret.sites import AROUND, IN_LAYER
from interpret.steering import difference_of_means, steer
from interpret.structure import ADDS, stream_kind, structure
from interpret.tab_attention import picture
from interpret.timeline_measure import measure
from interpret.tuned_lens import Settings, mean_kl, train
from tests.interpret.conftest import build

peft = pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),  # peft's business
]
IDS = torch.tensor([[5, 9, 200, 31, 7, 7, 64, 270, 12, 5, 9, 200], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]])
EVERYTHING = [*AROUND, *IN_LAYER]
PROMPT = "the cat sat on the mat, and the dog"
KINDS_OF_MODEL = ("lora", "saved lora", "4-bit", "4-bit lora")
NF4 = BitsAndBytesConfig(
    load_in_4bit=True,
    bnb_4bit_quant_type="nf4",
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype=torch.float32,
)
LORA = {"r": 4, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    """A tiny Qwen3, saved; its widths are multiples of what is quantised as one block, 64 numbers."""
    path = tmp_path_factory.mktemp("models")
    model = build("qwen3", hidden_size=64, intermediate_size=128, head_dim=16)
    for name in ("base", "lora", "4-bit"):
        tokenizer.save_pretrained(path / name)
    model.save_pretrained(path / "base")
    open_model(path / "base", quantization_config=NF4)[0].save_pretrained(path / "4-bit")
    adapted(open_model(path / "base")[0], rows=[3, 7]).save_pretrained(path / "lora")
    return path


def adapted(model, trained: bool = True, rows: list[int] | None = None):
    """With LoRA around every matrix of the layers; untrained, its second factor is zero.

    Args:
        rows: of the embedding, and of the head that shares it, which are learnt too.
    """
    torch.manual_seed(4)
    config = peft.LoraConfig(**LORA, init_lora_weights=not trained, trainable_token_indices=rows)
    model = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "trainable_tokens" in name:
                p.add_(0.1 * torch.randn_like(p))
    return model


@pytest.fixture(scope="module", params=KINDS_OF_MODEL)
def model(request, folder):
    kind = request.param
    if kind == "saved lora":  # some rows of its embedding are learnt too
        return open_model(folder / "lora")[0]
    opened = open_model(folder / ("4-bit" if kind.startswith("4-bit") else "base"))[0]
    return adapted(opened) if kind.endswith("lora") else opened


@pytest.fixture(scope="module")
def recorded(model):
    return record(model, IDS, EVERYTHING)


def close(found: dict, wanted: dict, share: float) -> None:
    """Every tensor as near to the wanted one, by their norms; what is masked agrees exactly."""
    assert list(found) == list(wanted)
    for name, tensor in found.items():
        seen = wanted[name].isfinite()
        assert torch.equal(seen, tensor.isfinite()), name
        apart = (tensor - wanted[name])[seen].norm() / wanted[name][seen].norm()
        assert apart <= share, f"{name} is {float(apart):.1e} apart"


def rounding(model) -> float:
    """What may come of rounding: some processors multiply 4-bit weights in bfloat16."""
    return 2e-2 if any("4bit" in type(module).__name__ for module in model.modules()) else 1e-5


def test_sites_are_the_librarys_own_tensors(model, recorded):
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        out = model(input_ids=IDS, output_hidden_states=True, output_attentions=True, use_cache=False)
    model.set_attn_implementation("sdpa")
    wanted = {"logits": out.logits, "ln_final": out.hidden_states[-1]}
    for i in range(2):
        wanted |= {f"blocks.{i}.resid_pre": out.hidden_states[i], f"blocks.{i}.pattern": out.attentions[i]}
    close({name: recorded[name] for name in wanted}, wanted, rounding(model))


def test_parts_sum_to_the_stream_and_through_norm_and_head_to_the_logits(model, recorded):
    parts = structure(model)
    assert stream_kind(model, parts) == ADDS
    for i in range(2):
        site = {name: recorded[f"blocks.{i}.{name}"] for name in IN_LAYER}
        torch.testing.assert_close(site["resid_mid"], site["resid_pre"] + site["attn_out"])
        torch.testing.assert_close(site["resid_post"], site["resid_mid"] + site["mlp_out"], atol=1e-5, rtol=1e-5)
    with torch.inference_mode():
        logits = parts.head(parts.final_norm(recorded["blocks.1.resid_post"]))
    torch.testing.assert_close(logits, recorded["logits"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["base", "4-bit"])
def test_an_adapter_that_adds_nothing_leaves_every_site_as_it_was(folder, name):
    base, zero = open_model(folder / name)[0], adapted(open_model(folder / name)[0], trained=False)
    close(record(zero, IDS, EVERYTHING), record(base, IDS, EVERYTHING), 0)


def test_an_adapter_is_seen_as_if_it_were_merged_into_the_weights(folder):
    base, lora = open_model(folder / "base")[0], adapted(open_model(folder / "base")[0])
    found = record(lora, IDS, EVERYTHING)
    merged = record(adapted(open_model(folder / "base")[0]).merge_and_unload(), IDS, EVERYTHING)
    close(found, merged, 1e-5)
    saved = open_model(folder / "lora")[0]
    with_rows = record(saved, IDS, EVERYTHING)
    close(with_rows, record(saved.merge_and_unload(), IDS, EVERYTHING), 1e-5)
    assert not torch.allclose(with_rows["embed"], merged["embed"], atol=1e-2)
    before = record(base, IDS, EVERYTHING)
    assert not torch.allclose(found["blocks.0.q"], before["blocks.0.q"], atol=1e-2)


def test_four_bits_are_seen_as_the_weights_that_they_stand_for(folder):
    whole = record(open_model(folder / "4-bit")[0].dequantize(), IDS, EVERYTHING)
    close(record(open_model(folder / "4-bit")[0], IDS, EVERYTHING), whole, 2e-2)
    assert not torch.allclose(whole["logits"], record(open_model(folder / "base")[0], IDS, ["logits"])["logits"])


# ── the views ──


def test_attention(model, tokenizer):
    seen = patterns(model, tokenizer, PROMPT)
    there = record(model, seen.ids, ["pattern"])
    for i in range(2):
        np.testing.assert_allclose(seen.weights[i], there[f"blocks.{i}.pattern"][0], atol=5 * rounding(model))
    assert picture(seen, "qwen3")["heads"] == 4
    assert len(draw_heads(seen).axes[0].get_xticks()) == 4


def test_heads(model):
    scored = head_scores(model, length=12, rows=2)
    for kind in KINDS:
        assert scored.scores[kind].shape == (2, 4)
        assert (scored.scores[kind] > 0).all()
    assert np.isfinite([scored.loss_first, scored.loss_second]).all()


def test_residual_stream(model, tokenizer):
    stream = read_stream(model, tokenizer, PROMPT)
    there = record(model, stream.ids, ["blocks.0.resid_pre", "resid_post"])
    wanted = torch.cat(list(there.values()))
    close({"stream": stream.vectors}, {"stream": wanted}, 1e-6)


@pytest.mark.parametrize("by_head", [False, True])
def test_the_shares_of_a_logit_add_up(model, tokenizer, by_head):
    found = attribute(model, tokenizer, PROMPT, by_head=by_head)
    assert len(found.shares) == 1 + 2 * (5 if by_head else 2)  # the embedding, then heads and feed-forward by layer
    assert abs(found.rest) < 5 * rounding(model) * sum(map(abs, found.shares.values()))
    assert found.told == pytest.approx(found.logit, abs=1e-4)


def test_the_lens_ends_with_the_model(model, tokenizer):
    found = lens(model, tokenizer, PROMPT)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([found.ids]), use_cache=False).logits[0]
    wanted = logits.softmax(-1).gather(1, torch.tensor(found.guesses[-1]))
    close({"guesses": torch.tensor(found.probabilities[-1])}, {"guesses": wanted}, 5 * rounding(model))
    assert (found.kl[:-1] > 0).all()


def test_a_tuned_lens_learns(model):
    tuned = train(model, lambda step: IDS, Settings(steps=12))
    told = mean_kl(model, [IDS], tuned)
    assert np.mean(told["tuned"]) < np.mean(told["logit"])
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_patching_the_last_stream_brings_all_of_it_back(model, tokenizer):
    found = patching(model, tokenizer, "the cat sat on the mat", "the dog sat on the mat", sites=["resid_post", "z"])
    assert found.restored("resid_post")[-1, -1] == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(found.restored("resid_post")[-1, :-1], 0, atol=0.05)  # other places change no other
    assert np.isfinite(found.differences["z"]).all()


def test_steering_by_nothing_is_the_model(model, tokenizer):
    direction = difference_of_means(model, tokenizer, ["the cat sat"], ["on the mat"])
    found = steer(model, tokenizer, "the cat", direction, max_new_tokens=3)
    middle = len(found.coefficients) // 2
    assert found.coefficients[middle] == 0
    ids = torch.tensor([read_prompt(model, tokenizer, "the cat").ids])
    with torch.inference_mode():
        wanted = model(input_ids=ids, use_cache=False).logits[0, -1].softmax(-1)
    assert found.probabilities[middle].max() <= float(wanted.max()) * (1 + 5 * rounding(model))
    assert np.ptp(found.probabilities, axis=0).max() > 1e-3


def test_compared_with_its_base(model, folder, tokenizer):
    base = open_model(folder / "base")[0]
    same = compare((model, tokenizer), (model, tokenizer), PROMPT)
    assert np.abs(same.heads).max() < 1e-6
    assert np.abs(same.lens).max() < 1e-6
    found = compare((base, tokenizer), (model, tokenizer), PROMPT)
    assert not found.missing
    assert found.heads.max() > 1e-4
    changed = [change for change in weight_changes(base, model).matrices if change.layer is not None]
    assert len(changed) == 2 * 7
    assert all(change.change > 1e-3 * change.norm for change in changed)


def test_probe(model, tokenizer):
    words = {"animal": ("cat", "dog"), "other": ("mat", "sat")}
    examples = [
        Example(f"{start} {word}", len(start) + 1, len(start) + 1 + len(word), label, word)
        for start in ("the", "a", "on the", "sat on the", "and the", "and a", "with the", "with a", "for the", "for a")
        for label, names in words.items()
        for word in names
    ]
    found = probe(model, tokenizer, ProbeSet("words", "is it an animal?", tuple(examples)))
    assert [layer.layer for layer in found.layers] == [-1, 0, 1]
    assert found.best.real.accuracy > 0.9  # each word is a token of its own: its embedding alone tells


def test_timeline(model, tokenizer):
    point = measure(model, tokenizer, timeline_measure.Settings.of([PROMPT], without=["L0H1"]))
    assert point["layers"] == [0, 1]
    assert np.isfinite(np.concatenate([np.ravel(value) for value in point.values()])).all()


@pytest.mark.parametrize("how", ["zero", "mean"])
def test_removal(model, tokenizer, how):
    found = effect(model, tokenizer, PROMPT, [parse_target("L0H1"), parse_target("L1.mlp")], how, "the dog sat")
    ids = torch.tensor([read_prompt(model, tokenizer, PROMPT).ids])
    with torch.inference_mode():
        losses = F.cross_entropy(model(input_ids=ids, use_cache=False).logits[0, :-1], ids[0, 1:], reduction="none")
    close({"before": found.losses_before}, {"before": losses}, rounding(model))
    assert abs(found.loss_after - found.loss_before) > 1e-3
    assert found.kl > 0
