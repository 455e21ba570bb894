"""What the README and the guides tell people to type exists and takes those flags."""

import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from data.workspace import Workspace
from training.architecture import build_config
from training.recipe import build_recipe, find_recipe, merge, parse_flags, read_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(?:\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every line in a fenced block that runs Python or Accelerate, split as a shell would, comments away."""
    lines = []
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True) if re.match(r"(python|accelerate|torchrun) ", line) else []
                if words and "…" not in words:
                    lines.append(words)
    return lines


def modules() -> list[str]:
    return sorted({words[2] for words in commands() if words[:2] == ["python", "-m"]})


@pytest.mark.parametrize("module", modules())
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_every_command_has_help_with_an_example(module, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as done:
        runpy.run_module(module, run_name="__main__")
    assert done.value.code == 0
    printed = capsys.readouterr().out
    assert "example" in printed, printed


@pytest.mark.parametrize("words", [w for w in commands() if "training/pretrain.py" in w], ids=" ".join)
def test_every_training_command_is_a_recipe(words, tmp_path):
    flags = words[words.index("training/pretrain.py") + 1 :]
    layers = []
    if "--recipe" in flags:
        at = flags.index("--recipe")
        layers = [read_recipe(find_recipe(flags[at + 1], Workspace(tmp_path)))]
        del flags[at : at + 2]
    recipe = build_recipe(merge(*layers, parse_flags(flags)))
    build_config(recipe.model, 300, recipe.train.context, {})


def test_the_pages_point_at_files_that_are_there():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} points at {target}"


def test_a_space_installs_what_the_project_needs():
    """Spaces read requirements.txt and the README's head, and know nothing of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == project["dependencies"]
    head = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (ROOT / head["app_file"]).is_file()
    assert f"gradio=={head['sdk_version']}" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
