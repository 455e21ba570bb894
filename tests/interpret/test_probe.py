"""Probes: arithmetic by other implementations, planted directions found, chance on shuffled labels, every model."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from transformers import BitsAndBytesConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data.workspace import Workspace
from interpret import probe_cli
from interpret.probe import BATCH, SITES, activations, ids_to_place, probe, site_names
from interpret.probe_fit import (
    PENALTIES,
    control_labels,
    fit,
    logistic,
    shuffled_labels,
    split,
    standardised,
    wilson,
)
from interpret.probe_sets import Example, ProbeSet, open_set, read_set, written
from interpret.probe_templates import PLACES, TEMPLATES
from interpret.record import record
from tests.interpret.conftest import build

pytestmark = pytest.mark.usefixtures("one_thread")


def planted(N: int = 300, C: int = 20, strength: float = 4.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise (N, C) and two labels; one direction, no axis of the vectors, tells them apart."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, N)
    direction = np.ones(C) / np.sqrt(C)
    return random.normal(size=(N, C)) + strength * np.outer(labels - 0.5, direction), labels


# ── one probe ──


@pytest.mark.parametrize("C", [20, 400])  # fewer and more numbers than examples to fit
def test_a_planted_direction_is_found_and_shuffled_labels_are_not(C):
    x, labels = planted(C=C, strength=8.0)
    texts = np.arange(len(labels))
    parts = split(labels, texts, seed=0)
    assert fit(x, labels, texts, parts).accuracy > 0.9
    shuffled = [fit(x, shuffled_labels(labels, seed), texts, parts) for seed in range(5)]
    assert np.mean([score.accuracy for score in shuffled]) == pytest.approx(0.5, abs=0.08)  # 500 judgements: ± 0.045
    assert sum(score.low <= 0.5 <= score.high for score in shuffled) >= 4


def test_nothing_planted_nothing_found():
    x, labels = planted(strength=0.0, N=600)
    texts = np.arange(600)
    score = fit(x, labels, texts, split(labels, texts, 0))
    assert score.low < 0.5 < score.high
    assert score.penalty < max(PENALTIES)  # a weak penalty would only learn noise by heart


def test_the_probe_is_at_the_minimum_of_its_loss():
    """The gradient of ½‖w‖² + C·Σ cross-entropy, by hand, is zero there."""
    x, labels = planted(strength=1.0)
    model = logistic(x, labels, 0.1)
    w, b = model.coef_[0], model.intercept_[0]
    wrong = 1 / (1 + np.exp(-(x @ w + b))) - labels
    np.testing.assert_allclose(w + 0.1 * x.T @ wrong, 0, atol=2e-3)
    np.testing.assert_allclose(0.1 * wrong.sum(), 0, atol=2e-3)


def test_turning_many_numbers_onto_few_changes_no_prediction():
    x, labels = planted(N=60, C=200, strength=6.0)
    train = np.arange(40)
    few = standardised(x, train)
    plain = (x - x[train].mean(0)) / x[train].std(0)
    assert few.shape == (60, 40)
    one, other = (logistic(each[train], labels[train], 0.01).decision_function(each) for each in (few, plain))
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_constant_number_does_no_harm():
    x, _ = planted()
    x[:, 3] = 7.0
    assert np.isfinite(standardised(x, np.arange(200))).all()
    assert not standardised(x, np.arange(200))[:, 3].any()


@pytest.mark.parametrize(("right", "count"), [(0, 10), (7, 10), (40, 40), (95, 160)])
def test_the_interval_is_wilsons(right, count):
    expected = binomtest(right, count).proportion_ci(0.95, "wilson")
    assert wilson(right / count, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_texts_are_split_whole_and_labels_alike():
    texts = np.repeat(np.arange(60), 4)
    labels = np.tile([0, 0, 0, 1], 60)
    parts = split(labels, texts, seed=1)
    groups = [set(texts[part]) for part in (parts.fit, parts.validate, parts.test)]
    assert sum(map(len, groups)) == 60 == len(set.union(*groups))
    for part in (parts.fit, parts.validate, parts.test):
        assert labels[part].mean() == 0.25
    assert len(groups[2]) == 20


def test_control_labels_go_by_type_in_the_same_proportions():
    random = np.random.default_rng(0)
    types = random.integers(0, 60, 900)
    labels = random.choice(3, 900, p=[0.6, 0.3, 0.1])
    control = control_labels(labels, types, seed=0)
    for kind in range(60):
        assert len(set(control[types == kind])) == 1
    np.testing.assert_allclose(np.bincount(control) / 900, np.bincount(labels) / 900, atol=0.03)
    again = control_labels(labels, types, seed=1)
    assert (control != again).any()
    assert control_labels(labels, labels * 0, seed=0) is None  # one type cannot have three labels
    assert sorted(shuffled_labels(labels, 0)) == sorted(labels)


# ── labelled sets ──


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_sets_that_ship_are_sound(name):
    labelled = written(name, count=200)
    counts = Counter(example.label for example in labelled.examples)
    chance = 200 / len(counts)
    assert len({example.text for example in labelled.examples}) == 200
    assert all(0.5 * chance < count < 1.6 * chance for count in counts.values()), counts
    assert len({example.type for example in labelled.examples}) >= len(counts)
    assert written(name, count=200) == labelled != written(name, seed=1, count=200)


def test_the_labels_of_the_sets_are_true():
    for example in written("position").examples:
        assert example.label == f"word {1 + example.text.split().index(example.text[example.start : example.end])}"
    for example in written("number").examples:
        assert example.label == ("plural" if example.text.split()[1].endswith("s") else "singular")
    for example in written("tales-place", count=100).examples:
        assert example.text.endswith("home from the")
        assert [place for place in PLACES if f"the {place}" in example.text] == [example.label]
    for example in written("tales-hero", count=100).examples:
        assert not {"he", "she", "his", "her", "him"} & set(example.text.lower().replace(".", "").split())
        assert example.label == ("girl" if example.type in "Anna Clara Ella Ivy Jane Lily Mia Nora Ruby Zoe" else "boy")


def test_files_of_ones_own(tmp_path):
    rows = [(f"a good, long day {i}", "good" if i % 2 else "bad") for i in range(20)]
    table = tmp_path / "mine.csv"
    table.write_text("text,start,end,label\n" + "".join(f'"{text}",2,6,{label}\n' for text, label in rows))
    lines = tmp_path / "mine.jsonl"
    lines.write_text("".join(json.dumps({"text": t, "start": 2, "end": 6, "label": label}) + "\n" for t, label in rows))
    one, other = open_set(str(table)), open_set(str(lines))
    assert one.examples == other.examples
    assert one.examples[1] == Example("a good, long day 1", 2, 6, "good", "good")
    whole = read_set("text,label\n" + "".join(f"day {i},{i % 2}\n" for i in range(20)), "x").examples[3]
    assert whole == Example("day 3", 0, 5, "1", "3")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("text,what\na,b\n", "lacks the column label"),
        ("text,label\n" + "a,x\n" * 20, "has 1 labels"),
        ("text,label\n" + "".join(f"t{i},{i > 17}\n" for i in range(20)), "'True' in 2 texts only"),
        ("text,start,end,label\nabc,2,9,x\n", "line 2: the place 2 to 9"),
        ("text,start,end,label\nabc,two,3,x\n", "line 2: start and end are numbers"),
        ('{"text": "a"}\n', "line 1 has no label"),
        ('{"text": "a", }\n', "line 1 is not JSON"),
    ],
)
def test_what_cannot_be_read_is_told_by_its_line(content, said):
    with pytest.raises(ValueError, match=said):
        read_set(content, "mine")


def test_an_unknown_set_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'number'"):
        open_set("numbr")


# ── probes of a model ──


def cats(count: int = 60) -> ProbeSet:
    """Whether the last word is "cat"; words that the tests' tokenizer knows, in sentences of different lengths."""
    random = np.random.default_rng(0)
    examples = []
    for number in range(count):
        word = "cat" if number % 2 else "mat"
        text = " ".join([*random.choice(["the", "dog", "sat", "on"], 3 + number % 4), f"{number}", word])
        examples.append(Example(text, len(text) - 3, len(text), word, word))
    return ProbeSet("cats", "whether the last word is cat", tuple(examples))


