"""The training process's side of control: what it hears, what it does then, and what it leaves when it ends early.

May import `hub` and `data`. Between steps a `Listener` obeys signals and the requests of `training.control`;
everywhere else, while data are prepared or a result is judged, `attend` ends the process at once when told to stop.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from accelerate import Accelerator
from accelerate.utils import gather_object

from data.console import one_line
from hub.heartbeat import heartbeats
from hub.runs import Run
from training.control import take, waiting

POLL = 0.25  # seconds between two looks of a paused process, and about so many between questions among several
ECHO = 1.0  # seconds in which a second Ctrl-C is the launcher's copy of the one that the terminal sent to all
PAUSE = "pause or resume"  # by one signal: whichever the run can do
SIGNALS = {signal.SIGINT: "stop", signal.SIGTERM: "stop", signal.SIGUSR1: "save", signal.SIGUSR2: PAUSE}


class Listener(AbstractContextManager):
    """Requests and signals, obeyed between steps: SIGINT and SIGTERM stop, SIGUSR1 saves, SIGUSR2 pauses or resumes.

    A second Ctrl-C does not wait for the step to end. One process of several that has lost its launcher stops them all:
    nobody would restart or end them any more.
    """

    def __init__(self, run: Run, accelerator: Accelerator):
        self.run, self.accelerator = run, accelerator
        self.signalled: list[tuple[str, str]] = []  # a verb, and by what it was asked for
        self.interrupted_at: float | None = None
        self.launcher = os.getppid() if accelerator.num_processes > 1 else None
        self.paused = self.stopping = False
        self.asked_at: tuple[int, float] | None = None  # step and time of the last question to the other processes
        self.next_question = 0

    def __enter__(self):
        self.previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number, frame) -> None:
        verb, at = SIGNALS[number], time.monotonic()
        if number == signal.SIGINT:
            first, self.interrupted_at = self.interrupted_at, at
            if self.launcher is not None and first is not None and at - first < ECHO:
                return
            if self.stopping or "stop" in (verb for verb, _ in self.signalled):
                raise KeyboardInterrupt
        if verb == PAUSE:  # by what all processes know, so that one that reaches each of them counts once
            verb = "resume" if self.paused else "pause"
        self.signalled.append((verb, signal.Signals(number).name))

    def go_on(self, step: int, keep) -> bool:
        """Do what was asked for since the last step; whether to take another one. Collective.

        Args:
            step: the steps taken so far.
            keep: the loop's `Keeper`, which saves.
        """
        self._obey(self.agreed(step), step, keep)
        if self.paused and not self.stopping:
            keep.flush(step)  # all that was measured can be read during the pause
            self._say("paused", step)
            with keep.log.pause("paused"):
                while self.paused and not self.stopping:
                    time.sleep(POLL)
                    self._obey(self.agreed(step), step, keep)
            if not self.stopping:
                self._say("running", step)
        if self.stopping:
            self._say("stopping", step)
        return not self.stopping

    def _obey(self, asked: list[tuple[str, str]], step: int, keep) -> None:
        for verb, by in asked:
            keep.log.say(f"step {step}: asked to {verb} by {by}")
            if verb == "save":
                keep.save(step)
            elif verb == "stop":
                self.stopping = True
            else:
                self.paused = verb == "pause"

    def agreed(self, step: int) -> list[tuple[str, str]]:
        """What was asked for, the same for all processes, which must act at one step. Collective.

        Asking the others makes a device wait, so several processes ask each other a few times a second, not each step.
        """
        if self.accelerator.num_processes == 1:
            return self.heard()
        if not self.paused and step < self.next_question:
            return []
        answers = gather_object([(self.heard(), self._steps_until_next_question(step))])
        self.next_question = step + answers[0][1]  # the main process's clock decides for all
        return [asked for heard, _ in answers for asked in heard]

    def _steps_until_next_question(self, step: int) -> int:
        """As many as take `POLL` seconds at the pace since the last question, and at most twice as many as then.

        No pace is known before a step was taken, and the first ones are no measure: the distance grows from 1.
        """
        now = time.perf_counter()
        asked_step, asked_time = self.asked_at or (step, now)
        self.asked_at = step, now
        taken = step - asked_step
        return max(1, min(2 * taken, int(POLL * taken / (now - asked_time)))) if taken else 1

    def heard(self) -> list[tuple[str, str]]:
        """What this process was told since it was last asked, and by what: by signals, then by requests."""
        heard, self.signalled = self.signalled, []
        if self.accelerator.is_main_process:
            heard += [(verb, "request") for verb in take(self.run)]
        if self.launcher not in (None, os.getppid()):
            self.launcher = os.getppid()
            heard.append(("stop", "the end of its launcher"))
        return heard

    def _say(self, status: str, step: int) -> None:
        if self.accelerator.is_main_process:
            self.run.update(status=status, progress={"step": step})  # a heartbeat may have been a second ago
            self.run.log(f"step {step}: {status}")


@contextmanager
def attend(run: Run) -> Iterator[None]:
    """Inside the block the run, as soon as it is this process's, has a beating heart and a true end in its record.

    A request to stop or a SIGTERM ends the process at once, as Ctrl-C does, but where a `Listener` knows better.
    `interrupted` is what is left of that, `failed` and its sentence of every other error.
    """
    previous = {signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt)}
    for number in (signal.SIGUSR1, signal.SIGUSR2):  # there is nothing to save or to pause yet
        previous[number] = signal.signal(number, signal.SIG_IGN)
    try:
        if "stop" in waiting(run):
            raise KeyboardInterrupt
        with heartbeats(run, lambda: _stop_if_asked(run)):
            yield
    except KeyboardInterrupt:
        _finish(run, "interrupted")
        raise
    except BaseException as error:
        _finish(run, "failed", one_line(error))
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _finish(run: Run, status: str, error: str | None = None) -> None:
    if run.is_mine():  # a mistake in what was typed says nothing about a run that another process trained
        run.finish(status, error=error)
        run.log(f"{status}: {error}" if error else status)


def _stop_if_asked(run: Run) -> None:
    """From the heart's thread: the main one is busy, and only a signal reaches it there."""
    if "stop" in waiting(run):
        take(run)  # one signal is enough
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)


def _interrupt(number, frame) -> None:
    raise KeyboardInterrupt
