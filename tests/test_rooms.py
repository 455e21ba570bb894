"""The plan of the house, kept by a test: who may import whom, and where heavy libraries may appear."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "page": set(),  # and only a tab or the app draws a page, see below
    "modeling": set(),
    "data": set(),
    "hub": {"data", "modeling"},
    "training": {"hub", "data", "modeling"},
    "interpret": {"training", "hub", "data"},
    "finetune": {"interpret", "training", "hub", "data"},
}
FILES = sorted([ROOT / "app.py", *(path for room in MAY_IMPORT for path in (ROOT / room).rglob("*.py"))])


def imports(path: Path) -> list[tuple[str, int]]:
    """(module, relative level) of every import in a file, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, 0) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.level))
    return found


def test_there_is_something_to_check():
    assert len(FILES) > 20
    assert ("data.workspace", 0) in imports(ROOT / "hub" / "runs.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_rooms_stand_on_one_another(path):
    room = path.relative_to(ROOT).parts[0]
    is_tab = path.name.startswith("tab")
    for module, level in imports(path):
        top, last = module.split(".")[0], module.split(".")[-1]
        if top == "page" and room != "page":
            assert is_tab or path.name == "app.py", f"{path} imports {module}: only tabs and the app draw a page"
        elif level == 0 and top in MAY_IMPORT and top != room and path.name != "app.py":
            assert top in MAY_IMPORT[room], (
                f"{path} imports {module}: {room} may import {MAY_IMPORT[room] or 'nothing'}"
            )
        if is_tab and top in MAY_IMPORT and last.startswith("tab") and top != room:
            assert module == "page.tab", f"{path} imports {module}: a tab imports no other room's tab"
        if top == "gradio":
            assert is_tab or path.name == "app.py", f"{path} imports gradio outside a tab"


@pytest.mark.parametrize("path", sorted((ROOT / "modeling").glob("*.py")), ids=lambda path: path.name)
def test_the_model_travels(path):
    """save_pretrained copies only what `from .x import y` names: other spellings save in silence and fail on load."""
    for module, level in imports(path):
        assert module.split(".")[0] != "modeling", f"{path} must import its neighbours as `from .x import y`"
        if level:
            assert level == 1 and module and "." not in module, f"{path}: `from {'.' * level}{module}` does not travel"
    assert not [folder for folder in (ROOT / "modeling").iterdir() if folder.is_dir() and folder.name != "__pycache__"]
