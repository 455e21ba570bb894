"""Saved recipes: versions that never change, their parents, and where two of them differ."""

import threading

import pytest
import yaml

from training import saved
from training.recipe import build_recipe, find_recipe, merge, parse_flags, read_recipe

FIRST = {"train": {"steps": 7, "learning_rate": 1e-4}, "data": {"corpus": "verdict"}}


def test_versions_follow_each_other_and_stay_as_they_are(workspace):
    assert saved.save(workspace, "mine", FIRST) == "mine@v1"
    before = (workspace.root / "recipes" / "mine@v1.yaml").read_bytes()
    assert saved.save(workspace, "mine", {"train": {"steps": 8}}, parent="mine@v1") == "mine@v2"
    assert (workspace.root / "recipes" / "mine@v1.yaml").read_bytes() == before
    header = yaml.safe_load((workspace.root / "recipes" / "mine@v2.yaml").read_text())
    assert {key: header[key] for key in ("schema", "name", "version", "parent")} == {
        "schema": 1, "name": "mine", "version": 2, "parent": "mine@v1",
    }  # fmt: skip
    assert [(one.ref, one.parent) for one in saved.list_saved(workspace)] == [("mine@v2", "mine@v1"), ("mine@v1", None)]


def test_a_saved_recipe_is_found_by_version_and_newest_by_name(workspace):
    for steps in range(1, 12):
        saved.save(workspace, "mine", {"train": {"steps": steps}})
    assert find_recipe("mine", workspace).stem == "mine@v11"  # not v9, which sorts behind as text
    assert read_recipe(find_recipe("mine@v2", workspace)) == {"train": {"steps": 2}}
    assert saved.read(workspace, "mine") == {"train": {"steps": 11}}
    with pytest.raises(ValueError, match="did you mean 'mine@v"):
        find_recipe("mine@v12", workspace)


def test_it_gives_the_same_recipe_as_its_parts_and_flags_win_over_it(workspace):
    saved.save(workspace, "mine", FIRST)
    read = read_recipe(find_recipe("mine", workspace))
    assert build_recipe(read) == build_recipe(FIRST)
    assert build_recipe(merge(read, parse_flags(["--train.steps", "9"]))).train.steps == 9


@pytest.mark.parametrize(
    ("name", "parts", "parent", "words"),
    [
        ("../mine", FIRST, None, "may hold letters"),
        ("mine@v3", FIRST, None, "may hold letters"),
        ("", FIRST, None, "may hold letters"),
        ("m" * 65, FIRST, None, "may hold letters"),
        ("shakespeare", FIRST, None, "comes with the lab"),
        ("mine", {"train": {"stesp": 1}}, None, "'steps'"),
        ("mine", FIRST, "mine@v1", "no recipe 'mine@v1'"),
    ],
)
def test_what_cannot_be_saved_is_one_sentence_and_leaves_nothing(workspace, name, parts, parent, words):
    with pytest.raises(ValueError, match=words):
        saved.save(workspace, name, parts, parent)
    assert saved.list_saved(workspace) == []


def test_reading_at_the_page_names_no_file(workspace, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_text("train:\n  steps: 3\n")
    for name in ("secret", str(tmp_path / "secret"), "../secret", "*", ""):
        with pytest.raises(ValueError, match="there is no recipe"):
            saved.read(workspace, name)
    assert saved.read(workspace, "shakespeare")["data"]["corpus"] == "shakespeare"


def test_two_who_save_at_once_get_two_versions(workspace):
    refs = []
    threads = [threading.Thread(target=lambda: refs.append(saved.save(workspace, "mine", FIRST))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(refs) == sorted(f"mine@v{n}" for n in range(1, 9))
    assert len(saved.list_saved(workspace)) == 8


def test_what_differs_is_told_by_dotted_names():
    old = {"train": {"steps": 7, "seed": 1}, "model": {"rope_parameters": {"rope_theta": 1e4}}}
    new = {"train": {"steps": 8, "seed": 1}, "model": {"rope_parameters": {"rope_theta": 5e5}}, "data": {"corpus": "x"}}
    assert saved.compare(old, new) == {
        "train.steps": (7, 8), "model.rope_parameters.rope_theta": (1e4, 5e5), "data.corpus": (None, "x"),
    }  # fmt: skip
    assert saved.compare(old, old) == {}


def test_a_spoilt_file_does_not_hide_the_others(workspace):
    saved.save(workspace, "mine", FIRST)
    (workspace.root / "recipes" / "bad@v1.yaml").write_text("{")
    assert [one.ref for one in saved.list_saved(workspace)] == ["bad@v1", "mine@v1"]
    with pytest.raises(ValueError, match="not a YAML recipe"):
        saved.read(workspace, "bad@v1")
