"""A run that begins with another model's weights: the same function at first, then a training of its own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from data.workspace import Workspace
from hub.metrics import read_metrics
from hub.models import open_model, open_tokenizer
from hub.runs import Run, all_runs
from training.initial import architecture, weights_sha256
from training.launch import command_words, create
from training.recipe import OPTIMIZER_DEFAULTS, parse_flags, read_recipe

TRAIN = [
    *("--train.steps", "8", "--train.save_every", "4", "--train.log_every", "2", "--train.compile", "false"),
    *("--train.context", "32", "--train.batch_size", "4", "--train.threads", "1", "--train.eval_sequences", "4"),
    *("--train.eval_every", "4", "--train.sample_every", "8", "--train.diagnose_every", "8"),
]  # fmt: skip
MODEL = [
    *("--model.hidden_size", "16", "--model.num_hidden_layers", "2", "--model.num_attention_heads", "2"),
    *("--model.hidden_act", "gelu", "--data.tokenizer", "char"),
]  # fmt: skip


@pytest.fixture(scope="module")
def finished(pretrain, milk, tmp_path_factory) -> Path:
    workspace = tmp_path_factory.mktemp("base")
    code, output = pretrain(workspace, *TRAIN, *MODEL, "--data.corpus", str(milk), "--run-name", "base")
    assert code == 0, output
    return workspace


@pytest.fixture
def workspace(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "workspace")


def newest(workspace: Path) -> Run:
    return all_runs(Workspace(workspace))[0]


def begun(pretrain, workspace: Path, milk: Path, base: str, *flags: str, **order) -> tuple[Run, str]:
    words = ["--init-from", base, "--data.corpus", str(milk), *TRAIN, "--run-name", "next"]
    code, output = pretrain(workspace, *words, *flags, **order)
    assert code == (-9 if order else 0), output
    return newest(workspace), output


def test_it_begins_with_the_weights_and_nothing_else(pretrain, workspace, milk):
    base = newest(workspace)
    run, output = begun(pretrain, workspace, milk, "base@4", "--model.hidden_dropout", "0.1")
    assert f"{run.id} begins with the weights of {base.id}@step-000004; the optimizer starts afresh\n" in output
    there = load_file(base.path / "checkpoints" / "step-000004" / "model.safetensors")
    here = load_file(run.path / "checkpoints" / "step-000000" / "model.safetensors")
    assert there.keys() == here.keys() and all(torch.equal(there[name], here[name]) for name in there)
    inputs = run.info()["inputs"]
    assert inputs["base"] == {"id": base.id, "revision": "step-000004", "sha256": weights_sha256(there)}
    assert inputs["tokenizer"] == base.info()["inputs"]["tokenizer"] and "parent" not in inputs
    recipe = read_recipe(run.path / "recipe.yaml")
    assert (recipe["model"]["hidden_act"], recipe["model"]["hidden_dropout"]) == ("gelu", 0.1)
    assert recipe["train"]["learning_rate"] == OPTIMIZER_DEFAULTS["muon"]["learning_rate"]
    columns = read_metrics(run.path)
    assert columns["step"] == list(range(1, 9))
    assert columns["learning_rate"][0] == read_metrics(base.path)["learning_rate"][0]  # warming up from nothing
    assert abs(columns["train_loss"][0] - read_metrics(base.path)["train_loss"][4]) < 0.3  # not from ln V again


def test_killed_before_its_first_checkpoint_it_begins_there_again(
    pretrain, workspace, milk, tmp_path, assert_same_bits
):
    whole, _ = begun(pretrain, workspace, milk, "base")
    run, _ = begun(pretrain, workspace, milk, whole.info()["inputs"]["base"]["id"], kill=["step", 3])
    shutil.rmtree(next(path for path in (workspace / "runs").glob("base-*")))  # nothing of the base is needed any more
    code, output = pretrain(workspace, "--resume", run.id)
    assert code == 0, output
    assert_same_bits(whole.path, run.path)


def test_a_launched_run_begins_the_same(pretrain, workspace, milk, assert_same_bits):
    whole, _ = begun(pretrain, workspace, milk, "base@4")
    run = create(parse_flags([*TRAIN, "--data.corpus", str(milk)]), Workspace(workspace), "next", base="base@4")
    assert run.info()["command"][3:5] == ["--init-from", "base@4"]
    code, output = pretrain(workspace, "--resume", run.id, launched=str(run.path))
    assert code == 0, output
    assert_same_bits(whole.path, run.path)
    assert run.info()["inputs"] == whole.info()["inputs"]


def test_a_folder_of_another_architecture(pretrain, workspace, milk, tmp_path):
    """Any causal model with its tokenizer; the vocabulary may be padded, and no path is in the record."""
    tokenizer = open_tokenizer("base", Workspace(workspace))
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + 9, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    folder = tmp_path / "models" / "small-llama"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    run, _ = begun(pretrain, workspace, milk, str(folder))
    base = run.info()["inputs"]["base"]
    assert (base["id"], base["revision"]) == ("small-llama", None)
    assert str(tmp_path) not in json.dumps(base)
    first, _ = open_model(f"{run.id}@0", Workspace(workspace))
    assert first.config.vocab_size == config.vocab_size
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = LlamaForCausalLM.from_pretrained(folder)(ids).logits
        torch.testing.assert_close(first(ids).logits, expected, rtol=0, atol=0)
    assert architecture(first.config)["model_type"] == "llama"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.hidden_size", "32"], ["does not fit", "16", "32"]),
        (["--model.preset", "tiny"], ["does not fit", "model.preset"]),
        (["--model.model_type", "gpt2"], ["is a labgpt, not a gpt2"]),
        (["--data.tokenizer", "other@v1"], ["another vocabulary", "other@v1", "leave data.tokenizer out"]),
        (["--train.context", "64"], ["train.context 64", "max_position_embeddings 32"]),
    ],
)
def test_what_does_not_fit_is_one_sentence(pretrain, workspace, milk, flags, words):
    before = len(all_runs(Workspace(workspace)))
    other = shutil.copytree(next((workspace / "tokenizers").glob("*@v1")), workspace / "tokenizers" / "other@v1")
    file = other / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    one, two = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    file.write_text(json.dumps(content))
    words_of = ["--init-from", "base", "--data.corpus", str(milk), *TRAIN, *flags]
    code, output = pretrain(workspace, *words_of)
    assert code == 2 and "Traceback" not in output, output
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in line, line
    assert len(all_runs(Workspace(workspace))) == before


@pytest.mark.parametrize("other", ["--resume", "--fork"])
def test_it_goes_with_no_other_beginning(pretrain, workspace, other):
    code, output = pretrain(workspace, "--init-from", "base", other, "base")
    assert code == 2 and "--init-from begins a new run" in output


def test_the_command_that_is_shown():
    assert command_words({}, base="Qwen/Qwen3-0.6B@main")[3:] == ["--init-from", "Qwen/Qwen3-0.6B@main"]
