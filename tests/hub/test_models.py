"""Whatever a person may call a model opens: runs, revisions, folders; what is none gets one sentence."""

import re

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from hub.card import write_card
from hub.checkpoints import publish, save_checkpoint
from hub.models import open_config, open_model, open_tokenizer, resolve
from modeling import LabGPTConfig, LabGPTForCausalLM

LETTERS = ["<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz ."]
SIZE = {"vocab_size": len(LETTERS), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
ARCHITECTURES = {
    "labgpt": lambda: LabGPTForCausalLM(LabGPTConfig(**SIZE)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE, intermediate_size=32)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZE, intermediate_size=32, num_key_value_heads=1, head_dim=8)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=len(LETTERS), n_embd=16, n_layer=1, n_head=2)),
}
IDS = torch.arange(8).view(2, 4)


def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({letter: i for i, letter in enumerate(LETTERS)}, unk_token=LETTERS[0]))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=LETTERS[0], eos_token=LETTERS[0], pad_token=LETTERS[0]
    )


def new_model(name: str = "labgpt"):
    """Random in every weight: an architecture may start from zeros somewhere, and then all its models agree."""
    model = ARCHITECTURES[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def save_model(model, folder) -> None:
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


@pytest.fixture
def trained(run):
    """A run of three checkpoints of different weights, the newest published; returns the run and its models by step."""
    saved = {}
    for step in (100, 200, 300):
        saved[step] = new_model()
        path = save_checkpoint(
            run, step, lambda folder, step=step: save_model(saved[step], folder), lambda folder: None
        )
        publish(run, path)
    run.finish("completed", result={"best_step": 200})
    return run, saved


@torch.no_grad()
def same(model, other) -> bool:
    return torch.equal(model(IDS).logits, other(IDS).logits)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_folder_of_any_architecture(tmp_path, name):
    saved = new_model(name)
    save_model(saved, tmp_path / "model")
    for ref in (tmp_path / "model", str(tmp_path / "model")):
        model, tokens = open_model(ref)
        assert same(model, saved)
        assert not model.training
        assert tokens.decode(tokens("a cat.")["input_ids"]) == "a cat."
    assert open_config(tmp_path / "model").model_type == name


def test_settings_pass_through(tmp_path):
    save_model(new_model("labgpt"), tmp_path)
    model, _ = open_model(tmp_path, dtype=torch.bfloat16, attn_implementation="eager")
    assert model.dtype == torch.bfloat16
    assert model.config._attn_implementation == "eager"


def test_a_run_and_its_revisions(trained, workspace):
    run, saved = trained
    for ref, step in {
        run.id: 300, "tales": 300, "latest": 300, "latest@main": 300, f"{run.id}@step-000100": 100, "tales@100": 100,
        "tales@best": 200, f"{run.path}@step-200": 200, str(run.path): 300, f"{run.path}/checkpoints/step-000100": 100,
    }.items():  # fmt: skip
        model, tokens = open_model(ref, workspace)
        assert same(model, saved[step]), ref
        assert tokens.vocab_size == len(LETTERS)
    assert same(open_model("tales", workspace, revision="best")[0], saved[200])
    assert same(open_model("latest", workspace.root, revision="main")[0], saved[300])
    assert not same(saved[100], saved[200])
    assert open_tokenizer("latest@100", workspace).vocab_size == len(LETTERS)


def test_the_root_of_a_run_is_all_that_its_newest_checkpoint_is(trained):
    run, _ = trained
    files = {path.name for path in (run.path / "checkpoints" / "step-000300").iterdir() if path.is_file()}
    assert {"modeling_labgpt.py", "configuration_labgpt.py", "tokenizer.json", "generation_config.json"} < files
    assert files - {path.name for path in run.path.iterdir()} == {"COMPLETE"}


def test_the_three_lines_of_the_card_work(trained, monkeypatch, capsys):
    run, _ = trained
    code = re.search(r"```python\n(.*?)```", write_card(run).read_text(), re.DOTALL)[1]
    assert len(code.strip().splitlines()) == 3
    monkeypatch.chdir(run.path.parent)
    exec(code, {})
    assert len(capsys.readouterr().out) > len("Once upon a time")


def test_an_unpublished_run_opens_at_its_newest_checkpoint(run, workspace):
    with pytest.raises(ValueError, match=f"run {run.id} is queued and has no checkpoint yet"):
        open_model("tales", workspace)
    save_checkpoint(run, 7, lambda folder: save_model(new_model("gpt2"), folder), lambda folder: None)
    assert resolve("tales", workspace) == run.path / "checkpoints" / "step-000007"


@pytest.mark.parametrize(
    ("ref", "says"),
    [
        ("tales@400", r"has no complete revision '400'; it has main, best, step-000100, step-000200, step-000300"),
        ("tales@newest", r"has no complete revision 'newest'"),
        ("tails", r"no run 'tails' .* did you mean 'tales'\?; no folder 'tails'; the Hub cannot be reached"),
        ("nobody/nothing", r"no model 'nobody/nothing': no such folder, and the Hub cannot be reached"),
        ("./nothing", r"'./nothing' is no folder and cannot be a Hub id"),
        ("a/b/c", r"'a/b/c' is no folder and cannot be a Hub id"),
        ("no such thing", r"'no such thing' is no folder and cannot be a Hub id"),
    ],
)
def test_what_is_no_model_gets_one_sentence(trained, workspace, ref, says):
    with pytest.raises(ValueError, match=says) as caught:
        open_model(ref, workspace)
    assert "\n" not in str(caught.value)


def test_a_changed_revision_is_refused_by_name(trained, workspace):
    run, _ = trained
    path = run.path / "checkpoints" / "step-000100" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"step-000100 was changed: model\.safetensors"):
        open_model("tales@100", workspace)


def test_folders_that_are_no_models(tmp_path):
    with pytest.raises(ValueError, match=r"holds no model: there is no config\.json"):
        open_model(tmp_path)
    save_model(new_model("gpt2"), tmp_path)
    with pytest.raises(ValueError, match="is no run and has no revision 'best'"):
        open_model(tmp_path, revision="best")
    with pytest.raises(ValueError, match="one too many"):
        open_model("tales@best", revision="main")
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="cannot be opened"):
        open_model(tmp_path)


def test_missing_weights_are_not_made_up(tmp_path):
    """The library would fill them with random numbers and go on."""
    save_model(new_model("llama"), tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"num_hidden_layers": 1', '"num_hidden_layers": 2'))
    with pytest.raises(ValueError, match=r"lacks 9 of the model's weights, such as model\.layers\.1\."):
        open_model(tmp_path)


def test_foreign_code_is_not_run_unasked(tmp_path):
    save_model(new_model("labgpt"), tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"model_type": "labgpt"', '"model_type": "foreign"'))
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        open_model(tmp_path)
