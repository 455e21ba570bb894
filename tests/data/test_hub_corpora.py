"""Corpora of the Hub by their real ids, from a Hub on this machine: what is fetched, continued, refused and found."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
from huggingface_hub import constants

from data.corpora import open_corpus
from data.corpora_cli import parser
from data.hub_corpora import HUB, Choice, command_words, request_for
from data.partial import Partial, Position, partials
from data.prepare import DataRecipe, prepare
from data.preview import commands
from data.snapshots import open_snapshot
from data.workspace import Workspace, read_json
from tests.data.dataset_hub import COMMIT, DatasetHub, card, json_gz, parquet

ROOT = Path(__file__).resolve().parents[2]
DAMAGED = "en/c4-train.00002-of-00004.json.gz"


def texts_of(kind: str, count: int) -> list[str]:
    return [f"{kind} {i}: " + f"a páge of {kind} " * (1 + i * 7 % 5) for i in range(count)]


C4 = texts_of("web", 100)
ARTICLES = [
    [" = First = \n", "", " It begins = here = and goes on . \n", " = = Section = = \n", " More . \n"],
    [" = A second one = \n", " Two = three . \n", ""],
    [" = 3 = \n", " The third . \n"],
]


def web(texts: list[str]) -> list[dict]:
    return [{"text": text, "timestamp": "2019-04-25T12:57:54Z", "url": "https://example.org/a"} for text in texts]


def c4() -> dict[str, bytes]:
    """Laid out as allenai/c4: shards of JSON lines, gzipped, in a folder for each configuration."""
    files = {f"en/c4-train.{k:05}-of-00004.json.gz": json_gz(web(C4[k * 25 : k * 25 + 25])) for k in range(4)}
    files["en/c4-validation.00000-of-00008.json.gz"] = json_gz(web(texts_of("held", 12)))
    splits = {split: f"en/c4-{split}.*.json.gz" for split in ("train", "validation")}
    return files | {"README.md": card(en=splits, fr={"train": "fr/*.json.gz"})}


def damaged_gzip() -> bytes:
    data = bytearray(c4()[DAMAGED])
    data[-30:-20] = b"0123456789"
    return bytes(data)


def lines(articles: list[list[str]]) -> bytes:
    return parquet([{"text": line} for line in ["", *chain.from_iterable(articles)]])


def repositories() -> dict[str, dict[str, bytes]]:
    """Each as it is laid out on the Hub, with a handful of rows."""
    stories, wiki = texts_of("story", 30), "wikitext-2-raw-v1"
    return {
        "roneneldan/TinyStories": {
            "data/train-00000-of-00002-2d5a1467fff1081b.parquet": parquet([{"text": text} for text in stories[:15]]),
            "data/train-00001-of-00002-5852b56a2bd28fd9.parquet": parquet([{"text": text} for text in stories[15:]]),
            "data/validation-00000-of-00001-869c898b519ad725.parquet": parquet([{"text": "A story. "}, {"text": " "}]),
            "TinyStories-train.txt": b"not this",
            "README.md": card(),
        },
        "Salesforce/wikitext": {
            f"{wiki}/train-00000-of-00001.parquet": lines(ARTICLES),
            f"{wiki}/validation-00000-of-00001.parquet": lines(ARTICLES[:1]),
            f"{wiki}/test-00000-of-00001.parquet": lines(ARTICLES[1:]),
            "README.md": card(**{wiki: {split: f"{wiki}/{split}-*" for split in ("test", "train", "validation")}}),
        },
        "wikimedia/wikipedia": {
            "20231101.ga/train-00000-of-00001.parquet": parquet(
                [
                    {"id": str(i), "url": "u", "title": f"t{i}", "text": text}
                    for i, text in enumerate(texts_of("alt", 20))
                ]
            ),
            "20231101.cy/train-00000-of-00001.parquet": parquet([{"id": "0", "title": "t", "text": "not this"}]),
            "README.md": card(**{f"20231101.{code}": {"train": f"20231101.{code}/train-*"} for code in ("cy", "ga")}),
        },
        "emozilla/pg19": {
            f"data/{split}-00000-of-00001.parquet": parquet(
                [
                    {"short_book_title": "b", "publication_date": 1900, "url": "u", "text": t}
                    for t in texts_of("book", n)
                ]
            )
            for split, n in (("train", 6), ("validation", 2), ("test", 2))
        },
        "allenai/c4": c4(),
        "HuggingFaceFW/fineweb-edu": {
            "data/CC-MAIN-2013-20/train-00000-of-00014.parquet": parquet([{"text": "not this", "score": 1.0}]),
            "sample/10BT/000_00000.parquet": parquet([{"text": text, "score": 3.1} for text in texts_of("edu", 40)]),
            "README.md": card(default={"train": "data/*/*"}, **{"sample-10BT": {"train": "sample/10BT/*"}}),
        },
        "some/poems": {
            "train.csv": b"line,author\n" + b"".join(b'"poem %d, and on",me\n' % i for i in range(20)) + b'" ",me\n',
            "README.md": card(),
        },
        "some/program": {"program.py": b"", "README.md": card()},
        "damaged/gzip": c4() | {DAMAGED: damaged_gzip()},
        "damaged/json": c4() | {DAMAGED: json_gz(web(C4[50:60])) + gzip.compress(b'{"te', mtime=0)},
        "damaged/parquet": {
            "data/train-00000-of-00002.parquet": parquet([{"text": text} for text in C4[:50]]),
            "data/train-00001-of-00002.parquet": parquet([{"text": text} for text in C4[50:]])[:-200],
        },
    }


@pytest.fixture(scope="module")
def hub():
    server = DatasetHub()
    server.repos = repositories()
    yield server
    server.shutdown()


# One process does all that needs the Hub: the libraries read its address when they are imported.
TASKS = """
import json, sys
from data.corpora import open_corpus
from data.hub_corpora import Choice
from data.workspace import Workspace
workspace, told = Workspace(sys.argv[1]), []
for name, choice, fraction in json.loads(sys.argv[2]):
    try:
        told.append(open_corpus(name, workspace, fraction, choice=Choice(**choice)).name)
    except ValueError as error:
        told.append(f"error: {error}")
