"""The real server in a process of its own, and a real browser before it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Server:
    """`python app.py` over a workspace; can be killed and started again on the same port."""

    def __init__(self, workspace: Path, *flags: str):
        self.workspace, self.flags = workspace, flags
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> "Server":
        command = [sys.executable, "app.py", "--port", str(self.port), "--workspace", str(self.workspace), *self.flags]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        log = (self.workspace.parent / "server.log").open("ab")
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            try:
                urllib.request.urlopen(self.url, timeout=5).read()
                return self
            except urllib.error.HTTPError:  # a password is asked: somebody answers
                return self
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"the server does not answer:\n{self.log()}")

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def log(self) -> str:
        return (self.workspace.parent / "server.log").read_text(errors="replace")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Over an empty workspace; whatever it launched ends with the module."""
    workspace = tmp_path_factory.mktemp("lab") / "workspace"
    served = Server(workspace).start()
    yield served
    served.kill()
    end_runs(workspace)


def end_runs(workspace: Path) -> None:
    """Kill what still trains in a workspace."""
    from data.workspace import Workspace
    from hub.runs import LIVE, all_runs

    for run in all_runs(Workspace(workspace)):
        if run.status in LIVE and run.info()["process"]:
            os.kill(run.info()["process"]["pid"], signal.SIGKILL)


@pytest.fixture
def tab(chromium, server):
    """A fresh browser window; any request to another host, and any error of the page's own scripts, fails the test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    outside, errors = [], []
    page.on("request", lambda request: outside.append(request.url) if foreign(request.url, server.url) else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not outside, f"the page asked other hosts: {outside[:5]}"
    assert not errors, f"errors in the page: {errors[:5]}"


def foreign(url: str, home: str) -> bool:
    return not url.startswith((home, "data:", "blob:", "about:"))