def test_every_model_can_be_probed(any_model, tokenizer):
    labelled = cats()
    read, vectors, note = activations(any_model, tokenizer, labelled.examples, ["blocks.1.resid_post", "blocks.0.z"])
    assert len(read) == 60
    assert note == ""
    alone = record(any_model, ids_to_place(any_model, tokenizer, labelled.examples[7]), ["resid_post", "z"])
    np.testing.assert_allclose(vectors["blocks.1.resid_post"][7], alone["blocks.1.resid_post"][0, -1], atol=2e-5)
    np.testing.assert_allclose(vectors["blocks.0.z"][7], alone["blocks.0.z"][0, -1].flatten(), atol=2e-5)
    found = probe(any_model, tokenizer, labelled)
    assert [probed.layer for probed in found.layers] == [-1, 0, 1]
    assert found.layers[0].real.accuracy == 1  # the words end in different letters, which what enters still shows


def test_a_direction_planted_in_a_model_is_found_from_its_layer_on(tokenizer):
    """The feed-forward part of layer 1 is made to write one where the label is 1; the texts say nothing of it."""
    model = build("llama", num_hidden_layers=3)
    random = np.random.default_rng(1)
    # the probe reads "cat", before anything that differs
    examples = tuple(Example(f"the cat sat {n:03d}", 0, 7, str(random.integers(2)), "cat") for n in range(120))
    labelled = ProbeSet("planted", "what was planted", examples)
    direction = torch.nn.functional.normalize(torch.ones(32), dim=0)
    queue = iter(torch.tensor([int(example.label) for example in examples]).split(BATCH))  # read in this order
    hook = model.model.layers[1].mlp.register_forward_hook(
        lambda _module, _inputs, output: output + 50 * next(queue)[:, None, None] * direction
    )
    found = probe(model, tokenizer, labelled)
    hook.remove()
    for probed in found.layers:
        if probed.layer >= 1:
            assert probed.real.accuracy == 1
            assert probed.shuffled.low < 0.65
        else:
            assert probed.real.accuracy <= probed.real.majority + 1e-9