print(json.dumps(told))
"""
WRONG = {
    "hf:damaged/gzip": ({"config": "en"}, r"damaged/gzip: en/c4-train.00002-of-00004.json.gz cannot be read \(BadGzip"),
    "hf:damaged/json": ({"config": "en"}, r"damaged/json: en/c4-train.00002-of-00004.json.gz cannot be read .*JSON"),
    "hf:damaged/parquet": (
        {},
        r"damaged/parquet: data/train-00001-of-00002.parquet cannot be read .*same command goes on",
    ),
    "hf:nobody/nothing": ({}, "no dataset 'nobody/nothing' on the Hub"),
    "hf:some/program": ({}, "published as a program"),
    "hf:some/poems": ({"field": "lines"}, "no field 'lines' among line, author"),
    "hf:emozilla/pg19": ({"field": "publication_date"}, "holds .*int64.*, not text"),
    "hf:wikimedia/wikipedia": ({}, "several configurations, name one of 20231101.cy, 20231101.ga"),
    "hf:allenai/c4": ({"config": "em"}, "no configuration 'em'; did you mean 'en'?"),
    "hf:Salesforce/wikitext": (
        {"config": "wikitext-2-raw-v1", "split": "trian"},
        "no split 'trian'; did you mean 'train'",
    ),
    "c4": ({"revision": "v9"}, "allenai/c4 has no revision 'v9'"),
}


def run(hub, folder: Path, tasks: list, code: str = "") -> list[str]:
    """The names of the snapshots, or the errors, of (name, choice, fraction) each."""
    words = [sys.executable, "-c", code + TASKS, str(folder / "workspace"), json.dumps(tasks)]
    environment = {**os.environ, **hub.environment(folder / "home")}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def fetched(hub, tmp_path_factory) -> tuple[Workspace, list[str]]:
    """(workspace with every corpus, what the wrong ones said)."""
    folder = tmp_path_factory.mktemp("fetched")
    good = [(name, {}, None) for name in HUB]
    good += [("c4", {"documents": 30}, None), ("c4", {"bytes": 500}, None), ("c4", {}, 0.5)]
    good += [("hf:some/poems", {"field": "line"}, None), ("hf:wikimedia/wikipedia", {"config": "20231101.ga"}, None)]
    good += [("wikitext-2", {"documents": 2}, None)]
    told = run(hub, folder, [*good, *([name, choice, None] for name, (choice, _) in WRONG.items())])
    assert not [one for one in told[: len(good)] if one.startswith("error")], told
    return Workspace(folder / "workspace"), told[len(good) :]


def opened(workspace: Workspace, name: str):
    corpus = open_snapshot(workspace.root / "corpora" / name)
    return corpus, list(corpus.texts("train")), list(corpus.texts("validation"))


@pytest.mark.parametrize("name", HUB)
def test_every_corpus_comes_from_its_real_repository(fetched, name):
    corpus, train, held_out = opened(fetched[0], name)
    hub, entry = corpus.manifest["hub"], HUB[name]
    assert (hub["dataset"], hub["config"], hub["revision"]) == (entry.dataset, entry.config, COMMIT)
    assert (hub["split"], hub["validation"], hub["field"]) == ("train", entry.validation, "text")
    assert corpus.manifest["licence"] == entry.licence and hub["bytes"] == entry.cap_bytes
    published = {
        "tinystories": (texts_of("story", 30), ["A story. "]),
        "wikitext-2": (["".join(article) for article in ARTICLES], ["".join(ARTICLES[0])]),
        "pg19": (texts_of("book", 6), texts_of("book", 2)),
        "c4": (C4, texts_of("held", 12)),
    }
    if name in published:
        assert (train, held_out) == published[name] and corpus.manifest["split"]["kind"] == "published"
    else:  # without a validation split of its own: a tenth by document
        whole = texts_of(*{"wikipedia-ga": ("alt", 20), "fineweb-edu": ("edu", 40)}[name])
        assert sorted(train + held_out) == sorted(whole) and len(held_out) == len(whole) // 10


def test_caps_and_other_datasets(fetched):
    workspace, _ = fetched
    by_caps = {}
    for path in (workspace.root / "corpora").glob("[!.]*/manifest.json"):
        manifest = read_json(path)
        by_caps[manifest["hub"]["dataset"], manifest["hub"]["documents"], manifest["hub"]["bytes"]] = manifest["name"]
    _, train, held_out = opened(workspace, by_caps["allenai/c4", 30, None])
    assert train == C4[:30] and held_out == texts_of("held", 3)  # a tenth of the cap
    _, train, held_out = opened(workspace, by_caps["allenai/c4", None, 500])
    sizes = [len(text.encode()) for text in train]
    assert train == C4[: len(train)] and sum(sizes) >= 500 > sum(sizes[:-1])  # the one that reaches it is whole
    assert held_out == texts_of("held", 2)[: len(held_out)]
    _, train, _ = opened(workspace, by_caps["Salesforce/wikitext", 2, None])
    assert train == ["".join(article) for article in ARTICLES[:2]]
    corpus, train, held_out = opened(workspace, "some-poems")
    assert sorted(train + held_out) == sorted(f"poem {i}, and on" for i in range(20))
    assert corpus.manifest["licence"] == "mit" and corpus.manifest["hub"]["field"] == "line"
    assert opened(workspace, "wikimedia-wikipedia-20231101.ga")[0].sha256 == opened(workspace, "wikipedia-ga")[0].sha256


def test_each_mistake_is_one_sentence(fetched):
    for said, (name, (_, pattern)) in zip(fetched[1], WRONG.items(), strict=True):
        assert said.startswith("error: ") and "\n" not in said, said
        assert re.search(pattern, said), (name, said)


def test_what_came_before_a_damaged_file_is_kept_and_completed(hub, fetched):
    """Once the file is whole again the snapshot is that of a fetch that never failed, by whichever way it went on."""
    workspace, _ = fetched
    left = {one.id: one for one in partials(workspace)}
    assert {name.rsplit("-", 1)[0] for name in left} == {"damaged-gzip-en", "damaged-json-en", "damaged-parquet"}
    rows = {name: one.positions()[1]["train"].rows for name, one in left.items()}
    assert all(count >= 50 for count in rows.values())
    assert {one.progress()["status"] for one in left.values()} == {"failed"}
    for one in left.values():
        if one.id.startswith("damaged-json"):  # as if another version of datasets had begun it
            source, positions = one.positions()
            positions["train"].written_by = "1.0"
            one.write_positions(source, positions)
    hub.repos["damaged/gzip"][DAMAGED] = hub.repos["damaged/json"][DAMAGED] = c4()[DAMAGED]
    whole = parquet([{"text": text} for text in C4[50:]])
    hub.repos["damaged/parquet"]["data/train-00001-of-00002.parquet"] = whole
    run(hub, workspace.root.parent, [(name, WRONG[name][0], None) for name in WRONG if name.startswith("hf:damaged")])
    for name in ("damaged-gzip-en", "damaged-json-en"):
        assert opened(workspace, name)[0].sha256 == opened(workspace, "c4")[0].sha256
    _, train, held_out = opened(workspace, "damaged-parquet")
    assert sorted(train + held_out) == sorted(C4) and not partials(workspace)


def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(hub, fetched, tmp_path):
    small = "import data.fetch; data.fetch.SHARD_BYTES = 300\n"  # some rows a shard
    workspace = Workspace(tmp_path / "workspace")
    words = [sys.executable, "-c", small + TASKS, str(workspace.root), json.dumps([("c4", {}, None)])]
    hub.held, last = {DAMAGED}, "en/c4-train.00003-of-00004.json.gz"
    hub.release.clear()
    process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, **hub.environment(tmp_path / "home")})
    try:
        deadline = time.monotonic() + 60
        while not (rows := kept_rows(workspace)) or rows < 40:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        assert partials(workspace)[0].progress()["status"] == "running"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    hub.held, hub.sent = set(), []
    hub.release.set()
    (partial,) = partials(workspace)
    told = partial.progress()
    assert told["status"] == "interrupted" and told["phase"] == "fetching" and told["documents"] <= 50
    run(hub, tmp_path, [("c4", {}, None)], small)
    assert hub.sent.count(last) == 1 and not partials(workspace)
    never_killed = fetched[0].root / "corpora" / "c4"
    for file in ("train.parquet", "validation.parquet"):
        assert (workspace.root / "corpora" / "c4" / file).read_bytes() == (never_killed / file).read_bytes()
    one, other = (read_json(path / "manifest.json") for path in (workspace.root / "corpora" / "c4", never_killed))
    assert {**one, "created_at": None} == {**other, "created_at": None}


def kept_rows(workspace: Workspace) -> int:
    return sum(one.rows for partial in partials(workspace) for one in partial.positions()[1].values())


def test_found_again_without_a_network(fetched, monkeypatch):
    workspace, _ = fetched
    assert constants.HF_HUB_OFFLINE
    assert open_corpus("c4", workspace).name == "c4"
    assert open_corpus("c4", workspace, choice=Choice(documents=30)).manifest["splits"]["train"]["documents"] == 30
    assert open_corpus("c4", workspace, choice=Choice(revision=COMMIT[:8])).name == "c4"
    assert open_corpus("hf:some/poems", workspace, field="line").name == "some-poems"
    assert open_corpus("c4", workspace, 0.5).manifest["split"]["kind"] == "by-document"
    recipe = DataRecipe(corpus="c4", documents=30, tokenizer="char")
    assert prepare(recipe, workspace)[0].manifest["splits"]["train"]["documents"] == 30
    command = commands(open_corpus("c4", workspace, choice=Choice(documents=30)), workspace)[0]
    assert command.startswith("python -m data.corpora fetch c4 --documents=30 --workspace ")
    with pytest.raises(ValueError, match=r"allenai/c4 has to be fetched and HF_HUB_OFFLINE is set: unset it"):
        open_corpus("c4", workspace, choice=Choice(documents=31))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ValueError, match=r"the Hub at http://127.0.0.1:9 cannot be reached .*try again"):
        open_corpus("c4", workspace, choice=Choice(documents=31))
    assert not partials(workspace)


def test_a_damaged_part_is_named(workspace):
    request = request_for("c4", Choice())
    partial = Partial.of(workspace, "c4", request)
    partial.create("c4", request)
    position = Position()
    partial.add_shard("train", position, ["one", "two"])
    partial.add_shard("train", position, ["three"])
    assert list(partial.texts("train", position)) == ["one", "two", "three"]
    partial.shard("train", 1).write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"train-00001.parquet is missing or damaged: remove the folder"):
        list(partial.texts("train", position))


@pytest.mark.parametrize(
    ("name", "choice", "fraction"),
    [
        ("c4", {}, None),
        ("c4", {"documents": 5}, 0.2),
        ("wikitext-2", {"bytes": 10_000}, None),
        ("hf:some/poems", {}, None),
        ("hf:a/b", {"config": "c", "split": "s", "field": "f", "revision": "r", "documents": 3, "bytes": 4}, 0.3),
    ],
)
def test_the_command_of_a_request_asks_for_just_that(name, choice, fraction):
    request = request_for(name, Choice(**choice), fraction, seed=2)
    args = parser().parse_args(command_words(name.removeprefix("hf:"), request))
    asked = {key: getattr(args, key) for key in ("config", "split", "field", "revision", "documents", "bytes")}
    again = args.name if args.name in HUB else f"hf:{args.name}"
    assert request_for(again, Choice(**asked), args.validation_fraction, args.seed) == request


@pytest.mark.parametrize(
    ("name", "choice", "message"),
    [
        ("c4", {"config": "fr"}, "c4 is config 'en' of allenai/c4: for another, name hf:allenai/c4"),
        ("hf:no-owner", {}, "write hf:OWNER/NAME"),
        ("hf:../../etc", {}, "write hf:OWNER/NAME"),
        ("c4", {"documents": 0}, "it should be 1 or more"),
    ],
)
def test_what_cannot_be_asked_for(name, choice, message):
    with pytest.raises(ValueError, match=message):
        request_for(name, Choice(**choice))
