"""Where everything made is kept, and how a file is written so that no reader ever sees half of it.

Standard library and `filelock`. Every other room reads and writes through these functions: a write goes to a temporary
name beside its target, is flushed to disk and renamed, so a killed process leaves the old file or the new one.
"""

import hashlib
import inspect
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

from filelock import FileLock

SCHEMA = 1  # of run.json, manifest.json and recipes; raised when a field changes its meaning
LOCKS = ".locks"  # the folder of the workspace in which those who make something hold their locks
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Workspace:
    """The folder in which a lab keeps what it makes; its rooms are created when first asked for.

    Args:
        root: an explicit folder, else `$LLM_LAB_WORKSPACE`, else `./workspace`.
    """

    def __init__(self, root: str | Path | None = None):
        self.root = Path(root or os.environ.get("LLM_LAB_WORKSPACE") or "workspace").expanduser().absolute()

    def room(self, name: str) -> Path:
        """`corpora`, `tokenizers`, `tokens`, `recipes` or `runs`. Raises ValueError where it cannot be made."""
        path = self.root / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"the workspace {self.root} cannot be written ({error.strerror}); "
                "name another with --workspace DIR or $LLM_LAB_WORKSPACE"
            ) from error
        if not os.access(path, os.W_OK):
            raise ValueError(
                f"the workspace folder {path} is not writable; name another with --workspace DIR or $LLM_LAB_WORKSPACE"
            )
        return path

    def __repr__(self) -> str:
        return f"Workspace({str(self.root)!r})"


def check_name(name: str, what: str = "name") -> str:
    """The name itself when it can be a folder's on any system, so that no id leads out of the workspace."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{what} {name!r} may hold letters, digits, '.', '_' and '-', and begins with a letter or digit"
        )
    return name


def sha256_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_files(root: Path, pattern: str = "*") -> dict[str, str]:
    """SHA-256 of every file under `root` that matches, by its path relative to `root`, sorted."""
    files = sorted(path for path in root.rglob(pattern) if path.is_file())
    return {path.relative_to(root).as_posix(): sha256_file(path) for path in files}


def sha256_json(value: object) -> str:
    """One hash for a JSON value, whatever the order of its keys."""
    return sha256_bytes(json.dumps(value, sort_keys=True).encode())


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content` in one step, durable before it is visible."""
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), 0o644)  # mkstemp makes the file private; everything else in the workspace is not
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk: say which file it refused
            error.filename = str(path)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict:
    return json.loads(Path(path).read_text(encoding="utf-8"))


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it becomes `path` when the block ends well, and vanishes when not.

    A folder that is already at `path` is replaced. What is in it is flushed to disk before the rename.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        temporary.chmod(0o755)
        yield temporary
        sync_tree(temporary)
        if path.exists():  # a folder cannot be renamed over a full one: set the old one aside first
            aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            path.rename(aside / path.name)
            temporary.rename(path)
            shutil.rmtree(aside)
        else:
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


def one_maker(name_of: Callable[..., str]) -> Callable[[Callable], Callable]:
    """Decorates a function that finds something in its `workspace` or makes it, one process at a time.

    Of two that want the same thing, the second waits and finds what the first has made.

    Args:
        name_of: what the thing is called, from the function's own arguments by their names.
    """

    def decorate(find_or_make: Callable) -> Callable:
        signature = inspect.signature(find_or_make)

        @wraps(find_or_make)
        def alone(*given, **named):
            bound = signature.bind(*given, **named)
            bound.apply_defaults()
            # not checked yet, so it must not lead elsewhere; that two names may share a lock does no harm
            name = re.sub(r"[^A-Za-z0-9._-]", "-", name_of(**bound.arguments))[:100]
            with FileLock(bound.arguments["workspace"].room(LOCKS) / f"{find_or_make.__name__}-{name}.lock"):
                return find_or_make(*given, **named)

        return alone

    return decorate


def sync_tree(root: Path) -> None:
    """Flush every file and folder under `root` to disk."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        elif path.is_dir():
            sync_folder(path)
    sync_folder(root)


def sync_folder(path: Path) -> None:
    """Make a rename inside `path` durable; systems that cannot open a folder (Windows) do without."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
