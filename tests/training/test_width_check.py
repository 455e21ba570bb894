"""The width check: what it measures is what the library's own hidden states say, at widths it says."""

import json

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig

from training.width_check import Widths, draw, main, show, watching, widened

FLAGS = ["--train.context", "16", "--train.batch_size", "2", "--train.threads", "1", "--train.device", "cpu"]
MODEL = ["--model.hidden_size", "32", "--model.num_hidden_layers", "2", "--model.num_attention_heads", "4"]


@pytest.fixture(scope="module")
def flags(tmp_path_factory, milk):
    """The flags of a check on a small corpus and a small model."""
    folder = tmp_path_factory.mktemp("width")
    data = ["--data.corpus", str(milk), "--data.tokenizer", "char", "--workspace", str(folder)]
    return [*data, *FLAGS, *MODEL]


def test_activations_are_the_mean_of_the_magnitudes():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_embd=8, n_layer=3, n_head=2, n_positions=16)).eval()
    ids = torch.randint(0, 11, (2, 9))
    with watching(model) as sizes:
        out = model(ids, output_hidden_states=True)
    assert list(sizes) == ["embeddings", "layer 0", "layer 1", "layer 2", "logits"]
    for i in (0, 1):  # the last hidden state is behind the final norm
        assert sizes[f"layer {i}"].item() == pytest.approx(out.hidden_states[i + 1].abs().mean().item())
    assert sizes["embeddings"].item() == pytest.approx(model.transformer.wte(ids).abs().mean().item())
    assert sizes["logits"].item() == pytest.approx(out.logits.abs().mean().item())


def test_the_power_is_the_slope_of_a_straight_line():
    widths = np.array([32, 64, 128, 256])
    sizes = np.stack([np.stack([3 * widths**0.5, widths**-1.0, np.full(4, 7.0)], axis=1)])
    assert Widths(widths.tolist(), ["a", "b", "c"], sizes).powers(0) == pytest.approx([0.5, -1, 0])


def test_a_wider_model_has_more_heads_of_the_same_size():
    config = LlamaConfig(hidden_size=64, num_attention_heads=8, num_key_value_heads=4, intermediate_size=172)
    wider = widened({"model_type": "llama", "hidden_size": 64, "rope_theta": 5.0}, config, 256)
    assert wider == {
        "model_type": "llama", "rope_theta": 5.0, "hidden_size": 256,
        "num_attention_heads": 32, "num_key_value_heads": 16, "intermediate_size": 688,
    }  # fmt: skip
    assert widened({"n_embd": 64}, GPT2Config(n_embd=64, n_head=4), 32) == {"n_embd": 32, "n_head": 2}
    with pytest.raises(ValueError, match="take a multiple of 16"):
        widened({}, config, 24)


def test_the_command_trains_four_widths_and_draws_them(flags, tmp_path, capsys):
    assert main([*flags, "--steps", "2", "--json", "--out", str(tmp_path / "w.png")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["widths"] == [8, 16, 32, 64]
    assert said["layers"] == ["embeddings", "layer 0", "layer 1", "logits"]
    sizes = np.array(said["mean_abs"])
    assert sizes.shape == (3, 4, 4) and (sizes > 0).all()
    # fresh embeddings are N(0, 1/C), blocks begin as the identity: mean |x| = sqrt(2 / pi / C)
    expected = np.sqrt(2 / np.pi / np.array(said["widths"]))
    assert sizes[0, :, 0] == pytest.approx(expected, rel=0.25)
    assert np.allclose(sizes[0, :, 0], sizes[0, :, 1])
    assert not np.allclose(sizes[0], sizes[2], rtol=1e-3)  # trained
    assert {path.name for path in tmp_path.iterdir()} == {"w.png", "w.svg"}
    assert main([*flags, "--steps", "2", "--json", "--out", str(tmp_path / "w.png")]) == 0
    assert json.loads(capsys.readouterr().out)["mean_abs"] == said["mean_abs"]  # the same seed


def test_table_and_figure_show_the_numbers():
    found = Widths([8, 16], ["embeddings", "logits"], np.array([[[1.0, 4.0], [1.0, 8.0]], [[2.0, 4.0], [2.0, 16.0]]]))
    said = show(found)
    assert [line.split() for line in said.splitlines()[1:3]] == [
        ["embeddings", "2", "2", "+0.00", "+0.00"], ["logits", "4", "16", "+2.00", "+1.00"],
    ]  # fmt: skip
    axes = draw(found).axes
    assert [axis.get_title(loc="left") for axis in axes] == ["at the start", "after 1 step"]
    assert axes[1].lines[1].get_xydata().tolist() == [[8, 4], [16, 16]]


def test_mistakes_are_one_sentence(flags):
    with pytest.raises(ValueError, match="--width 12 would cut a head of this recipe in two: take a multiple of 8"):
        main([*flags, "--width", "12"])
    with pytest.raises(ValueError, match="--steps 0 should be 1 or more"):
        main([*flags, "--steps", "0"])
