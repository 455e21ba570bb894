"""A fine-tuning from its first step to its last: what is learnt, what stays, and that it goes on to the bit."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, Qwen2Config, Qwen3Config

from data.workspace import Workspace
from finetune import qlora, setup
from finetune.answers import score_answers
from finetune.base import check_packing, stop_at
from finetune.batches import ExampleBatches
from finetune.encoding import Encoded
from finetune.packing import pack
from finetune.preview import preview
from finetune.recipe import build_recipe
from finetune.rendering import answer_end
from hub.adapters import read_base, weights_sha256
from hub.models import open_model
from hub.runs import Run
from training.loop import optimizer_step, train
from training.recipe import merge, read_recipe

GREETINGS = [("hello", "good day to you"), ("who is there", "it is a fox"), ("where is the fox", "in the woods"),
             ("what is the capital of France", "Paris"), ("2 * 3", "6"), ("tell me a story", "once upon a time"),
             ("bye", "farewell"), ("is it late", "yes, it is late, and the woods are dark")]  # fmt: skip
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "max_position_embeddings": 96}  # fmt: skip
CONFIGS = {"qwen3": lambda size: Qwen3Config(vocab_size=size, head_dim=32, **SIZES),
           "qwen2": lambda size: Qwen2Config(vocab_size=size, **SIZES)}  # fmt: skip
STEPS = 8
TRAIN = {"steps": STEPS, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 1, "threads": 1, "device": "cpu",
         "eval_every": 4, "sample_every": 8, "save_every": 4, "diagnose_every": 4, "log_every": 2}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, qwen):
    """A workspace, `qwen3` and `qwen2` of random weights with more embeddings than tokens, and `greetings.jsonl`."""
    folder = tmp_path_factory.mktemp("finetune")
    tokenizer = qwen("qwen3")
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config(len(tokenizer) + 27)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = [{"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": answer}]}
            for ask, answer in GREETINGS * 2]  # fmt: skip
    (folder / "greetings.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def parts(place, base: str = "qwen3", model: dict | None = None, data: dict | None = None, **fields) -> dict:
    own = {"model": {"base": str(place / base), "rank": 4, "quantization": "nf4"} | (model or {}),
           "data": {"source": str(place / "greetings.jsonl"), "validation_fraction": 0.25} | (data or {}),
           "train": TRAIN}  # fmt: skip
    return merge(own, {"train": fields})


def begun(place, **given):
    """The job of a new run, not trained yet."""
    return qlora.begin(parts(place, **given), Workspace(place / "workspace"), "run")


@pytest.fixture(scope="module", params=CONFIGS)
def finished(request, place):
    """A run by the command's own way, and the model that trained it."""
    job = begun(place, base=request.param, steps=24, eval_every=8, save_every=24, learning_rate=5e-3)
    before = {name: value.clone() for name, value in job.model.state_dict().items()}
    job.run.start_process()
    assert qlora.finish(job) == "completed"
    return job, before


def test_the_loss_falls_and_the_base_stays(finished):
    job, before = finished
    rows = [json.loads(line) for line in (job.run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [row["eval_train_loss"] for row in rows if "eval_train_loss" in row]
    fresh = math.log(job.model.config.vocab_size)  # of random weights
    assert losses[-1] < losses[0] < fresh and losses[-1] < fresh - 0.1
    after = job.model.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved and all("lora_" in name for name in moved)
    assert {name.split(".")[-4] for name in moved} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }


def test_the_folder_is_a_model_and_says_what_it_stands_on(finished, place):
    job, _ = finished
    run, info = job.run, job.run.info()
    for folder in (run.path, run.path / "checkpoints" / "step-000024"):
        assert not (folder / "config.json").exists() and not (folder / "model.safetensors").exists()
        base = read_base(folder)
        assert base["sha256"] == info["inputs"]["base"]["sha256"] == weights_sha256(place / base["id"])
        assert base["quantization"] == "nf4"
        assert str(place) not in (folder / "adapter_config.json").read_text() + (folder / "base.json").read_text()
    assert str(place) not in (run.path / "recipe.yaml").read_text()
    assert info["kind"] == "finetune" and info["inputs"]["examples"]["name"] == "greetings"
    result = info["result"]
    assert result["perplexity"] == pytest.approx(np.exp(result["val_loss"]))
    saved = load_file(run.path / "adapter_model.safetensors")
    assert sum(value.numel() for value in saved.values()) == info["model"]["parameters_trainable"]
    assert info["model"]["parameters"] - info["model"]["parameters_trainable"] == sum(
        value.numel() for value in load_file(place / base["id"] / "model.safetensors").values()
    )


def test_an_adapter_reloads_to_the_bit(finished, place):
    job, _ = finished
    model, tokenizer = open_model(job.run.path, Workspace(place / "workspace"))
    ids = torch.arange(1, 40)[None]
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, job.model.eval()(input_ids=ids).logits)
    rows = load_file(place / read_base(job.run.path)["id"] / "model.safetensors")["model.embed_tokens.weight"]
    assert len(tokenizer) == len(rows) - 27  # nothing was cut off to the tokenizer's size
    assert model.get_input_embeddings().weight.shape == rows.shape
    assert answer_end(tokenizer) in model.generation_config.eos_token_id


