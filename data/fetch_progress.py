"""How far a fetch is: a bar with the time that is left for a terminal, a word in its folder for a page.

Uses tqdm; of ours `data.partial`.
"""

import time
from collections.abc import Mapping

from tqdm import tqdm

from data.partial import Partial, Position

TELL_SECONDS = 1.0  # between two words


class Progress:
    """Of one split, while it is streamed; `at` is counted by who streams it.

    Args:
        goals: by `bytes`, `documents` and `rows` how many there will be, None where nobody knows. The first that is
            known is what is counted.
    """

    def __init__(self, partial: Partial, words: str, split: str, at: Position, goals: Mapping[str, int | None]):
        self.partial, self.words, self.split, self.at = partial, words, split, at
        known = ((name, goal) for name, goal in goals.items() if goal is not None)
        self.counted, self.goal = next(known, ("documents", None))
        self.begun, self.started, self.told = self.now, time.monotonic(), 0.0

    @property
    def now(self) -> int:
        return getattr(self.at, self.counted)

    def __enter__(self) -> "Progress":
        unit = {"unit": "B", "unit_scale": True} if self.counted == "bytes" else {"unit": f" {self.counted}"}
        words = f"fetching {self.words}"
        self.bar = tqdm(total=self.goal, initial=self.now, desc=words, leave=False, disable=None, **unit)
        self.tell()
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()

    def update(self) -> None:
        """To be called after every row; it says something once a second."""
        if time.monotonic() - self.told >= TELL_SECONDS:
            self.bar.set_postfix_str(f"{self.at.documents:,} documents, {self.at.bytes / 1e6:,.1f} MB", refresh=False)
            self.bar.update(self.now - self.bar.n)
            self.tell()

    def tell(self) -> None:
        share = min(1.0, self.now / self.goal) if self.goal else None
        gained, waited = self.now - self.begun, time.monotonic() - self.started
        left = max(0, self.goal - self.now) * waited / gained if self.goal and gained else None
        facts = {"split": self.split, "documents": self.at.documents, "bytes": self.at.bytes}
        self.partial.tell("fetching", **facts, share=share, eta_seconds=left)
        self.told = time.monotonic()
