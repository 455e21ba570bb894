"""Fine-tuned runs at rest: what their card says is so, lists and pages show them whole, nobody loses a base unasked."""

import json
import re
import shutil

import pytest
import torch
from huggingface_hub import ModelCard

from data.access import Access
from data.workspace import Workspace, write_json
from hub import details, loaded, overview, registry, tab_run
from hub.adapter_card import adapter_facts, dataset_of, merging, on_hub
from hub.card import write_card
from hub.loaded import model_choices
from hub.metrics import append_sample
from hub.models import open_config, open_model
from hub.runs import Run
from hub.tab_list import listed
from tests.hub.adapted import RECIPE, make_adapter, make_base

pytest.importorskip("peft")
pytest.importorskip("bitsandbytes")
IDS = torch.tensor([[5, 9, 200, 31, 7]])


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Workspace:
    """A base and an adapter on it; tests change neither."""
    workspace = Workspace(tmp_path_factory.mktemp("lab"))
    base = make_base(workspace)
    write_card(base)
    make_adapter(workspace, base.id)
    return workspace


@pytest.fixture
def base(lab) -> Run:
    return Run.open(lab, "base")


@pytest.fixture
def tuned(lab) -> Run:
    return Run.open(lab, "tuned")


@pytest.fixture
def empty_run(workspace):
    """A fine-tuned run before its first checkpoint."""

    def make(base: dict, source: str = "stories") -> Run:
        recipe = RECIPE.format(base=base["id"], quantization="none", rslora="true", dora="false")
        recipe = recipe.replace("source: stories", f"source: {source}")
        inputs = {"base": base, "examples": {"name": "mine", "sha256": "a" * 64}}
        return Run.create(workspace, "early", "finetune", ["python", "-m", "finetune.qlora"], recipe, 0, inputs)

    return make


# ── the card ──


def test_the_card_names_base_and_adapter(tuned, base, lab):
    card = ModelCard.load(write_card(tuned))
    data = card.data.to_dict()
    assert (data["library_name"], data["base_model"], data["base_model_relation"]) == ("peft", base.id, "adapter")
    assert {"lora", "llm-lab", "finetune"} == set(data["tags"])
    assert data["license"] == "unknown"
    assert {one.metric_type: one.metric_value for one in card.data.eval_results} == {"loss": 2.2, "perplexity": 9.03}
    assert {one.dataset_name for one in card.data.eval_results} == {"stories"}
    digest = tuned.info()["inputs"]["base"]["sha256"]
    for words in (
        "| examples | stories (eeeeeeeeeeee) |", f"| base | {base.id}@step-000010 ({digest[:12]}) |", "| rank | 4 |",
        "| alpha | 8 |", "| matrices with an adapter | down_proj, gate_proj,", "4 bits (NF4), its scales quantised too",
        "| parameters trained | 8,192 |", "| steps | 20 |", "| training loss (nats per token) | 2.1 |",
        f"finetune.qlora --resume {tuned.id}", f"finetune.merge {tuned.id}", "It holds no weights of its base",
    ):  # fmt: skip
        assert words in card.text, words
    assert "trained from nothing" not in card.text and "trust_remote_code" not in card.text
    assert str(lab.root) not in card.text


def test_the_lines_that_load_it_load_it(tuned, lab, monkeypatch):
    monkeypatch.setenv("LLM_LAB_WORKSPACE", str(lab.root))
    (lines,) = re.findall(r"```python\n(.*?)```", write_card(tuned).read_text(), re.DOTALL)
    assert lines.strip() == details.loading(tuned)
    names: dict = {}
    exec(lines, names)
    shared, _ = loaded.loaded(tuned.id, Access(lab))
    with torch.no_grad():
        assert torch.equal(names["model"](IDS).logits, shared(IDS).logits)
    monkeypatch.delenv("LLM_LAB_WORKSPACE")
    assert f"workspace={str(lab.root)!r}" in details.loading(tuned)


def test_the_lines_for_a_base_of_the_hub_load_it(tuned, base, empty_run, tmp_path, monkeypatch):
    """With the base's folder in the Hub id's place, and the adapter's: the lines themselves are what is tried."""
    run = empty_run({"id": "Qwen/Qwen3-0.6B", "revision": "a" * 40, "sha256": "b" * 64})
    text = write_card(run).read_text()
    assert "base_model: Qwen/Qwen3-0.6B" in text
    lines = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert f'"Qwen/Qwen3-0.6B", revision="{"a" * 40}"' in lines
    names: dict = {}
    exec(lines.replace("Qwen/Qwen3-0.6B", str(base.path)).replace(run.id, str(tuned.path)), names)
    assert names["model"].peft_config["default"].r == 4 and names["tokenizer"].chat_template
    assert "finetune.merge" not in text


