"""The logit lens: every number by its definition in float64, from the library's own hidden states."""

import numpy as np
import pytest
import torch
from transformers import GraniteConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from interpret import lens as lens_module
from interpret.lens import Lens, Readout, kl, lens, streams
from interpret.lens_figure import draw, numbers_of, plain, shades, word
from interpret.structure import structure
from tests.interpret.conftest import SIZE, build

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "the cat sat on the mat, and the dog sat on the cat."
IDS = torch.tensor([5, 9, 200, 31, 7, 7, 64, 270, 12, 5, 9, 200])


def by_hand(model, ids: list[int]) -> np.ndarray:
    """Log-probabilities (R, T, V) in float64, the norm and the head by their names in each architecture."""
    base = getattr(model, "model", None) or model.transformer
    norm = getattr(base, "norm", None) or base.ln_f
    with torch.inference_mode():
        out = model(torch.tensor([ids]), output_hidden_states=True, use_cache=False)
        hidden = [norm(h) for h in out.hidden_states[:-1]] + [out.hidden_states[-1]]  # the library norms the last
        logits = torch.stack([model.lm_head(h)[0].double() for h in hidden])
        if cap := getattr(model.config, "final_logit_softcapping", None):
            logits = cap * torch.tanh(logits / cap)
        torch.testing.assert_close(logits[-1].float(), out.logits[0], atol=1e-5, rtol=1e-5)
    return logits.log_softmax(-1).numpy()


def same(one: Lens, other: Lens) -> None:
    for name in ("probabilities", "true_probability", "rank", "kl", "entropy"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5, err_msg=name)


# ── the logit lens ──


def test_every_number_is_its_definition_and_the_last_row_is_the_model(any_model, tokenizer):
    found = lens(any_model, tokenizer, PROMPT)
    wanted = by_hand(any_model, found.ids)
    R, T, _ = wanted.shape
    assert found.rows == ["input", "layer 0", "layer 1"]
    for row in range(R):
        for t in range(T):
            said, final = wanted[row, t], wanted[-1, t]
            p = np.exp(said)
            np.testing.assert_allclose(found.probabilities[row, t], np.sort(p)[::-1][:5], atol=1e-5)
            np.testing.assert_allclose(p[found.guesses[row, t]], found.probabilities[row, t], atol=1e-5)
            np.testing.assert_allclose(found.entropy[row, t], -(p * said).sum(), atol=1e-4)
            np.testing.assert_allclose(found.kl[row, t], (np.exp(final) * (final - said)).sum(), atol=1e-4)
            if t + 1 < T:
                true = said[found.ids[t + 1]]
                np.testing.assert_allclose(found.true_probability[row, t], np.exp(true), atol=1e-5)
                assert (said > true + 1e-5).sum() < found.rank[row, t] <= 1 + (said > true - 1e-5).sum()
    assert (found.kl[-1] == 0).all()
    assert found.kl[0].min() > 0.1
    assert np.isnan(found.rank[:, -1]).all() and np.isnan(found.true_probability[:, -1]).all()


def test_the_last_row_is_the_model_to_the_bit_and_nothing_of_it_is_changed(any_model):
    with torch.no_grad():
        before = any_model(IDS[None], use_cache=False).logits[0]
        assert torch.equal(Readout(any_model)(streams(any_model, IDS)[-1][0]), before)
        assert torch.equal(any_model(IDS[None], use_cache=False).logits[0], before)
    assert "forward" not in vars(structure(any_model).decoder)


def test_what_an_architecture_does_to_its_logits_is_done(tokenizer):
    """Granite divides them; no rule of ours knows that."""
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(GraniteConfig(**SIZE, intermediate_size=64, logits_scaling=3.0)).eval()
    with torch.no_grad():
        logits = model(IDS[None], use_cache=False).logits[0]
        assert torch.equal(Readout(model)(streams(model, IDS)[-1][0]), logits)
        assert not torch.allclose(model.lm_head(model.model(IDS[None]).last_hidden_state)[0], logits)


def test_logits_are_made_a_block_at_a_time(tokenizer, monkeypatch):
    model, sizes = build("llama"), []
    whole = lens(model, tokenizer, PROMPT)
    ordinary = Readout.__call__
    monkeypatch.setattr(lens_module, "LOGITS", 3 * 280)
    monkeypatch.setattr(Readout, "__call__", lambda self, h: sizes.append(len(h)) or ordinary(self, h))
    same(lens(model, tokenizer, PROMPT), whole)
    assert max(sizes) == 3


def test_numbers_that_are_nothing_stay_numbers():
    """A token that cannot be has the logarithm -inf, which must not make the divergence one of nothing."""
    half = torch.tensor([[0.5, 0.5, 0.0]]).log()
    assert kl(half, half).tolist() == [0.0]
    assert kl(half, torch.tensor([[0.25, 0.25, 0.5]]).log()).item() == pytest.approx(np.log(2))


def test_mistakes_are_sentences_and_long_prompts_are_cut(tokenizer):
    model = build("labgpt-learned")
    with pytest.raises(ValueError, match="prompt is empty"):
        lens(model, tokenizer, " ")
    with pytest.raises(ValueError, match="best=0 must be at least 1"):
        lens(model, tokenizer, PROMPT, best=0)
    found = lens(model, tokenizer, PROMPT * 30)
    assert len(found.tokens) == 96 and "only the first 96 are read" in found.note
    with pytest.raises(ValueError, match="not by 'hue'"):
        shades(found, "hue")
    model.model.layers[0].mlp.down_proj.weight.data[:] = torch.nan
    with pytest.raises(ValueError, match="scores are not numbers"):
        lens(model, tokenizer, PROMPT)


def test_figure_and_numbers_are_of_what_was_found(tokenizer):
    found = lens(build("qwen3"), tokenizer, "the cat sat on the cat")
    axis = draw(found, "rank").axes[0]
    image = np.ma.filled(axis.images[0].get_array(), np.nan)
    np.testing.assert_allclose(image, 1 / found.rank)
    words = [text.get_text() for text in axis.texts]
    assert len(words) == found.kl.size
    numbers = numbers_of(found)
    spelled = dict(zip(numbers["spelled"].tolist(), numbers["spellings"].tolist(), strict=True))
    assert words[0].replace("·", " ") == spelled[int(found.guesses[0, 0, 0])]


def test_a_token_in_a_cell_can_be_seen():
    assert word(" a\n") == "·a↵" and word("\x16") == "\\x16" and plain("$5") == "$5" and word("$5") == r"\$5"


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's business
def test_a_lora_adapter_is_read_as_if_it_were_merged(tokenizer):
    peft = pytest.importorskip("peft")
    torch.manual_seed(4)
    config = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    lora = peft.get_peft_model(build("qwen3"), config).eval()
    through = lens(lora, tokenizer, PROMPT)
    assert (through.kl[-1] == 0).all()
    same(through, lens(lora.merge_and_unload(), tokenizer, PROMPT))
