"""The Train tab's checks, without a browser: what is known at once, what a check changes, and what red forbids."""

import json
import subprocess

import pytest

from data.access import Access
from training import draft, tab_checks
from training.checks import CHECKS, MEMORY

PARTS = {"train": {"steps": 5}}


@pytest.fixture
def access(workspace) -> Access:
    return Access(workspace)


@pytest.fixture
def answered(monkeypatch):
    """`--check --json` that answers what it is given, in place of a process; the commands it was given."""
    commands = []

    def answered(checks: list[dict] | None, said: str = "") -> list:
        def run(command, **kwargs):
            commands.append(command)
            output = "" if checks is None else "corpus tales: made\n" + json.dumps({"checks": checks}, indent=2)
            return subprocess.CompletedProcess(command, 0 if checks else 2, output, said)

        monkeypatch.setattr(draft.subprocess, "run", run)
        return commands

    return answered


def all_checks(**status: str) -> list[dict]:
    return [
        {"name": name, "status": status.get(name.replace(" ", "_"), "green"), "seen": "<seen>", "expected": "more",
         "advice": "", "seconds": 0.1}
        for name in CHECKS
    ]  # fmt: skip


def test_the_memory_is_judged_at_once_and_the_rest_is_still_to_do(access):
    drawn, start = tab_checks.shown(access, {}, False, "", lambda: PARTS)
    assert drawn.count("<li") == len(CHECKS) and drawn.count("not done") == len(CHECKS) - 1
    assert drawn.index("lab-check-green") < drawn.index(MEMORY) < drawn.index("not done")
    assert start.interactive and not access.workspace.root.exists()


def test_red_forbids_the_start_until_somebody_insists(access, answered):
    commands = answered(all_checks(no_look_ahead="red"))
    last = draft.check_run(access, PARTS)
    assert commands[0][-4:-1] == ["--check", "--json", "--workspace"] and "--train.steps" in commands[0]
    drawn, start = tab_checks.shown(access, last, False, "", lambda: PARTS)
    assert drawn.count("lab-check-red") == 1 and "&lt;seen&gt;" in drawn and not start.interactive
    assert tab_checks.shown(access, last, True, "", lambda: PARTS)[1].interactive
    with pytest.raises(ValueError, match="red"):
        tab_checks.permitted(access, last, False, "", PARTS)
    assert tab_checks.permitted(access, last, True, "", PARTS) == {"train": {"steps": 5, "checks": "warn"}}
    # of another recipe nothing is known by it
    other, start = tab_checks.shown(access, last, False, "", lambda: {"train": {"steps": 6}})
    assert "lab-check-red" not in other and start.interactive
    assert tab_checks.permitted(access, last, False, "", {"train": {"steps": 6}}) == {"train": {"steps": 6}}


def test_what_cannot_be_checked_is_a_sentence(access, answered):
    answered(None, "a warning\ntrain.context 128 is longer than the text")
    with pytest.raises(ValueError, match=r"could not be done: train\.context 128 is longer"):
        draft.check_run(access, PARTS)
    drawn, start = tab_checks.shown(access, {}, False, "", lambda: {"train": {"steps": "many"}})
    assert drawn == "" and start.interactive  # what is wrong with it is told beside the fields


def test_a_page_that_only_shows_checks_nothing(workspace, answered):
    commands = answered(all_checks())
    with pytest.raises(ValueError, match="read-only"):
        draft.check_run(Access(workspace, read_only=True), PARTS)
    assert commands == []