def test_a_run_stopped_before_anything_has_a_card(empty_run):
    run = empty_run({"id": "base-1a2b3c", "revision": None, "sha256": "b" * 64})
    text = write_card(run).read_text()
    assert "| variant | rsLoRA |" in text and "| base | base-1a2b3c (bbbbbbbbbbbb) |" in text
    assert "| base's weights in training | none |" in text
    assert "adapter on disk" not in text and "curve.png" not in text


def test_a_sample_shows_what_was_asked(empty_run):
    run = empty_run({"id": "base-1a2b3c", "revision": None, "sha256": "b" * 64})
    append_sample(run.path, 40, "the mat", prompt="where sat the cat?", reference="on the mat")
    text = write_card(run).read_text()
    assert "Asked:\n\n````text\nwhere sat the cat?" in text and "Its answer at step 40:\n\n````text\nthe mat" in text


@pytest.mark.parametrize(
    ("source", "dataset"),
    [("stories", None), ("alpaca", "tatsu-lab/alpaca"), ("hf:tatsu-lab/alpaca", "tatsu-lab/alpaca"),
     ("HuggingFaceH4/no_robots", "HuggingFaceH4/no_robots"), ("chats/mine.jsonl", None), ("/data/chats", None)],
)  # fmt: skip
def test_examples_of_the_hub_are_named(empty_run, source, dataset):
    run = empty_run({"id": "b", "revision": None, "sha256": "b" * 64}, source)
    assert dataset_of(run) == dataset
    assert ModelCard.load(write_card(run)).data.datasets == ([dataset] if dataset else None)


@pytest.mark.parametrize(
    ("examples", "base", "license"),
    [("mit", "mit", "mit"), ("mit", "apache-2.0", "unknown"), ("mit", None, "unknown"), (None, "mit", "unknown")],
)
def test_a_licence_holds_only_where_examples_and_base_agree(workspace, empty_run, examples, base, license):
    run = empty_run({"id": "base-1a2b3c", "revision": None, "sha256": "b" * 64})
    manifest, card = workspace.room("examples") / "mine" / "manifest.json", run.path.parent / "base-1a2b3c"
    manifest.parent.mkdir()
    write_json(manifest, {"licence": examples} if examples else {})
    card.mkdir()
    if base:
        (card / "README.md").write_text(f"---\nlicense: {base}\n---\n")
    assert ModelCard.load(write_card(run)).data.license == license


def test_a_hub_commit_tells_a_hub_model():
    assert on_hub({"id": "gpt2", "revision": "0" * 40}) and on_hub({"id": "Qwen/Qwen3-0.6B", "revision": None})
    assert not on_hub({"id": "tales-1a2b3c", "revision": "step-000500"}) and not on_hub({"id": None, "revision": None})


def test_what_merging_changed_is_told_as_it_was_measured():
    result = {"merge_difference": 4.2e-6, "merge_difference_quantised": 0.11, "merge_tokens": 366}
    told = merging({"result": result, "inputs": {"base": {"quantization": "int8"}}})
    assert "4.2e-06" in told and "0.11" in told and "366" in told and "LLM.int8" in told
    assert "LLM.int8" not in merging({"result": result, "inputs": {"base": {"quantization": "nf4"}}})
    assert "bfloat16" in merging({"result": result | {"merge_dtype": "bfloat16"}, "inputs": {}})
    assert merging({"result": {}, "inputs": {}}) == ""


# ── lists and pages ──


def test_it_is_a_row_that_search_finds_by_its_base(lab, tuned, base):
    row = next(row for row in overview.rows(lab) if row.id == tuned.id)
    assert (row.kind, row.corpus, row.examples, row.trained) == ("finetune", None, "stories", 8192)
    assert row.base == f"{base.id}@step-000010" and row.val_loss == 2.2 and row.problem is None
    assert [one.id for one in overview.select(overview.rows(lab), "finetune stories")] == [tuned.id]
    assert {one.id for one in overview.select(overview.rows(lab), base.id)} == {tuned.id, base.id}
    drawn, _ = listed(Access(lab), "", "", "finetune", "", "", 50)
    assert f"on {base.id}@step-000010" in drawn and "8.19k trained" in drawn and ">stories<" in drawn
    assert (f"tuned · {tuned.id} · loss 2.2", tuned.id) in model_choices(lab)


