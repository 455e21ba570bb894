"""What may be named through a page: names by pattern, paths only below the folders that are served."""

import pytest

from data.access import Access
from data.workspace import Workspace


@pytest.fixture
def access(tmp_path):
    (tmp_path / "lab" / "runs" / "a-1b2c3d").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.txt").write_text("x")
    (tmp_path / "lab" / "runs" / "way-out").symlink_to(tmp_path / "secret")
    return Access(Workspace(tmp_path / "lab"))


@pytest.mark.parametrize("name", ["a-1b2c3d", "latest", "a-1b2c3d@step-000500", "Qwen/Qwen3-0.6B", "tales", "x@best"])
def test_names_pass_as_they_are(access, name):
    assert access.reference(f" {name} ") == name


@pytest.mark.parametrize(
    "text",
    [
        "../secret", "..", "runs/../../secret", "/etc/passwd", "~/.ssh", "~nobody-there/x", "..%2fsecret",
        "%2e%2e/secret", "way-out", "way-out@best", "runs/way-out", "runs/way-out/key.txt", "a\0b", "file:///etc/passwd",
        "a/b/c/../../../../secret", "./../secret", "a..b/c",
    ],
)  # fmt: skip
def test_no_way_leads_out(access, text):
    with pytest.raises(ValueError, match=r"not in the workspace|there is no file"):
        access.reference(text)


def test_a_folder_that_looks_like_owner_and_name_is_a_path(access, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # `secret/key.txt` has the form of a Hub id and is a file here
    with pytest.raises(ValueError, match=r"not in the workspace|there is no file"):
        access.reference("secret/key.txt")


def test_paths_inside_come_back_true(access, tmp_path):
    inside = tmp_path / "lab" / "runs" / "a-1b2c3d"
    assert access.reference(str(inside)) == str(inside.resolve())
    assert access.path("runs/a-1b2c3d") == inside.resolve()
    with pytest.raises(ValueError, match="there is no file"):
        access.path("runs/nothing")


def test_a_folder_can_be_allowed(access, tmp_path):
    wider = Access(access.workspace, folders=(tmp_path / "secret",))
    assert wider.path(str(tmp_path / "secret" / "key.txt")).read_text() == "x"
    with pytest.raises(ValueError, match="may lie below"):
        wider.path("/etc/passwd")


@pytest.mark.parametrize(
    ("text", "said"), [("", "nothing is chosen"), (None, "nothing is chosen"), ("x" * 10_000, "at most")]
)
def test_empty_and_huge(access, text, said):
    with pytest.raises(ValueError, match=said):
        access.reference(text)


def test_read_only_refuses_to_write(access):
    access.check_write()
    with pytest.raises(ValueError, match="read-only"):
        Access(access.workspace, read_only=True).check_write()
