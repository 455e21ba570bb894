"""Timelines: each number against a calculation of its own, points measured once, and a circuit seen to appear."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hub.checkpoints import checkpoints, save_checkpoint
from hub.metrics import Metrics
from hub.runs import Run
from interpret import timeline as module
from interpret.structure import structure
from interpret.timeline import collect, compute, default_texts, formed, kept, missing, place, revisions
from interpret.timeline_cli import main, show
from interpret.timeline_figure import lines_of
from interpret.timeline_measure import BY_HEAD, BY_LEVEL, Settings, measure
from tests.interpret.conftest import build
from tests.interpret.test_heads import circuit

pytestmark = pytest.mark.usefixtures("one_thread")
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
TEXTS = ("the cat sat on the mat", "the dog sat on the cat, and the mat")


def reference(model, ids: list[int]) -> dict:
    """Entropies, lens and norms of one text, by the library's own outputs and loops in float64."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_attentions=True, output_hidden_states=True, use_cache=False)
        final = out.logits[0].double().log_softmax(-1)
        cap, kls = getattr(model.config, "final_logit_softcapping", None), []
        for hidden in out.hidden_states[:-1]:  # the library's last one is behind the final norm
            logits = model.get_output_embeddings()(structure(model).final_norm(hidden[0])).double()
            logits = cap * torch.tanh(logits / cap) if cap else logits
            kls.append(float((final.exp() * (final - logits.log_softmax(-1))).sum(-1).mean()))
    model.set_attn_implementation(before)
    window = getattr(model.config, "sliding_window", None) or len(ids)
    entropy = [
        [
            np.mean([-sum(p * np.log(p) for p in row[:t + 1].tolist() if p > 0) / np.log(min(t + 1, window))
                     for t, row in enumerate(weights.double()) if t > 0])
            for weights in layer[0]
        ]
        for layer in out.attentions
    ]  # fmt: skip
    norms = [float(hidden[0].double().square().sum(-1).sqrt().mean()) for hidden in out.hidden_states[:-1]]
    return {"entropy": np.array(entropy), "lens_kl": kls, "norm": norms, "tokens": len(ids) - 1}


def test_a_point_is_what_the_model_says(any_model, tokenizer):
    point = measure(any_model, tokenizer, Settings.of(TEXTS, ["L1H2"]))
    begin = [tokenizer.bos_token_id]
    found = [reference(any_model, begin + tokenizer(text)["input_ids"]) for text in TEXTS]
    weights = [one["tokens"] for one in found]
    for name in ("entropy", "lens_kl", "norm"):
        expected = np.average([one[name] for one in found], axis=0, weights=weights)
        got = np.array(point[name])[: len(expected)]
        assert got == pytest.approx(expected, abs=2e-3 * max(1, np.abs(expected).max())), name
    assert len(point["lens_kl"]) == len(point["norm"]) == 3 and point["lens_kl"][-1] == 0
    assert np.shape(point["induction"]) == (2, 4) and point["layers"] == [0, 1]
    assert point["loss_second_without"] != point["loss_second"]


def test_linear_attention_has_a_timeline_without_heads(tokenizer):
    point = measure(build("labgpt", attention="linear"), tokenizer, Settings.of(TEXTS))
    assert not set(point) & {*BY_HEAD, "loss_first"} and len(point["lens_kl"]) == 3


@pytest.fixture
def run(workspace) -> Run:
    """Three checkpoints of the circuit built by hand: nothing is written, the first layer writes, both do."""
    return life(workspace)


def life(workspace) -> Run:
    run = Run.create(workspace, "life", "pretrain", ["python"], "", 0, {})
    backend = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(ALPHABET)}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    for writing, step in enumerate((10, 20, 30)):
        model = circuit(vocabulary=len(ALPHABET), length=20)
        with torch.no_grad():
            for layer in model.model.layers[writing:]:
                layer.self_attn.o_proj.weight.zero_()

        def write(folder, model=model):
            model.save_pretrained(folder)
            PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="a").save_pretrained(folder)

        save_checkpoint(run, step, write, lambda folder: None)
    metrics = Metrics(run.path)
    for step in (10, 20, 30):
        metrics.add(step, train_loss=4.0 - step / 10, val_loss=4.5 - step / 10)
    metrics.close()
    return run


LETTERS = Settings.of([ALPHABET[:16], ALPHABET[16:]], ["L1H0"])


