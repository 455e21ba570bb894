"""Folders, hashes and writes that are never seen by halves."""

import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from data import workspace as module
from data.workspace import Workspace, check_name, new_folder, read_json, sha256_files, write_atomic, write_json

ROOT = Path(__file__).resolve().parents[2]


def test_root_is_the_argument_then_the_environment_then_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLM_LAB_WORKSPACE", raising=False)
    assert Workspace().root == tmp_path / "workspace"
    monkeypatch.setenv("LLM_LAB_WORKSPACE", str(tmp_path / "elsewhere"))
    assert Workspace().root == tmp_path / "elsewhere"
    assert Workspace("given").root == tmp_path / "given"


def test_a_workspace_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match=r"file.*cannot be written.*--workspace"):
        Workspace(tmp_path / "file").room("runs")


@pytest.mark.parametrize("name", ["a", "tales-bpe-1024", "7b", "x.y_z-1"])
def test_names_that_are_folders_everywhere(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\\b", "-x", "ü", "a b", "x" * 65, "a\n"])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(ValueError, match="may hold letters"):
        check_name(name)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    write_json(path, {"a": "ä"})
    assert read_json(path) == {"a": "ä"} and stat.S_IMODE(path.stat().st_mode) == 0o644

    def full_disk(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert read_json(path) == {"a": "ä"}
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "corpora" / "tales"
    with pytest.raises(RuntimeError), new_folder(path) as folder:
        (folder / "half").write_text("half")
        assert not path.exists()
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    for content in ("one", "two"):  # the second replaces the first
        with new_folder(path) as folder:
            (folder / content).write_text(content)
    assert [p.name for p in path.iterdir()] == ["two"]
    assert [p.name for p in path.parent.iterdir()] == ["tales"]
    assert os.access(path, os.X_OK)


def test_hashes_of_a_folder(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.py").write_bytes(b"1")
    (tmp_path / "a.txt").write_bytes(b"2")
    one, two = (hashlib.sha256(data).hexdigest() for data in (b"1", b"2"))
    assert list(sha256_files(tmp_path).items()) == [("a.txt", two), ("b/x.py", one)]
    assert sha256_files(tmp_path, "*.py") == {"b/x.py": one}


MAKER = """
import sys, time
from data.workspace import Workspace, new_folder, one_maker

@one_maker(lambda name, **_: name)
def make(name, workspace):
    path = workspace.root / name
    if path.exists():
        return "found"
    with new_folder(path) as folder:
        time.sleep(0.3)
        (folder / "whole").touch()
    return "made"

print(make("a/b", Workspace(sys.argv[1])))
"""


def test_of_two_makers_the_second_finds_what_the_first_made(tmp_path):
    command = [sys.executable, "-c", MAKER, str(tmp_path)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert sorted(process.communicate()[0].strip() for process in both) == ["found", "made"]
    assert (tmp_path / "a" / "b" / "whole").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".locks", "a"]
