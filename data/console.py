"""How every command of the lab speaks: one clear line for a mistake, and exit codes a script can rely on.

Standard library only. 0 is success, 2 a mistake of the user's (one line, no traceback), 1 a failure of ours,
130 an interruption.
"""

import argparse
import difflib
import sys
from collections.abc import Callable, Iterable


class Parser(argparse.ArgumentParser):
    """argparse without its usage block: a wrong flag is one line, as every other mistake is."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> None:
        raise ValueError(f"{message}; see `{self.prog} --help`")


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint to append to an error: the closest known word, or all of them when none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def cli(main: Callable[[], int | None]) -> None:
    """Run a command's `main` and exit: its code, 2 and one line for a ValueError or OSError, 130 for Ctrl-C."""
    try:
        sys.exit(main() or 0)
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of a pipe went away, as `| head` does
            sys.exit(0)
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
