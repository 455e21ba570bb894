"""What somebody at the page may name: runs, Hub ids, and files below the folders that the server was started for.

Uses `data.workspace`. The command line trusts who types; a page may be open to others, so every name that comes through
it is checked here before anything is opened.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from data.workspace import Workspace

# one word (a run, a corpus, a Hub id without an owner) or owner/name, with a revision if wanted
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?(@[A-Za-z0-9][A-Za-z0-9._-]*)?")
LONGEST = 200  # characters of a name


@dataclass(frozen=True)
class Access:
    """The workspace that a page serves, and what it may do there.

    Args:
        folders: besides the workspace, folders whose files and models may be named by their path.
        read_only: nothing is started, changed or deleted.
        trust_remote_code: whether a model's own code, from a folder or the Hub, may be run.
    """

    workspace: Workspace
    folders: tuple[Path, ...] = ()
    read_only: bool = False
    trust_remote_code: bool = False

    def reference(self, text: str) -> str:
        """A run, corpus, tokenizer, model or Hub id as it was typed, or the true path of a file or folder.

        Raises ValueError for a path outside the folders, links followed, and for what cannot be a name.
        """
        text = "" if text is None else str(text).strip()  # a program may send anything
        if not text:
            raise ValueError("nothing is chosen: pick one from the list, or type a name")
        if len(text) > LONGEST:
            raise ValueError(f"{text[:40]!r}… is {len(text):,} characters long: a name has at most {LONGEST}")
        if not PLAIN.fullmatch(text) or ".." in text or self._is_path(text):
            return str(self.path(text))
        for room in self.workspace.root.glob("*/"):  # a name in the workspace may be a link that leads out of it
            if (room / text.partition("@")[0]).is_symlink():
                self.path(str(room / text.partition("@")[0]))
        return text

    def path(self, text: str) -> Path:
        """The true path of a file or folder inside the folders. Raises ValueError for any other, there or not."""
        outside = f"{text!r} is not in the workspace: {self._allowed()}"
        if "\0" in text or "%" in text:  # no name made here has either
            raise ValueError(outside)
        roots = [root.resolve() for root in (self.workspace.root, *self.folders)]
        try:
            given = Path(text).expanduser()
            path = (given if given.is_absolute() else self.workspace.root / given).resolve()
        except (OSError, RuntimeError) as error:  # a ring of links, no such user
            raise ValueError(outside) from error
        if not any(path.is_relative_to(root) for root in roots):
            raise ValueError(outside)
        if not path.exists():
            raise ValueError(f"there is no file or folder {text!r}")
        return path

    def check_write(self) -> None:
        """Raises ValueError where the page only shows."""
        if self.read_only:
            raise ValueError(
                "this page is read-only: run the lab on a machine of your own to train and to change things"
            )

    def _is_path(self, text: str) -> bool:
        """What has the form of owner/name may also be a folder, here or in the workspace: then it is that folder."""
        return "/" in text and (Path(text).exists() or (self.workspace.root / text).exists())

    def _allowed(self) -> str:
        if not self.folders:
            return "upload it, or start the page with --allow FOLDER"
        return f"paths may lie below {', '.join(map(str, self.folders))}, or upload it"