def test_its_page_is_whole(lab, tuned, base):
    _, _, _, stamps, *_, head, card, use, _, _, _, kept, _, origin, _ = tab_run.opened(
        Access(lab), tuned.id, "step", True
    )
    assert "completed" in head and stamps["run"] == tuned.id
    for words in ("rank", "adapter on disk", "parameters trained", base.id, "matrices with an adapter"):
        assert words in card, words
    assert "corpus" not in card
    assert "open_model" in use and "AutoModelForCausalLM" not in use
    assert "step-000020" in kept and f'data-run="{base.id}"' in origin and "cannot be shown" not in str(card + origin)
    facts = dict(adapter_facts(tuned, tuned.info()))
    assert facts["matrices with an adapter"].startswith("down_proj, gate_proj") and facts["variant"] is None
    assert adapter_facts(base, base.info()) == []


def test_the_terminal_shows_both_sides(lab, tuned, base, capsys):
    at = ["--workspace", str(lab.root)]
    registry.main(["show", tuned.id, *at])
    out = capsys.readouterr().out
    assert f"{base.id}@step-000010" in out and "initialised from" not in out and "stories (eeee" in out
    registry.main(["show", base.id, "--json", *at])
    children = json.loads(capsys.readouterr().out)["children"]
    assert children == [{"id": tuned.id, "kind": "fine-tuned run", "revision": "step-000010"}]
    registry.main(["compare", base.id, tuned.id, *at])
    out = capsys.readouterr().out
    assert "stories (eeeeeeeeeeee)" in out and "model.rank" in out
    registry.main(["list", *at])
    assert tuned.id in capsys.readouterr().out


def test_deleting_a_base_names_what_is_lost(lab, tuned, base, monkeypatch):
    _, question, _ = tab_run.asked_to_delete(Access(lab), base.id)
    assert f"a fine-tuned run that does not open without it: {tuned.id}." in question
    assert "does not open" not in tab_run.asked_to_delete(Access(lab), tuned.id)[1]
    with pytest.raises(ValueError, match=f"deleting {base.id} .* open without it: {tuned.id}"):
        registry.main(["delete", base.id, "--workspace", str(lab.root)])
    monkeypatch.setattr(registry, "children", lambda *_: [{"id": f"a-{i}", "kind": "fine-tuned run"} for i in range(5)])
    assert registry.loss_of_base(lab, base) == (
        "It is the base of 5 fine-tuned runs that do not open without it: a-0, a-1, a-2 and 2 more."
    )
    assert base.path.exists()


def test_a_quantised_model_is_left_where_it_computes(lab, tuned, monkeypatch):
    """What is quantised refuses to be moved, or loses what it was quantised by."""
    loaded._models.clear()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: pytest.fail("it would be moved"))
    model, _ = loaded.loaded(tuned.id, Access(lab))
    assert model.peft_config and model.get_base_model().is_quantized
    loaded._models.clear()


def test_the_base_beside_it_is_one_that_the_page_may_open(lab, tuned, base, tmp_path):
    assert loaded.base_of(tuned.id, Access(lab)) == f"{base.id}@step-000010"
    assert loaded.base_of(f"{tuned.id}@step-000020", Access(lab)) == f"{base.id}@step-000010"
    assert loaded.base_of(base.id, Access(lab)) is None
    assert [loaded.base_of(other, Access(lab)) for other in (None, "", "nobody", "Qwen/Qwen3-0.6B")] == [None] * 4
    # a base that was given as a folder, outside the workspace
    workspace, folder = Workspace(tmp_path / "lab"), tmp_path / "models" / "cats"
    shutil.copytree(base.path / "checkpoints" / "step-000010", folder, ignore=shutil.ignore_patterns("COMPLETE"))
    run = make_adapter(workspace, str(folder), quantization="none")
    assert loaded.base_of(run.id, Access(workspace)) is None
    assert loaded.base_of(run.id, Access(workspace, folders=(tmp_path,))) == str(folder)
    assert str(tmp_path) not in (run.path / "base.json").read_text()


def test_an_adapter_named_by_its_folder_finds_its_base(tuned, base):
    """As a checkpoint in its run's folder is opened, whatever workspace the command would look in."""
    for folder in (tuned.path, tuned.path / "checkpoints" / "step-000020"):
        model, _ = open_model(folder)
        assert model.peft_config
        assert open_config(str(folder)).hidden_size == 64
