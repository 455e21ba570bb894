"""The doctor's report, and the figures it rests on."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from training import doctor
from training.machine import choose_device, flops_per_token, matrix_peak
from training.setup import count_parameters


def test_report(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["doctor", "--json", "--workspace", str(tmp_path / "not" / "yet")])
    monkeypatch.setattr(doctor, "STEPS", 1)
    assert doctor.main() == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["rooms"]) == set(doctor.ROOMS) and all(room["ok"] for room in report["rooms"].values())
    assert report["workspace"] == {**report["workspace"], "exists": False, "writable": True}
    cpu = report["devices"][-1]
    assert cpu["device"] == "cpu" and cpu["gigaflops"]["fp32"] > 0 and cpu["step"]["tokens_per_second"] > 0
    text = doctor.describe(report)
    assert "not made yet" in text and "GFLOP/s" in text


def test_a_shadowed_room_is_reported(monkeypatch):
    found = doctor.importlib.util.find_spec
    other = SimpleNamespace(origin="/elsewhere/data/__init__.py")
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: other if name == "data" else found(name))
    rooms = doctor.rooms()
    assert not rooms["data"]["ok"] and rooms["hub"]["ok"]


def test_a_device_that_is_not_there_is_named():
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(ValueError, match=r"'cuda' is not on this machine, which has: .*cpu"):
        choose_device("cuda")


@pytest.mark.parametrize("tied", [False, True])
def test_flops_agree_with_torchs_own_count(tied):
    """Six per parameter and token, and attention on top: against the operations torch counts, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    from modeling import LabGPTConfig, LabGPTForCausalLM

    config = LabGPTConfig(
        vocab_size=96, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, tie_word_embeddings=tied
    )
    config._attn_implementation = "eager"
    model = LabGPTForCausalLM(config)
    ids = torch.randint(0, 96, (2, 48))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids, labels=ids).loss.backward()
    non_embedding = count_parameters(model)["parameters_non_embedding"]
    assert counter.get_total_flops() / ids.numel() == pytest.approx(
        flops_per_token(config, non_embedding, 48), rel=0.01
    )


def test_the_peak_is_above_a_single_small_product():
    assert matrix_peak(seconds=0.05, size=256) > 1e9
