"""The tuned lens: gradients by definition, a translation that was planted, training in the lab, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import BitsAndBytesConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data.corpora import open_corpus
from data.workspace import Workspace
from hub.models import open_model
from hub.runs import Run
from interpret import lens as lens_module
from interpret.lens import Lens, Readout, lens, streams
from interpret.lens_cli import main
from interpret.structure import structure
from interpret.tuned_lens import Settings, Translators, descend, folder_of, mean_kl, model_sha256, read_tuned, train
from interpret.tuned_lens_cli import main as tuned_main
from tests.interpret.conftest import build

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "the cat sat on the mat, and the dog sat on the cat."
IDS = torch.tensor([5, 9, 200, 31, 7, 7, 64, 270, 12, 5, 9, 200])


def same(one: Lens, other: Lens) -> None:
    for name in ("probabilities", "true_probability", "rank", "kl", "entropy"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), atol=1e-5, err_msg=name)


def test_translators_that_do_nothing_are_the_logit_lens(any_model, tokenizer):
    nothing = Translators(torch.zeros(2, 32, 32), torch.zeros(2, 32))
    tuned = lens(any_model, tokenizer, PROMPT, nothing)
    assert tuned.tuned
    same(tuned, lens(any_model, tokenizer, PROMPT))


def planted(bias: torch.Tensor):
    """A model whose last layer adds the same vector at every position, and nothing else."""
    model = build("labgpt-alibi")
    last = structure(model).layers[-1]
    for matrix in (last.output, last.down):
        matrix.weight.data.zero_()
        matrix.bias.data.zero_()
    last.down.bias.data.copy_(bias)
    return model


def test_a_planted_translation_is_undone_and_learnt(tokenizer):
    bias = torch.randn(32, generator=torch.Generator().manual_seed(0)) * 20
    model = planted(bias)
    known = Translators(torch.zeros(2, 32, 32), torch.stack([torch.zeros(32), bias]))
    assert lens(model, tokenizer, PROMPT, known).kl[1].max() < 1e-5
    assert lens(model, tokenizer, PROMPT).kl[1].mean() > 0.1

    def batch(step: int) -> torch.Tensor:
        return torch.randint(0, 280, (8, 16), generator=torch.Generator().manual_seed(step))

    before = model_sha256(model)
    learnt = mean_kl(model, [batch(1000)[0]], train(model, batch, Settings(steps=40)))
    assert learnt["tuned"][1] < 0.1 * learnt["logit"][1]
    assert model_sha256(model) == before and all(p.grad is None for p in model.parameters())


def test_gradients_are_those_of_the_mean_whatever_the_blocks(monkeypatch):
    model, ids = build("labgpt-sinusoidal"), IDS.reshape(2, 6)
    rows = streams(model, ids)

    def gradients() -> list[torch.Tensor]:
        pairs = [[torch.full(shape, 0.01, requires_grad=True) for shape in ((32, 32), (32,))] for _ in range(2)]
        loss = descend(Readout(model), rows, pairs)
        return [torch.tensor(loss), *(part.grad for pair in pairs for part in pair)]

    parts = [torch.full(shape, 0.01, requires_grad=True) for shape in ((32, 32), (32,)) * 2]
    final = by_definition(model, rows[2].flatten(0, 1))
    losses = []
    for row in (0, 1):
        h = rows[row].flatten(0, 1)
        lens_says = by_definition(model, h + h @ parts[2 * row].T + parts[2 * row + 1])
        losses.append((final.exp() * (final - lens_says)).sum(-1).mean())
    wanted = [sum(losses) / 2, *torch.autograd.grad(sum(losses), parts)]
    for size in (10**9, 280 * 5):
        monkeypatch.setattr(lens_module, "LOGITS", size)
        torch.testing.assert_close(gradients(), [one.detach() for one in wanted], atol=1e-5, rtol=1e-4)


def by_definition(model, hidden: torch.Tensor) -> torch.Tensor:
    return (5 * torch.tanh(model.lm_head(model.model.norm(hidden)) / 5)).log_softmax(-1)


# ── with a run, from the terminal ──


@pytest.fixture(scope="module")
def lab(tokenizer, tmp_path_factory):
    """A workspace with a run: a tiny model that was really trained, on text that calls for more than one layer."""
    root = tmp_path_factory.mktemp("lab")
    random = np.random.default_rng(0)
    lines = [" ".join(random.choice(["the cat", "the dog", "sat on", "the mat,", "and"], 6)) for _ in range(300)]
    (root / "lines.txt").write_text("\n".join(lines))
    workspace = Workspace(root / "workspace")
    corpus = open_corpus(root / "lines.txt", workspace)
    ids = torch.tensor(tokenizer("\n".join(lines))["input_ids"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in `one_thread`, which is for a test alone
    model = build("labgpt", initializer_range=0.1).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(60):
        at = torch.randint(0, len(ids) - 32, (16,), generator=torch.Generator().manual_seed(step))
        batch = torch.stack([ids[i : i + 32] for i in at])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    assert loss < 2.5  # it has learnt something: ln 280 is 5.6

    def fill(folder):
        model.eval().save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    inputs = {"corpus": {"name": corpus.name, "sha256": corpus.sha256}}
    return workspace, Run.create(workspace, "tiny", "import", ["made"], "", 0, inputs, fill=fill)


def test_trained_in_the_lab_it_is_nearer_on_held_out_text_and_found_again(lab, capsys, monkeypatch):
    workspace, run = lab
    command = [run.id, "--steps", "60", "--batch-size", "4", "--context", "24", "--json", "--workspace", workspace.root]
    assert tuned_main([str(word) for word in command]) == 0
    told = json.loads(capsys.readouterr().out)
    for logit, tuned in zip(told["held_out"]["logit"], told["held_out"]["tuned"], strict=True):
        assert tuned < 0.8 * logit
    folder = run.path / "lens" / "main"
    assert told["lens"] == str(folder) and told["corpus"] == run.info()["inputs"]["corpus"]
    with np.load(told["numbers"]) as numbers:
        np.testing.assert_allclose(numbers["tuned"], told["held_out"]["tuned"])

    monkeypatch.setattr("interpret.tuned_lens_cli.train", None)  # it is there: nothing is trained again
    assert tuned_main([str(word) for word in command]) == 0
    assert json.loads(capsys.readouterr().out) == told

    # the other command reads through it, and says what the library says
    words = [run.id, "--prompt", PROMPT, "--tuned", "--json", "--workspace", str(workspace.root)]
    assert main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    model, tokenizer = open_model(run.path)
    tuned = read_tuned(folder, model, run.id).translators
    same(lens(model, tokenizer, PROMPT, tuned), numbered(shown))
    assert np.mean(shown["kl"][0]) < lens(model, tokenizer, PROMPT).kl[0].mean()


def numbered(shown: dict) -> Lens:
    """The arrays again, from the file behind a figure."""
    with np.load(shown["numbers"]) as found:
        arrays = {
            name: found[name] for name in ("guesses", "probabilities", "true_probability", "rank", "kl", "entropy")
        }
    return Lens(True, shown["tokens"], shown["ids"], shown["rows"], **arrays, spellings={}, note="")


def test_another_models_lens_is_refused(lab, tmp_path):
    _, run = lab
    model, _ = open_model(run.path)
    with pytest.raises(ValueError, match=r"no tuned lens yet: train one with `python -m interpret.tuned_lens it`"):
        read_tuned(tmp_path / "none", model, "it")
    folder = shutil.copytree(run.path / "lens" / "main", tmp_path / "lens")
    model.model.layers[0].mlp.down_proj.weight.data[0, 0] += 1e-3
    with pytest.raises(ValueError, match="trained for other weights"):
        read_tuned(folder, model, "it")
    (folder / "translators.safetensors").write_bytes(b"half a file")
    with pytest.raises(ValueError, match="damaged"):
        read_tuned(folder, model, "it")


def test_each_revision_has_its_own_place_and_only_runs_are_written_into(tmp_path):
    workspace, run, other = Workspace(tmp_path / "w"), tmp_path / "runs" / "a-123456", tmp_path / "model"
    (run / "checkpoints" / "step-000500").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    assert folder_of(run, workspace) == run / "lens" / "main"
    assert folder_of(run / "checkpoints" / "step-000500", workspace) == run / "lens" / "step-000500"
    assert (
        folder_of(other, workspace).parent == folder_of("Qwen/Qwen3-0.6B", workspace).parent == tmp_path / "w" / "lens"
    )
    assert folder_of(other, workspace) != folder_of(tmp_path / "x" / "model", workspace)


@pytest.mark.parametrize("name", ["steps", "batch_size", "context", "learning_rate"])
def test_settings_that_cannot_be_are_refused(name):
    with pytest.raises(ValueError, match=f"{name}=0 must be more than 0"):
        Settings(**{name: 0})


def test_four_bits_are_read_and_a_lens_is_trained_on_them(tmp_path):
    pytest.importorskip("bitsandbytes")
    build("qwen3", hidden_size=64, intermediate_size=128, head_dim=16).save_pretrained(tmp_path)
    four = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=four).eval()
    with torch.no_grad():
        logits = model(IDS[None], use_cache=False).logits[0]
        torch.testing.assert_close(Readout(model)(streams(model, IDS)[-1][0]), logits)
    learnt = train(model, lambda step: IDS[None], Settings(steps=5))
    found = mean_kl(model, [IDS], learnt)
    assert np.less(found["tuned"], found["logit"]).all()