def test_generation_stops_where_an_answer_ends(finished):
    """The end is planted as the likeliest token after five others: nothing is written behind it."""
    job, _ = finished
    end, planted = answer_end(job.tokenizer), [50, 51, 52, 53]

    def plant(logits_ids, scores):
        at = logits_ids.shape[1] - 6
        scores[:] = -1e9
        scores[:, [*planted, end][min(at, 4)]] = 0
        return scores

    out = job.model.eval().generate(
        input_ids=torch.arange(10, 16)[None], max_new_tokens=20, do_sample=False, logits_processor=[plant],
        attention_mask=torch.ones(1, 6, dtype=torch.long), pad_token_id=0,
    )  # fmt: skip
    assert out[0, 6:].tolist() == [*planted, end]


def test_another_base_of_the_same_name_is_refused(finished, place, tmp_path):
    job, _ = finished
    base = read_base(job.run.path)["id"]
    moved = tmp_path / base
    shutil.copytree(place / base, moved)
    torch.manual_seed(1)
    AutoModelForCausalLM.from_pretrained(moved).save_pretrained(moved)  # the same weights: still the same base
    elsewhere = Workspace(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"base {base} cannot be found"):
        open_model(job.run.path, elsewhere)
    shutil.copytree(job.run.path, elsewhere.room("runs") / job.run.id)
    qlora.begin(parts(place, model={"base": str(moved)}), elsewhere, "another")  # now this workspace knows that folder
    assert open_model(job.run.id, elsewhere)[0].get_nb_trainable_parameters()


@pytest.mark.parametrize("base", ["qwen3", "tied"])
def test_rows_of_the_chat_template_are_learnt_and_no_others(place, base):
    """A tied head learns the same rows, one of its own learns them too."""
    if base == "tied":
        model, tokenizer = open_model(place / "qwen3")
        model.config.tie_word_embeddings = True
        AutoModelForCausalLM.from_config(model.config).save_pretrained(place / "tied")
        tokenizer.save_pretrained(place / "tied")
    job = begun(place, base=base, model={"chat_tokens": True})
    job.run.start_process()
    embedding, head = job.model.get_input_embeddings(), job.model.get_output_embeddings()
    before = embedding.weight.clone(), head.weight.clone()
    assert train(job) == "completed"
    named = job.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<think>", "</think>"])
    for table, was in zip((embedding, head), before, strict=True):
        moved = (table.weight != was).any(1).nonzero().flatten().tolist()
        assert moved == sorted(named)
    again, _ = open_model(job.run.path)
    ids = torch.tensor([[1, *named, 2, *named]])
    with torch.no_grad():
        logits = job.model.eval()(input_ids=ids).logits
        assert torch.equal(again(input_ids=ids).logits, logits)
        merged = again.merge_and_unload() if base == "tied" else None
    assert merged is None or merged.get_input_embeddings().weight is merged.get_output_embeddings().weight


