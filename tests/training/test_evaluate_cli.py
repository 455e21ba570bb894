"""`python -m training.evaluate` against closed forms and a naive loop, on runs, folders and other corpora."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from data.corpora import open_corpus
from data.snapshots import count_texts, write_parquet
from data.tokenizer import open_tokenizer
from data.tokens import pack
from data.workspace import Workspace
from hub.runs import Run
from training.evaluate_cli import main

CONTEXT = 24


@pytest.fixture(scope="module")
def made(tmp_path_factory, milk):
    """A workspace with a small corpus and a run on it: a random GPT-2 at its root, one that knows nothing at a step."""
    workspace = Workspace(tmp_path_factory.mktemp("evaluate"))
    corpus = open_corpus(milk, workspace)
    tokenizer = open_tokenizer("char", corpus, 0, workspace)
    inputs = {"corpus": {"name": corpus.name, "sha256": corpus.sha256}}
    inputs["tokenizer"] = {"name": tokenizer.name, "sha256": tokenizer.sha256}
    recipe = f"schema: 1\ntrain:\n  context: {CONTEXT}\n  start: anywhere\n"
    run = Run.create(workspace, "known", "pretrain", ["train"], recipe, 0, inputs, status="running")
    torch.manual_seed(0)
    size = len(tokenizer.tokenizer)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=64))
    save(run.path, model, tokenizer)
    run.finish("completed", result={})
    model.transformer.wte.weight.data.zero_()  # the head is tied to it: every token is as likely as any other
    save(workspace.root / "uniform", model, tokenizer)
    return workspace, run, corpus, tokenizer


def save(folder, model, tokenizer) -> None:
    model.save_pretrained(folder)
    tokenizer.tokenizer.save_pretrained(folder)


def evaluate(capsys, made, model, *flags: str) -> dict:
    capsys.readouterr()
    assert main([str(model), *flags, "--device", "cpu", "--json", "--workspace", str(made[0].root)]) == 0
    return json.loads(capsys.readouterr().out)


def naive_nats(folder, ids: list[int]) -> list[float]:
    """-log p of every id but the first, in float64, each window alone as the stream is cut."""
    model, nats = GPT2LMHeadModel.from_pretrained(folder).double().eval(), []
    for i in range(0, len(ids) - 1, CONTEXT):
        window = ids[i : i + CONTEXT + 1]
        logits = model(torch.tensor([window[:-1]])).logits[0].detach().numpy()
        for row, target in zip(logits, window[1:], strict=True):
            nats.append(math.log(np.exp(row - row.max()).sum()) + row.max() - row[target])
    return nats


def test_a_run_is_scored_on_its_own_corpus_as_it_was_trained(made, capsys):
    _, run, corpus, tokenizer = made
    text = next(corpus.texts("validation"))
    nats = naive_nats(run.path, [*tokenizer.tokenizer(text)["input_ids"], tokenizer.eos])
    said = evaluate(capsys, made, run.id)
    assert (said["corpus"], said["split"], said["start"], said["context"]) == (
        "milk",
        "validation",
        "anywhere",
        CONTEXT,
    )
    assert said["tokens"] == len(nats)
    assert said["loss"] == pytest.approx(np.mean(nats), abs=1e-5)
    assert said["perplexity"] == pytest.approx(math.exp(np.mean(nats)), rel=1e-4)
    assert said["bits_per_byte"] == pytest.approx(sum(nats) / math.log(2) / len(text.encode()), rel=1e-5)
    assert said["excess"] is None and said["leak"] is False


def test_a_folder_on_a_corpus_by_path_with_a_loss_that_is_known(made, capsys, tmp_path):
    workspace, _, _, tokenizer = made
    (tmp_path / "other.txt").write_text("bottles of milk and one of them falls\n" * 200)
    said = evaluate(capsys, made, workspace.root / "uniform", "--corpus", str(tmp_path / "other.txt"))
    size = len(tokenizer.tokenizer)
    assert said["corpus"] == "other" and said["context"] == 64  # all that the model can read
    assert said["loss"] == pytest.approx(math.log(size), abs=1e-6)
    # one token a byte, and one for the end of the document; the first is given
    validation = pack(open_corpus("other", workspace), tokenizer, workspace).meta["splits"]["validation"]
    assert said["bits_per_byte"] == pytest.approx(math.log2(size) * (validation["tokens"] - 1) / validation["bytes"])


def test_the_training_split_and_a_part_of_it(made, capsys):
    whole = evaluate(capsys, made, made[1].id, "--split", "train")
    part = evaluate(capsys, made, made[1].id, "--split", "train", "--limit", "20")
    assert whole["split"] == part["split"] == "train" and part["sequences"] == 20 < whole["sequences"]
    assert part["loss"] == pytest.approx(whole["loss"], rel=0.05)


def test_the_excess_is_paired_where_the_corpus_knows_its_entropy(made, capsys):
    workspace, _, _, tokenizer = made
    corpus = open_corpus("milk", workspace)
    documents = [f"{n} bottles of milk" for n in range(40)]
    known = workspace.root / "corpora" / "known"
    shutil.copytree(corpus.path, known)
    manifest = json.loads((known / "manifest.json").read_text())
    log_probs = [-math.log(40)] * 40
    for split in ("train", "validation"):
        write_parquet({"text": documents, "log_prob": log_probs}, known / f"{split}.parquet")
        manifest["splits"][split] = count_texts(documents)
    nats = {"nats": 40 * math.log(40), "nats_per_document": math.log(40), "bits_per_byte": 1.0}
    manifest |= {"name": "known", "sha256": "e" * 64, "floor": {"train": nats, "validation": nats}}
    (known / "manifest.json").write_text(json.dumps(manifest))
    said = evaluate(capsys, made, workspace.root / "uniform", "--corpus", "known", "--context", "32")
    lengths = [len(text) + 1 for text in documents]
    size = math.log(len(tokenizer.tokenizer))
    assert said["start"] == "document" and said["documents"] == 40
    assert said["floor"] == pytest.approx(np.mean([math.log(40) / n for n in lengths]))
    assert said["excess"] == pytest.approx(np.mean([size - math.log(40) / n for n in lengths]), abs=1e-5)
    assert said["excess_interval"][0] < said["excess"] < said["excess_interval"][1]
    short = evaluate(capsys, made, workspace.root / "uniform", "--corpus", "known", "--context", "8")
    assert short["documents"] is None and short["excess"] == pytest.approx(size - 40 * math.log(40) / sum(lengths))


def test_people_are_told_what_was_scored(made, capsys):
    assert main([made[1].id, "--device", "cpu", "--workspace", str(made[0].root)]) == 0
    said = capsys.readouterr().out
    assert "milk, validation" in said and "nats per token" in said and "windows of the stream, context 24" in said


def test_mistakes_are_one_sentence(made):
    workspace = str(made[0].root)
    with pytest.raises(ValueError, match="has no corpus of its own here: name one with --corpus"):
        main([str(made[0].root / "uniform"), "--workspace", workspace])
    with pytest.raises(ValueError, match="--limit 0 should be 1 or more"):
        main(["known", "--limit", "0", "--workspace", workspace])
    with pytest.raises(ValueError, match="no corpus and no file or folder 'nowhere'"):
        main([made[1].id, "--corpus", "nowhere", "--workspace", workspace])
