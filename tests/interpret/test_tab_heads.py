"""What stands below the attention view: numbers by layer, and what each head looks like; and the same as a command."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from data.access import Access
from interpret.attention import STATISTICS, patterns, statistics
from interpret.attention_cli import main
from interpret.heads import KINDS, looks_like
from interpret.tab_heads import by_layer, chosen_head, drawn, saved, scored
from tests.interpret.conftest import build
from tests.interpret.test_timeline import ALPHABET, life

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_model_has_charts_by_layer_and_maps_by_head(any_model, tokenizer):
    attention = patterns(any_model, tokenizer, "the cat sat on the mat, and the dog sat")
    charts = by_layer(attention)
    assert charts.count("<figure") == len(STATISTICS) and "mean over heads" in charts
    mean = statistics(attention.weights, attention.windows)["distance"].mean(1)
    assert f"[[0,{float(f'{mean[0]:.5g}'):g}]" in charts.replace("&quot;", "").replace(" ", "")
    found = looks_like(any_model, tokenizer, attention.ids)
    maps = drawn(found)
    assert maps.count('data-act="head"') == len(KINDS) * 8 and f"{found.loss_second:.2f} the second" in maps
    assert f"L1H3: {found.scores['induction'][1, 3]:.3f}" in maps


@pytest.fixture
def access(workspace) -> Access:
    life(workspace)
    return Access(workspace)


def test_a_circuit_is_called_by_its_name_on_the_page_and_by_the_command(access, capsys, tmp_path):
    assert "L1H0 induction (0.9" in scored(access, "life@step-000030", ALPHABET)
    assert chosen_head(SimpleNamespace(row="1", column="0")) == "L1H0"
    asked = ["life@30", "--prompt", ALPHABET, "--workspace", str(access.workspace.root), "--by-layer"]
    assert main([*asked, "--out", str(tmp_path / "layers.png")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1][:2] == ["0", "0"] and rows[1][-2:] == ["previous", "token"]
    assert rows[3][:2] == ["1", "0"] and rows[3][-1] == "induction" and rows[4][-1] == "–"
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["looks_like"]["L1H0"]["kind"] == "induction" and set(told["looks_like"]) == {"L0H0", "L1H0"}
    assert np.load(told["numbers"])["score_induction"][1, 0] == pytest.approx(
        told["looks_like"]["L1H0"]["score"], abs=1e-3
    )
    with pytest.raises(ValueError, match="leave out --layer and --head"):
        main([*asked, "--layer", "0", "--head", "0"])


def test_the_grid_is_saved_with_its_command_unless_the_page_only_shows(access):
    said = saved(access, "life@30", ALPHABET)
    assert "Saved figures/attention-life-30.png" in said and "interpret.attention life@30 --prompt" in said
    assert (access.workspace.root / "figures" / "attention-life-30.npz").is_file()
    with pytest.raises(ValueError, match="read-only"):
        saved(Access(access.workspace, read_only=True), "life@30", ALPHABET)


def test_linear_attention_is_refused_in_a_sentence(tokenizer):
    with pytest.raises(ValueError, match="no softmax attention"):
        looks_like(build("labgpt", attention="linear"), tokenizer, list(range(20, 40)))
