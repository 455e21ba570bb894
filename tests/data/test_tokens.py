"""Packed tokens against a plain encoding, and batches against what they promise."""

import dataclasses
import hashlib
from itertools import pairwise

import numpy as np
import pytest

from data import encoding
from data.tokenizer import open_tokenizer
from data.tokens import Batches, documents, pack, windows


@pytest.fixture
def tokenizer(corpus, workspace):
    return open_tokenizer("bpe", corpus, 300, workspace)


@pytest.fixture
def tokens(corpus, tokenizer, workspace):
    return pack(corpus, tokenizer, workspace)


@pytest.mark.parametrize("kind", ["bpe", "char", "unigram"])
def test_the_stream_is_every_document_and_its_end(corpus, workspace, kind, monkeypatch):
    monkeypatch.setattr(encoding, "PIECE", 20)
    monkeypatch.setattr(encoding, "CHUNK", 90)  # a document spreads over chunks, a chunk over documents
    tokenizer = open_tokenizer(kind, corpus, 300, workspace)
    tokens = pack(corpus, tokenizer, workspace)
    for split in ("train", "validation"):
        texts = list(corpus.texts(split))
        plain = [[*tokenizer.tokenizer.encode(t, split_special_tokens=True), tokens.eos] for t in texts]
        ids = tokens.split(split)
        assert ids.dtype == np.uint16 and ids.tolist() == [i for document in plain for i in document]
        assert tokens.starts(split).tolist() == np.cumsum([0] + [len(d) for d in plain])[:-1].tolist()
        facts = tokens.meta["splits"][split]
        assert facts["tokens"] == len(ids) and facts["documents"] == len(texts) and facts["floor"] is None
        assert facts["bytes"] == sum(len(t.encode()) for t in texts)
        assert facts["sha256"] == hashlib.sha256((tokens.path / f"{split}.bin").read_bytes()).hexdigest()
        # texts spell special tokens out, but only the end of a document is one
        assert (np.asarray(ids) < 4).sum() == len(texts)
        assert tokenizer.tokenizer.decode(ids.tolist()) == "".join(t + "<|endoftext|>" for t in texts)
    assert tokens.meta["vocab_size"] == len(tokenizer.tokenizer) and tokens.eos == 1


def test_packed_once_for_a_pair_of_hashes(corpus, tokenizer, tokens, workspace, capsys):
    capsys.readouterr()
    assert pack(corpus, tokenizer, workspace) == tokens and capsys.readouterr().err == ""
    other = dataclasses.replace(tokenizer, sha256="0" * 64)  # same name, other content: a folder that was changed
    beside = pack(corpus, other, workspace)
    assert beside.path != tokens.path and beside.path.name.startswith(tokens.path.name)
    assert pack(corpus, other, workspace) == beside and pack(corpus, tokenizer, workspace) == tokens


def test_large_vocabularies_take_four_bytes(corpus, tokenizer, workspace):
    large = tokenizer.tokenizer
    large.add_tokens([f"<extra {i}>" for i in range(66_000)])
    tokens = pack(corpus, dataclasses.replace(tokenizer, name="large", sha256="1" * 64), workspace)
    assert tokens.split("train").dtype == np.uint32 and tokens.meta["vocab_size"] == 66_300


