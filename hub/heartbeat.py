"""A thread that says that a process lives while its main thread is busy with something long.

May import `data`. Preparing data, evaluating or waiting for a turn take minutes in which nobody else would say so.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hub.runs import Run

TICK = 0.5  # seconds; the run itself writes no more than one heartbeat a second


@contextmanager
def heartbeats(run: Run, listen: Callable[[], object]) -> Iterator[None]:
    """Inside the block the run's heart beats, as soon as the run is this process's, and `listen` is called as often."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(TICK):
            try:
                if run.is_mine():  # a run that another process trained last is not spoken for
                    listen()
                    run.heartbeat()
            except (OSError, ValueError):
                pass  # a full disk or a spoilt record is for the main thread to report, where it can end the run

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
