"""A saved folder opens where this project is not: another process, another folder, `modeling` refused on import."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from modeling import LabGPTForSequenceClassification

STRANGER = """
import importlib.abc, json, sys

class NotHere(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "modeling":
            raise ImportError("the project is not installed here")

sys.meta_path.insert(0, NotHere())
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
from transformers import AutoTokenizer, pipeline

jobs = json.loads(sys.argv[1])
torch.set_num_threads(jobs["threads"])
for folder in jobs["folders"]:
    expected = torch.load(folder + "/expected.pt")
    for place in (folder, folder + "/again"):  # as it was saved, and as this process saves it
        trust = {"trust_remote_code": True}
        model = AutoModelForCausalLM.from_pretrained(place, attn_implementation="eager", **trust).eval()
        assert type(model).__module__.startswith("transformers_modules."), type(model)
        with torch.no_grad():
            assert torch.equal(model(expected["ids"]).logits, expected["logits"]), "other logits"
            body = AutoModel.from_pretrained(place, attn_implementation="eager", **trust).eval()
            hidden = body(expected["ids"]).last_hidden_state
            assert torch.equal(model.soft_cap(model.lm_head(hidden)), expected["logits"]), "other hidden states"
        assert torch.equal(model.generate(expected["ids"], max_new_tokens=8, do_sample=False), expected["greedy"])
        steps = [step.token_ids for step in model.decode(expected["ids"], max_new_tokens=8)]
        assert torch.equal(torch.stack(steps, 1), expected["greedy"][:, -8:])
        assert AutoConfig.from_pretrained(place, **trust).model_type == "labgpt"
        tokenizer = AutoTokenizer.from_pretrained(place, **trust)
        assert tokenizer("a cab")["input_ids"] == expected["text"]
        write = pipeline("text-generation", model=place, **trust)
        said = write("a cab", max_new_tokens=8, do_sample=False)[0]["generated_text"]
        assert said == expected["said"], said
        fresh = AutoModelForCausalLM.from_config(model.config, **trust)
        assert not fresh.model.layers[0].self_attn.o_proj.weight.any(), "another initialisation"
        if place == folder:
            model.save_pretrained(folder + "/again")
            tokenizer.save_pretrained(folder + "/again")

expected = torch.load(jobs["classes"] + "/expected.pt")
model = AutoModelForSequenceClassification.from_pretrained(jobs["classes"], trust_remote_code=True).eval()
with torch.no_grad():
    assert torch.equal(model(expected["ids"]).logits, expected["logits"]), "other classes"
assert "modeling" not in sys.modules
print("opened")
"""


def letters() -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate(["<|pad|>", "<|endoftext|>", *" abcdefgh"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|pad|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|endoftext|>")


RUNS = {
    "run-2026.11": {},
    "linear": {"attention": "linear", "tie_word_embeddings": True, "final_logit_softcapping": 5.0},
    "old": {"position_embedding": "learned", "norm": "layernorm", "norm_position": "post", "gated_mlp": True},
    "alibi": {"position_embedding": "alibi", "sliding_window": 4, "num_key_value_heads": 2},
}


def test_a_stranger_opens_it(tiny, tmp_path):
    ids = torch.tensor([[3, 4, 5, 6, 7, 8, 9, 10, 3, 4]])
    for name, fields in RUNS.items():
        model, folder = tiny(vocab_size=11, **fields), tmp_path / name
        model.set_attn_implementation("eager")
        with torch.no_grad():
            expected = {"ids": ids, "logits": model(ids).logits, "text": [3, 2, 5, 3, 4]}
        expected["greedy"] = model.generate(ids, max_new_tokens=8, do_sample=False)
        said = model.generate(torch.tensor([expected["text"]]), max_new_tokens=8, do_sample=False)
        expected["said"] = letters().decode(said[0], skip_special_tokens=True)
        model.save_pretrained(folder)
        letters().save_pretrained(folder)
        torch.save(expected, folder / "expected.pt")
    classifier = LabGPTForSequenceClassification(tiny(vocab_size=11).config).eval()
    classifier.save_pretrained(tmp_path / "classes")
    with torch.no_grad():
        torch.save({"ids": ids, "logits": classifier(ids).logits}, tmp_path / "classes" / "expected.pt")

    jobs = {
        "threads": torch.get_num_threads(),
        "folders": [str(tmp_path / name) for name in RUNS],
        "classes": str(tmp_path / "classes"),
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"} | {"PYTHONPATH": ""}
    command = [sys.executable, "-c", STRANGER, json.dumps(jobs)]
    child = subprocess.run(command, cwd=elsewhere, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr[-3000:]
    assert child.stdout.strip().endswith("opened")


@pytest.mark.parametrize("file", sorted(Path(__file__).parents[2].glob("modeling/*.py")), ids=lambda file: file.name)
def test_what_travels(tiny, tmp_path_factory, file):
    """Every file the model needs is copied; the presets and the package's own file stay."""
    folder = tmp_path_factory.mktemp("saved")
    tiny().save_pretrained(folder)
    assert (folder / file.name).exists() == (file.name not in ("__init__.py", "presets.py"))
