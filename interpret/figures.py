"""Figures of the views, saved with the numbers behind them and the command that makes them again.

May import `data`. Figures are drawn without pyplot, so that threads and processes do not share one.
"""

import re
import shlex
import sys
from argparse import ArgumentTypeError
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from data.console import Parser
from data.workspace import Workspace
from interpret.prompt import MAX_TOKENS

SUFFIXES = {".png": "Description", ".svg": "Description", ".pdf": "Subject"}  # where each keeps the command
LETTERS = 16  # of a token along an axis
DPI = 130


class Saved(NamedTuple):
    """Where a figure lies, and the numbers beside it, which `numpy.load` opens."""

    figure: Path
    numbers: Path

    @property
    def lines(self) -> str:
        """For a person, below what a command tells."""
        return f"figure   {self.figure}\nnumbers  {self.numbers}"

    @property
    def record(self) -> dict[str, str]:
        """For a program, beside what a command found."""
        return {"figure": str(self.figure), "numbers": str(self.numbers)}


def save(figure: Figure, numbers: dict[str, np.ndarray], command: str, out: Path) -> Saved:
    """Write a figure and its numbers; both say by which command they were made."""
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=DPI, metadata={SUFFIXES[out.suffix]: command})
    beside = out.with_suffix(".npz")
    np.savez_compressed(beside, command=np.array(command), **numbers)
    return Saved(out, beside)


def default_path(workspace: Workspace, view: str, ref: str, detail: str = "") -> Path:
    """In the workspace, named after the view and the model; drawing the same again replaces it."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join(filter(None, (view, ref, detail)))).strip("-.")
    return workspace.room("figures") / f"{name}.png"


def view_parser(view: str, description: str, examples: str, prompt: bool = True) -> Parser:
    """The arguments that every view's command has: which model, which prompt, where the figure goes."""
    parser = Parser(prog=f"python -m interpret.{view}", description=description, epilog=f"examples:\n{examples}")
    add = parser.add_argument
    add("run", metavar="RUN[@REVISION]", help="a run's id, name or `latest`; a folder; an id on the Hub")
    if prompt:
        add("--prompt", metavar="TEXT", required=True, help="the text that is read")
        add(
            "--max-tokens", metavar="N", type=int, default=MAX_TOKENS,
            help=f"read the prompt's first N tokens (default: {MAX_TOKENS})",
        )  # fmt: skip
    add(
        "--out", metavar="FIGURE", type=figure_path,
        help="where the figure goes, .png, .svg or .pdf, with the numbers beside it as .npz "
        f"(default: figures/{view}-RUN.png in the workspace)",
    )  # fmt: skip
    add("--json", action="store_true", help="print the result for programs")
    add("--workspace", metavar="DIR", help="default: $LLM_LAB_WORKSPACE, else ./workspace")
    return parser


def command_line(module: str, arguments: list[str] | None) -> str:
    """The command as a person would type it again."""
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if arguments is None else arguments)])


def figure_path(text: str) -> Path:
    """A path whose ending names a kind of figure, as an argument of a command."""
    path = Path(text)
    if path.suffix not in SUFFIXES:
        raise ArgumentTypeError(f"{path} must end in .png, .svg or .pdf")
    return path


def label(token: str) -> str:
    """A token along an axis: its blanks visible, short, and no dollar signs, which would begin a formula."""
    seen = token.replace(" ", "·").replace("\n", "↵").replace("\t", "→")
    return (seen if len(seen) <= LETTERS else f"{seen[: LETTERS - 1]}…").replace("$", r"\$")