def test_only_a_base_of_the_lab_is_known_never_to_have_seen_them(place, tmp_path):
    assert begun(place).run.info()["inputs"]["base"]["id"] == "qwen3"
    recipe = read_recipe(begun(place).run.path / "recipe.yaml")
    assert recipe["model"]["chat_tokens"] is False  # nobody knows what a folder's model saw
    workspace = Workspace(tmp_path)
    run = Run.create(
        workspace, "base", "pretrain", [], "", 0, {}, fill=lambda folder: shutil.copytree(
            place / "qwen3", folder, dirs_exist_ok=True)
    )  # fmt: skip
    job = qlora.begin(parts(place, model={"base": run.id}), workspace, "run")
    assert read_recipe(job.run.path / "recipe.yaml")["model"]["chat_tokens"] is True
    assert any("trainable_tokens" in name for name, p in job.model.named_parameters() if p.requires_grad)
    seen = preview(build_recipe(parts(place, model={"base": run.id})), workspace).estimate
    assert (seen.trainable, seen.parameters) == job.model.get_nb_trainable_parameters()


@pytest.mark.parametrize(
    ("model", "fields"),
    [({"chat_tokens": True}, {}),
     ({"dropout": 0.2, "quantization": "none"}, {"optimizer": "adamw_8bit", "accumulate": 2}),
     ({"dora": True, "rslora": True}, {}), ({"quantization": "int8"}, {"activation_checkpointing": True})],
    ids=["nf4 and chat tokens", "dropout and 8-bit moments", "DoRA and rsLoRA", "int8"],
)  # fmt: skip
def test_resuming_is_never_having_stopped(place, model, fields):
    whole = begun(place, model=model, **fields)
    whole.run.start_process()
    assert train(whole) == "completed"
    stopped = begun(place, model=model, **fields)
    stopped.run.start_process()
    assert train(stopped, until=4) == "interrupted"
    job, checkpoint = qlora.go_on(stopped.run, Workspace(place / "workspace"), {}, force=False)
    assert checkpoint.name == "step-000004"
    assert train(job, checkpoint) == "completed"
    one, other = (load_file(each.run.path / "adapter_model.safetensors") for each in (whole, stopped))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    curves = [
        [(row["step"], row.get("train_loss"), row.get("val_loss")) for row in map(json.loads, text.splitlines())]
        for text in ((each.run.path / "metrics.jsonl").read_text() for each in (whole, stopped))
    ]
    assert curves[0] == curves[1]


def test_a_run_goes_on_as_it_was_begun(place):
    workspace = Workspace(place / "workspace")
    job = begun(place)
    job.run.start_process()
    train(job, until=4)
    with pytest.raises(ValueError, match=r"model\.rank is 4 in step-000004 and 8 in this recipe"):
        qlora.go_on(job.run, workspace, {"model": {"rank": 8}}, force=False)
    with pytest.raises(ValueError, match="begun with the examples greetings"):
        qlora.go_on(
            job.run, workspace, {"data": {"source": str(place / "greetings.jsonl"), "split_seed": 5}}, force=False
        )


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_micro_batches_of_ragged_answers_are_the_batch(place, quantization):
    """Loss and gradient of four micro-batches against the mean over all scored tokens by hand."""
    job = begun(place, model={"quantization": quantization, "dropout": 0.0}, accumulate=4)
    ours = gradients_of_one_step(job)
    job.model.zero_grad()
    batch = job.batches.batch(0)
    assert len({int((row != -100).sum()) for row in batch["labels"]}) > 1  # ragged
    ids, labels = (torch.from_numpy(batch[name]) for name in ("input_ids", "labels"))
    logits = job.model(input_ids=ids, use_cache=False).logits
    loss = F.cross_entropy(logits.flatten(0, 1).double(), labels.flatten())
    loss.backward()
    assert ours["loss"] == pytest.approx(loss.item(), abs=1e-6)
    for name, p in job.model.named_parameters():
        if p.requires_grad:
            torch.testing.assert_close(ours[name], p.grad, rtol=0, atol=1e-6)


def gradients_of_one_step(job) -> dict:
    """What the loop's own step leaves before the optimizer takes it."""
    found = {}

    class Kept(torch.optim.SGD):
        def step(self, closure=None):
            found.update({n: p.grad.clone() for n, p in job.model.named_parameters() if p.grad is not None})

    job.recipe.max_grad_norm = None
    optimizer = Kept([p for p in job.model.parameters() if p.requires_grad], lr=0.0)
    found["loss"] = optimizer_step(job, job.model, optimizer, 0, 0).loss.item()
    return found


