"""A process that trains on command, and a small corpus to train on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = "".join(
    f"{n} bottles of milk stand on the wall, and if one of them falls there are {n - 1}.\n" for n in range(400)
)


class Trainer:
    """Sends commands to the fork server; `workspace` is given to each."""

    def __init__(self, process: subprocess.Popen):
        self.process = process

    def __call__(self, workspace: Path, *argv: str, **order) -> tuple[int, str]:
        """Exit code (negative: the signal it died by) and output of one `training.pretrain`."""
        argv = [*argv, "--workspace", str(workspace)]
        self.process.stdin.write(json.dumps({"argv": argv, **order}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["output"]


@pytest.fixture(scope="session")
def pretrain():
    server = Path(__file__).with_name("fork_server.py")
    process = subprocess.Popen(
        [sys.executable, str(server)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
    )
    yield Trainer(process)
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="session")
def milk(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "milk.txt"
    path.write_text(TEXT)
    return path