def test_one_layer_of_a_site_and_what_cannot_be_probed(tokenizer):
    model = build("labgpt")
    assert site_names(model, "mlp_out", [1]) == ["blocks.1.mlp_out"]
    assert "resid_post" in SITES
    with pytest.raises(ValueError, match="'pattern' has no vector for each token"):
        site_names(model, "pattern")
    with pytest.raises(ValueError, match="did you mean 'resid_post'"):
        site_names(model, "resid_pst")
    with pytest.raises(ValueError, match="no layer 5"):
        site_names(model, "resid_post", [5])


def test_places_beyond_the_model_are_left_out_and_told(tokenizer):
    model = build("labgpt-learned")
    long = Example("cat " * 200, 796, 799, "cat", "cat")
    found = probe(model, tokenizer, ProbeSet("x", "", (*cats().examples, long)))
    assert "1 examples are left out" in found.note
    assert found.fitted + found.held_out == 60


def test_an_adapted_model_can_be_probed(tokenizer):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(build("qwen3"), peft.LoraConfig(target_modules=["q_proj", "down_proj"]))
    assert probe(adapted, tokenizer, cats(), "mlp_out").layers[0].real.accuracy > 0.9


def test_a_4_bit_model_can_be_probed(tokenizer, tmp_path):
    pytest.importorskip("bitsandbytes")
    # the kernels of 4 bits take blocks of 64
    build("qwen3", hidden_size=64, head_dim=16).save_pretrained(tmp_path)
    small = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=small, device_map="cpu")
    found = probe(model, tokenizer, cats())
    assert [probed.layer for probed in found.layers] == [-1, 0, 1]
    assert found.layers[1].real.accuracy > 0.9


def test_the_command_writes_figure_numbers_and_json(tmp_path, tokenizer, capsys):
    build("llama").save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    mine = tmp_path / "cats.csv"
    mine.write_text("text,label\n" + "".join(f"{example.text},{example.label}\n" for example in cats().examples))
    out = tmp_path / "probe.svg"
    asked = [str(tmp_path / "model"), "--set", str(mine), "--out", str(out), "--workspace", str(tmp_path / "w")]
    assert probe_cli.main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    numbers = np.load(told["numbers"])
    assert out.is_file()
    assert [layer["layer"] for layer in told["layers"]] == numbers["layers"].tolist() == [-1, 0, 1]
    assert told["layers"][0]["accuracy"] == pytest.approx(numbers["real_accuracy"][0], abs=1e-4)
    assert "interpret.probe" in str(numbers["command"])
    assert probe_cli.main([*asked, "--layers", "1"]) == 0
    assert "40 examples to fit, 20 held out" in capsys.readouterr().out
    assert not (Workspace(tmp_path / "w").root).exists()