def test_packed_examples_cost_what_they_cost_apart(place):
    job = begun(place, model={"quantization": "none"}, data={"packing": True})
    encoded = job.batches.encoded
    apart = score_answers(job.model, [encoded.example(i) for i in range(len(encoded))], 4, "cpu")
    bins = pack(encoded.starts[1:] - encoded.starts[:-1], 96)
    assert len(bins) < len(encoded)
    whole = ExampleBatches(encoded, len(bins), 0, bins).batch(0)
    assert sorted(np.concatenate(bins).tolist()) == list(range(len(encoded)))
    batch = {name: torch.from_numpy(rows) for name, rows in whole.items()}
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = job.model.eval()(**batch, use_cache=False).logits
    packed = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert packed.item() == pytest.approx(apart.loss, abs=1e-5)
    assert (labels != -100).sum() == apart.tokens.sum()


def test_a_model_that_cannot_keep_them_apart_is_refused():
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=32, attn_implementation="eager")
    model = AutoModelForCausalLM.from_config(config)
    forward = model.forward
    model.forward = lambda input_ids, position_ids, **rest: forward(input_ids=input_ids, **rest)
    with pytest.raises(ValueError, match="does not keep packed examples apart"):
        check_packing(model, "gpt2")


def test_batches_are_a_function_of_seed_and_step():
    lengths = [3, 5, 4, 6, 2]
    ids = np.arange(sum(lengths), dtype=np.int32)
    scored = np.concatenate([np.arange(length) >= 1 + (length > 3) for length in lengths])
    encoded = Encoded(ids, scored, np.cumsum([0, *lengths]))
    starts = [0, 3, 8, 12, 18]
    batches, again = ExampleBatches(encoded, 2, seed=3), ExampleBatches(encoded, 2, seed=3)
    rows = [row for step in range(5) for row in batches.batch(step)["input_ids"][:, 0].tolist()]
    assert sorted(rows[:5]) == sorted(rows[5:]) == starts  # each once an epoch
    for step in (4, 0, 2):
        for name in ("input_ids", "labels"):
            assert np.array_equal(again.batch(step)[name], batches.batch(step)[name])
    one = ExampleBatches(encoded, 1, seed=0)
    for step in range(5):
        batch = one.batch(step)
        start = int(batch["input_ids"][0, 0])
        length = lengths[starts.index(start)]
        assert batch["input_ids"][0].tolist() == list(range(start, start + length - 1))
        wanted = [i if scored[i] else -100 for i in range(start + 1, start + length)]
        assert batch["labels"][0].tolist() == wanted


def test_ends_are_added_to_those_there_are():
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=32, eos_token_id=7)
    model = AutoModelForCausalLM.from_config(config)
    stop_at(model, 9)
    assert model.generation_config.eos_token_id == [9, 7]
    stop_at(model, None)
    assert model.generation_config.eos_token_id == [9, 7]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [({"model": {"base": ""}}, "model.base is empty"),
     ({"model": {"targets": "q_porj"}}, "no matrix is called 'q_porj'; did you mean 'q_proj'"),
     ({"model": {"targets": ""}}, "model.targets is empty"),
     ({"model": {"rank": 0}}, "model.rank cannot be 0"),
     ({"compile": True}, "train.compile cannot be True"),
     ({"optimizer": "muon"}, "train.optimizer cannot be 'muon'")],
)  # fmt: skip
def test_mistakes_are_sentences_and_leave_no_run(place, given, sentence):
    runs = sorted((place / "workspace" / "runs").glob("*"))
    with pytest.raises(ValueError, match=sentence):
        begun(place, **given)
    assert sorted((place / "workspace" / "runs").glob("*")) == runs


def test_a_diverging_run_leaves_its_last_good_checkpoint(place):
    """The adapter that a spike is gone back to is the checkpoint's, in the live model."""
    job = begun(place)
    job.run.start_process()
    train(job, until=4)
    live = job.model.state_dict()
    kept = {name: value.clone() for name, value in live.items() if "lora_" in name}
    with torch.no_grad():
        for name, value in live.items():
            if "lora_" in name:
                value.add_(1)
    setup.load_adapter(job.model, job.run.path / "checkpoints" / "step-000004")
    assert all(torch.equal(job.model.state_dict()[name], value) for name, value in kept.items())


def test_a_recipe_reads_back_to_itself(place):
    recipe = build_recipe(parts(place, model={"targets": "q_proj, v_proj"}))
    assert recipe.model.targets == ("q_proj", "v_proj")
    path = place / "recipe.yaml"
    path.write_text(recipe.to_yaml())
    assert build_recipe(read_recipe(path)) == recipe
