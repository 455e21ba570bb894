"""Merging is exact, measured on what lies on disk, and makes a model that the library opens by itself."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data.access import Access
from data.workspace import Workspace, read_json
from finetune import merge as module
from finetune.merge import PROMPTS, main, merge, parameter_count
from hub.adapters import find_base, open_adapter, read_base, weights_sha256
from hub.details import resume_command
from hub.models import open_model
from hub.overview import row
from hub.registry import children
from hub.runs import Run, all_runs
from hub.tab_run import opened
from tests.hub.adapted import make_adapter, make_base

pytest.importorskip("bitsandbytes")
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # peft's business
TEXT = "the cat sat on the mat, and the dog"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Workspace:
    """A base of each kind, called as it is."""
    workspace = Workspace(tmp_path_factory.mktemp("lab"))
    for kind in ("qwen3", "qwen2", "labgpt"):
        make_base(workspace, kind, kind)
    return workspace


def quietly(_: str) -> None:
    pass


def ids_of(tokenizer) -> torch.Tensor:
    return torch.tensor([tokenizer(TEXT, add_special_tokens=False)["input_ids"]])


@torch.no_grad()
def difference(one, other, ids) -> float:
    return float((one(ids).logits - other(ids).logits).abs().max())


def opened_by_the_library(run: Run):
    return AutoModelForCausalLM.from_pretrained(run.path).eval(), AutoTokenizer.from_pretrained(run.path)


@pytest.mark.parametrize("kind", ["qwen3", "qwen2", "labgpt"])
@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
def test_merged_is_the_adapter_on_the_dequantised_base(lab, kind, quantization):
    adapter = make_adapter(lab, kind, quantization=quantization)
    merged = merge(adapter.id, lab, say=quietly)
    model, tokenizer = opened_by_the_library(merged)
    ids = ids_of(tokenizer)
    # by another way than the product's: the base opened anew, dequantised before anything else
    base, _ = open_model(find_base(read_base(adapter.path), lab))
    plain, _ = open_adapter(adapter.path, lab, quantization="none")
    quantised, _ = open_adapter(adapter.path, lab)
    dequantised = quantised.unload()
    dequantised = dequantised.dequantize() if quantization != "none" else dequantised
    on_dequantised = peft.PeftModel.from_pretrained(dequantised, adapter.path).eval()
    assert difference(model, on_dequantised, ids) < 1e-5
    assert difference(model, base, ids) > 0.5  # the adapter changes a good deal
    if quantization != "none":  # merging into the base as it was before it was quantised is another model
        assert difference(model, plain, ids) > 1e-3
    result = merged.info()["result"]
    assert 0 < result["merge_difference"] < 1e-5
    exact = quantization != "int8"  # whose arithmetic rounds what flows between the weights, too
    assert (result["merge_difference_quantised"] < 1e-5) == exact
    assert result["merge_tokens"] > 200


@pytest.mark.parametrize("variant", ["dora", "rslora"])
def test_variants_merge_exactly(lab, variant):
    adapter = make_adapter(lab, "qwen3", **{variant: True})
    merged = merge(adapter.id, lab, say=quietly)
    model, tokenizer = opened_by_the_library(merged)
    assert difference(model, open_adapter(adapter.path, lab)[0], ids_of(tokenizer)) < 1e-5


def test_the_merged_run_is_a_model_by_itself(lab):
    adapter = make_adapter(lab, "qwen3", name="chatty")
    merged = merge("chatty", lab, say=quietly)
    model, tokenizer = opened_by_the_library(merged)
    assert model.get_input_embeddings().weight.shape == (288, 64) and len(tokenizer) < 288  # never shrunk
    assert model.config.tie_word_embeddings and model.lm_head.weight is model.model.embed_tokens.weight
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.eos_token_id in (end, [end])
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(adapter.path).chat_template is not None
    config = read_json(merged.path / "config.json")
    assert "quantization_config" not in config and config["dtype"] == "float32"
    assert not any(merged.path.glob("adapter_*")) and not (merged.path / "base.json").exists()

    info = merged.info()
    assert (info["kind"], info["status"], merged.name) == ("import", "completed", "chatty-merged")
    assert info["inputs"]["parent"] == {
        "run": adapter.id, "revision": "step-000020", "sha256": weights_sha256(adapter.path),
    }  # fmt: skip
    assert info["inputs"]["base"]["id"] == Run.open(lab, "qwen3").id
    assert info["model"]["parameters"] == model.num_parameters()
    assert str(lab.root) not in json.dumps(info["inputs"]) + (merged.path / "README.md").read_text()
    assert row(merged.path, info).problem is None and resume_command(merged, info) is None
    assert [(child["id"], child["kind"]) for child in children(lab, adapter)] == [(merged.id, "merged model")]


def test_the_card_tells_what_merging_changed(lab):
    adapter = make_adapter(lab, "labgpt", quantization="int8")
    merged = merge(adapter.id, lab, say=quietly)
    card, result = ModelCard.load(merged.path / "README.md"), merged.info()["result"]
    assert f"further than {result['merge_difference']:.2g} from" in card.text
    assert f"{result['merge_difference_quantised']:.2g} from the adapter's on its base" in card.text
    assert "LLM.int8" in card.text and f"with the adapter `{adapter.id}@step-000020`" in card.text
    assert card.data.library_name == "transformers" and "How to go on" not in card.text
    assert "trained from nothing" not in card.text


def test_its_page_says_that_nothing_was_trained_in_it(lab):
    adapter = make_adapter(lab, "qwen3", name="shown")
    merged = merge(adapter.id, lab, say=quietly)
    *_, head, card, use, curves, _, samples, kept, _, origin, _ = opened(Access(lab), merged.id, "step", True)
    assert "completed" in head and "largest change of a logit by merging" in card
    assert "AutoModelForCausalLM" in use and "Go on training" not in use
    assert all("was not trained in this run" in part for part in (curves, samples, kept))
    assert f'data-run="{adapter.id}"' in origin and "cannot be shown" not in origin + card


def test_labgpt_travels_with_its_code(lab):
    """The same code as beside any LabGPT, of which other tests show that it opens where this project is not."""
    merged, base = merge(make_adapter(lab, "labgpt").id, lab, say=quietly), Run.open(lab, "labgpt")
    code, expected = ({path.name: path.read_bytes() for path in run.path.glob("*.py")} for run in (merged, base))
    assert code == expected and "modeling_labgpt.py" in code
    auto_map = read_json(merged.path / "config.json")["auto_map"]
    assert auto_map == read_json(base.path / "config.json")["auto_map"]
    assert auto_map["AutoModelForCausalLM"] == "modeling_labgpt.LabGPTForCausalLM"


def test_a_revision_and_a_rounded_merge(lab):
    adapter = make_adapter(lab, "qwen2")
    merged = merge(f"{adapter.id}@step-000020", lab, "half", "bfloat16", say=quietly)
    assert merged.name == "half" and merged.info()["inputs"]["parent"]["revision"] == "step-000020"
    model, tokenizer = opened_by_the_library(merged)
    assert model.dtype == torch.bfloat16
    result = merged.info()["result"]
    assert 1e-4 < result["merge_difference"] < 0.5
    adapted, ids = open_adapter(adapter.path, lab)[0], ids_of(tokenizer)
    assert difference(model.float(), adapted, ids) == pytest.approx(result["merge_difference"], rel=2)
    assert "rounded to bfloat16" in (merged.path / "README.md").read_text()


def test_a_base_in_several_files_and_an_adapter_alone(workspace):
    base = make_base(workspace, "qwen3", max_shard_size="60KB")
    assert len(list(base.path.glob("*.safetensors"))) > 1
    assert parameter_count(base.path) == base.info()["model"]["parameters"]
    adapter = make_adapter(workspace, base.id)
    folder = workspace.root / "downloaded"
    shutil.copytree(adapter.path / "checkpoints" / "step-000020", folder, ignore=shutil.ignore_patterns("COMPLETE"))
    merged = merge(str(folder), workspace, say=quietly)
    assert merged.info()["inputs"]["parent"]["run"] == "downloaded"
    assert merged.info()["result"]["merge_difference"] < 1e-5


def test_what_cannot_be_merged_is_a_sentence(lab, monkeypatch, tmp_path):
    before = {run.id for run in all_runs(lab)}
    with pytest.raises(ValueError, match="qwen3 is no adapter"):
        merge("qwen3", lab, say=quietly)
    adapter = make_adapter(lab, "qwen3", name="spare")
    with monkeypatch.context() as patch:
        patch.setattr(module, "free_memory", lambda _: 1000)
        with pytest.raises(ValueError, match=r"takes 0\.0 GB in 32 bits, and 0\.0 GB are free on cpu: merge on a mach"):
            merge(adapter.id, lab, say=quietly)
    with monkeypatch.context() as patch:
        patch.setattr(module, "logits", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
        with pytest.raises(ValueError, match="the memory of cpu is full"):
            merge(adapter.id, lab, say=quietly)
    # another base under the same name
    other = Workspace(tmp_path / "other")
    shutil.copytree(lab.root, other.root)
    base = Run.open(other, "qwen3")
    weights = base.path / "checkpoints" / "step-000010" / "model.safetensors"
    make_base(other, "qwen2", "stranger")
    shutil.copyfile(Run.open(other, "stranger").path / "model.safetensors", weights)
    with pytest.raises(ValueError, match="the adapter was trained on qwen3"):
        merge(adapter.id, other, say=quietly)
    assert {run.id for run in all_runs(lab)} == before | {adapter.id}


def test_a_matrix_that_the_base_uses_twice_is_refused(lab):
    """A tied table adapted as the head alone: merged, it would change the input as well."""
    adapter = make_adapter(lab, "qwen3", name="tied", quantization="none", target_modules=["lm_head"])
    with pytest.raises(ValueError, match="merging would change a logit by"):
        merge(adapter.id, lab, say=quietly)
    assert not [run for run in all_runs(lab) if run.name == "tied-merged"]


def test_the_command(lab, capsys):
    adapter = make_adapter(lab, "qwen2", name="told")
    assert main([adapter.id, "--workspace", str(lab.root), "--run-name", "whole", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert told["run"].startswith("whole-") and Path(told["path"]).is_dir() and told["merge_difference"] < 1e-5
    assert "merging" in err
    with pytest.raises(ValueError, match="--dtype"):
        main([adapter.id, "--dtype", "int3"])
    assert len(PROMPTS) == 4
