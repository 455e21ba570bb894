"""A process that trains on command, and a small corpus to train on."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TIMES = ("tokens_sec", "seconds", "mfu", "data_wait")  # what a clock decides
TEXT = "".join(
    f"{n} bottles of milk stand on the wall, and if one of them falls there are {n - 1}.\n" for n in range(400)
)


class Trainer:
    """Sends commands of one module to the fork server; `workspace` is given to each."""

    def __init__(self, process: subprocess.Popen, module: str):
        self.process, self.module = process, module

    def __call__(self, workspace: Path, *argv: str, **order) -> tuple[int, str]:
        """Exit code (negative: the signal it died by) and output of one command."""
        return self.wait(self.begin(workspace, *argv, **order))

    def begin(self, workspace: Path, *argv: str, **order) -> int:
        """Start one and leave it running; its process number."""
        argv = [*argv, "--workspace", str(workspace)]
        return self._ask({"module": self.module, "argv": argv, **order})["pid"]

    def wait(self, pid: int) -> tuple[int, str]:
        """Exit code and output of one that was begun, when it has ended."""
        answer = self._ask({"wait": pid})
        return answer["code"], answer["output"]

    def _ask(self, order: dict) -> dict:
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="session")
def pretrain():
    with serving("training.pretrain") as trainer:
        yield trainer


@contextmanager
def serving(module: str) -> Iterator[Trainer]:
    """The fork server for a module's commands."""
    server = Path(__file__).with_name("fork_server.py")
    process = subprocess.Popen(
        [sys.executable, str(server), module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
    )
    yield Trainer(process, module)
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="session")
def milk(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "milk.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="session")
def assert_same_bits():
    """Raises where two finished runs, given by their folders, differ in anything but times."""

    def compare(one: Path, other: Path) -> None:
        one, other = record(one), record(other)
        for part in ("weights", "root", "optimizer"):
            assert one[part].keys() == other[part].keys()
            for name, value in one[part].items():
                theirs = other[part][name]
                same = torch.equal(value, theirs) if isinstance(value, torch.Tensor) else value == theirs
                assert same, f"{part} {name}"
        assert torch.equal(one["random"], other["random"])
        for part in ("metrics", "csv", "samples"):
            assert one[part] == other[part], part

    return compare


def record(run: Path) -> dict:
    """Everything of a finished run that must not depend on how it came there."""
    last = max((run / "checkpoints").glob("step-*"))
    state = torch.load(last / "state" / "training.pt", weights_only=True)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    table = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    kept = [i for i, name in enumerate(table[0]) if name not in TIMES]
    return {
        "weights": load_file(last / "model.safetensors"),
        "root": load_file(run / "model.safetensors"),
        "optimizer": flat(state["optimizer"]),
        "random": state["random"][0]["torch"],
        "metrics": [{key: value for key, value in row.items() if key not in TIMES} for row in rows],
        "csv": [[row[i] for i in kept] for row in table],
        "samples": (run / "samples.jsonl").read_text(),
    }


def flat(value, path: str = "") -> dict:
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in flat(inner, f"{path}/{key}").items()}
    if isinstance(value, list | tuple):
        return {k: v for i, inner in enumerate(value) for k, v in flat(inner, f"{path}/{i}").items()}
    return {path: value}