def test_a_circuit_is_seen_to_form_and_removing_it_undoes_the_copying(run):
    paths = revisions(run)
    assert [path.name for path in compute(run, LETTERS, paths)] == ["step-000010", "step-000020", "step-000030"]
    timeline = collect(run, LETTERS, paths)
    assert timeline.steps == [10, 20, 30] and timeline.curve["validation"] == ([10, 20, 30], [3.5, 2.5, 1.5])
    induction = timeline.values["induction"][:, 1, 0]
    assert induction[0] < 0.1 and (induction[1:] > 0.9).all()  # it looks there before it writes what it sees
    second, without = timeline.values["loss_second"], timeline.values["loss_second_without"]
    assert second[2] < 0.5 * second[1] and without[2] == pytest.approx(second[1], rel=0.01)
    became = {(one["head"], one["kind"]): one["step"] for one in formed(timeline)}
    assert became == {("L0H0", "previous token"): 10, ("L1H0", "induction"): 20}
    assert lines_of(timeline, "induction")[0][1] == "L1H0"


def test_a_point_is_measured_once_and_again_only_where_it_must(run, monkeypatch):
    paths, calls = revisions(run), []
    monkeypatch.setattr(module, "measure", lambda model, tokenizer, settings: calls.append(1) or {"layers": [0]})
    list(compute(run, LETTERS, paths))
    assert len(calls) == 3 and not missing(run, LETTERS, paths) and not list(compute(run, LETTERS, paths))
    assert missing(run, Settings.of(["other text"]), paths) == paths
    place(run, LETTERS, paths[1]).write_text('{"weights": ')  # torn
    torn = json.loads(place(run, LETTERS, paths[2]).read_text())
    place(run, LETTERS, paths[2]).write_text(json.dumps({**torn, "weights": "of another model"}))
    assert missing(run, LETTERS, paths) == paths[1:]
    first = compute(run, LETTERS, paths)
    next(first)
    first.close()  # interrupted: what was measured is kept
    assert missing(run, LETTERS, paths) == paths[2:] and kept(run, LETTERS, paths[0]) == {"layers": [0]}
    assert checkpoints(run) == paths  # no checkpoint was touched
    assert [path.name for path in revisions(run, 2)] == ["step-000010", "step-000030"]
    assert [path.name for path in revisions(run, 9)] == ["step-000010", "step-000030"]


def test_the_command_draws_tells_and_keeps_the_numbers(run, workspace, tmp_path, capsys):
    out = tmp_path / "life.png"
    asked = ["life", "--prompt", ALPHABET, "--workspace", str(workspace.root), "--without", "l1h0", "--out", str(out)]
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["without"] == ["L1H0"] and set(told["values"]) >= set(BY_LEVEL) - {"probe"}
    numbers = np.load(out.with_suffix(".npz"))
    assert out.is_file() and "interpret.timeline life" in str(numbers["command"])
    assert numbers["steps"].tolist() == [10, 20, 30] and numbers["induction"].shape == (3, 2, 2)
    assert np.allclose(told["values"]["loss_second"], numbers["loss_second"], atol=1e-6)
    settings = Settings.of([ALPHABET], ["L1H0"])
    said = show(collect(run, settings, revisions(run)))
    assert "L1H0 is an induction head from step 20 on" in said and "L0H0 is a previous token head" in said
    assert f"{numbers['loss_second'][2]:.3f}" in said.splitlines()[3]


def test_a_probe_at_each_checkpoint(run, tmp_path):
    rows = [
        f"{text}{i % 7}{'abcdefgh'[i % 8]},{label}" for i in range(40) for text, label in (("aa", "x"), ("zz", "y"))
    ]
    (tmp_path / "set.csv").write_text("text,label\n" + "\n".join(dict.fromkeys(rows)) + "\n")
    settings = Settings.of(["abcdefgh"], probe=str(tmp_path / "set.csv"))
    path = revisions(run)[0]
    list(compute(run, settings, [path]))
    accuracy = collect(run, settings, [path]).values["probe"]
    assert accuracy.shape == (1, 3) and (accuracy >= 0).all() and (accuracy <= 1).all()
    (tmp_path / "set.csv").write_text("\n".join(["text,label", *rows[:40]]))
    assert Settings.of(["abcdefgh"], probe=str(tmp_path / "set.csv")).key != settings.key


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "the corpus that life-.* was trained on is not in the workspace"),
        (["--prompt", "abc", "--every", "0"], "every 0-th checkpoint"),
        (["--prompt", "abc", "--without", "head3"], "names no part of a model"),
        (["--prompt", "abc", "--without", "L7H0"], "there is no layer 7"),
        (["--prompt", "a"], "single token"),
    ],
)
def test_mistakes_are_sentences(run, workspace, words, sentence):
    with pytest.raises(ValueError, match=sentence):
        main(["life", *words, "--workspace", str(workspace.root)])


def test_a_run_without_checkpoints_is_refused(workspace):
    empty = Run.create(workspace, "empty", "pretrain", ["python"], "", 0, {})
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        revisions(empty)
    with pytest.raises(ValueError, match="give a prompt"):
        default_texts(empty, workspace)