def test_a_corpus_that_was_tampered_with_is_refused(corpus, tokenizer, workspace):
    (corpus.path / "train.parquet").write_bytes((corpus.path / "validation.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"train.parquet is not what its manifest says"):
        pack(corpus, tokenizer, workspace)
    assert not list(workspace.room("tokens").iterdir())


def test_tokens_cut_short_are_refused(corpus, tokenizer, tokens, workspace):
    (tokens.path / "train.bin").write_bytes(b"12")
    with pytest.raises(ValueError, match=r"train.bin is not whole: delete the folder"):
        pack(corpus, tokenizer, workspace)


# --- batches: ids that are their own positions show which places a row has

RING = np.arange(1000, dtype=np.uint16)
STARTS = np.array([0, 7, 100, 101, 350, 351, 600, 990])


def batches(start: str = "anywhere", **changes) -> Batches:
    settings = {"context": 16, "batch_size": 4, "seed": 3} | changes
    return Batches(RING, STARTS, **settings, start=start)


def epoch_rows(b: Batches, epoch: int) -> np.ndarray:
    """All rows of an epoch; it need not begin where a batch does."""
    n = b.rows_per_epoch
    steps = range(epoch * n // b.batch_size, -(-(epoch + 1) * n // b.batch_size))
    rows = np.concatenate([b.at(step) for step in steps])
    skip = epoch * n - steps[0] * b.batch_size
    return rows[skip : skip + n]


@pytest.mark.parametrize("start", ["anywhere", "document"])
def test_a_batch_is_a_pure_function_of_seed_and_step(start):
    b = batches(start)
    forward = [b.at(step) for step in range(60)]
    again = batches(start)
    for step in reversed(range(60)):
        assert np.array_equal(again.at(step), forward[step])
    assert forward[0].shape == (4, 17) and forward[0].dtype == np.int64
    assert not np.array_equal(batches(start, seed=4).at(0), forward[0])
    # a larger batch is the same rows: so ranks and micro-batches may take slices
    assert np.array_equal(batches(start, batch_size=12).at(1), np.concatenate(forward[3:6]))
    assert np.array_equal(np.diff(forward[0], axis=1) % 1000, np.ones((4, 16)))


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_anywhere_covers_the_ring_without_repetition(epoch):
    rows = epoch_rows(batches(), epoch)
    assert len(rows) == 1000 // 16
    targets = rows[:, 1:].ravel()
    assert len(np.unique(targets)) == len(targets) == 992  # all but the 8 that no window holds this time


def test_every_epoch_has_its_own_order_and_offset():
    first, second = epoch_rows(batches(), 0), epoch_rows(batches(), 1)
    assert not np.array_equal(first, second)
    assert first[0, 0] % 16 != second[0, 0] % 16
    assert not np.array_equal(np.sort(first[:, 0]), np.sort(second[:, 0]))


@pytest.mark.parametrize("epoch", [0, 3])
def test_document_rows_begin_after_the_end_before_each_document(epoch):
    b = batches("document", batch_size=3)
    rows = epoch_rows(b, epoch)
    assert sorted(rows[:, 1].tolist()) == STARTS.tolist() and b.steps_per_epoch == pytest.approx(8 / 3)
    assert rows[rows[:, 1] == 0][0, 0] == 999  # before the first document stands the last one's end
    assert rows[rows[:, 1] == 990][0].tolist() == [*range(989, 1000), *range(6)]


def test_a_batch_larger_than_an_epoch():
    rows = batches("document", batch_size=20).at(0)
    counts = np.unique(rows[:, 1], return_counts=True)[1]
    assert counts.sum() == 20 and set(counts) == {2, 3}


def test_changing_one_setting_does_not_share_what_was_cached():
    b = batches()
    b.at(0)
    other = dataclasses.replace(b, context=8)
    assert np.array_equal(other.at(0), batches(context=8).at(0))


def test_on_a_real_stream_rows_begin_with_the_end_of_a_document(tokens):
    ids, starts = tokens.split("train"), tokens.starts("train")
    rows = Batches(ids, starts, context=8, batch_size=16, seed=0, start="document").at(0)
    assert (rows[:, 0] == tokens.eos).all()


def test_a_split_shorter_than_a_context_is_refused():
    Batches(RING[:17], STARTS[:1], context=16, batch_size=1, seed=0).at(0)
    with pytest.raises(ValueError, match=r"the training split has 16 tokens, shorter than one context of 16 .* ≤ 15"):
        Batches(RING[:16], STARTS[:1], context=16, batch_size=1, seed=0)
    with pytest.raises(ValueError, match="start 'begin' is not one of document, anywhere"):
        batches("begin")


@pytest.mark.parametrize("length", [2, 16, 17, 18, 33, 1000])
def test_windows_score_every_token_but_the_first_once(length):
    parts = list(windows(RING[:length], 16))
    assert np.concatenate([w[1:] for w in parts]).tolist() == list(range(1, length))
    assert all(w[0] == before[-1] and len(w) <= 17 for before, w in pairwise(parts))


def test_documents_are_whole_and_between_two_ends(corpus, tokenizer, tokens):
    found = list(documents(tokens.split("validation"), tokens.starts("validation")))
    texts = list(corpus.texts("validation"))
    plain = [tokenizer.tokenizer.encode(t, split_special_tokens=True) for t in texts]
    assert [d.tolist() for d in found] == [[tokens.eos, *ids, tokens.eos] for ids in plain]
    # what is scored, every token but the first, is the whole split: the floor counts as many
    assert sum(len(d) - 1 for d in found) == tokens.meta["splits"]["validation"]["tokens"]
