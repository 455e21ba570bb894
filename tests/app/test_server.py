"""The server from outside: what it exposes, whom it refuses, and that a program can use it."""

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from gradio_client import Client
from starlette.testclient import TestClient

from data.access import Access
from data.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
ENDPOINTS = {
    "/list_runs", "/show_run", "/metrics", "/start_training", "/control_run", "/run_status",
    "/list_corpora", "/tokenize", "/generate", "/attention",
}  # fmt: skip


def test_importing_the_page_writes_nothing(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from app import demo; print(type(demo).__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip().endswith("Blocks"), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--host", "0.0.0.0"], "set --auth"),
        (["--host", "0.0.0.0", "--auth", "ada"], "USER:PASSWORD"),
        (["--port", "99999"], "--port"),
        (["--allow", "nowhere-at-all"], "nowhere-at-all"),
    ],
)
def test_a_server_that_cannot_be_or_must_not_be_is_refused(flags, said, tmp_path, monkeypatch):
    import app

    monkeypatch.setattr(sys, "argv", ["app.py", *flags, "--workspace", str(tmp_path / "lab")])
    monkeypatch.delenv("LLM_LAB_AUTH", raising=False)
    monkeypatch.delenv("SPACE_ID", raising=False)
    with pytest.raises((ValueError, OSError), match=said):
        app.main()
    assert not (tmp_path / "lab").exists()


def test_endpoints_are_named_and_documented_and_nothing_else_is(server):
    info = json.load(urllib.request.urlopen(f"{server.url}/gradio_api/info"))
    assert set(info["named_endpoints"]) == ENDPOINTS
    assert info["unnamed_endpoints"] == {}
    for name, endpoint in info["named_endpoints"].items():
        assert len(endpoint.get("description", "")) > 20, f"{name} is not documented"


def get(url: str, **headers) -> int:
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_rebound_name_and_another_page_are_refused(server):
    assert get(server.url) == 200
    assert get(server.url, Host="evil.example") == 403
    assert get(f"{server.url}/gradio_api/info", Origin="http://evil.example") == 403


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd", "/gradio_api/file=../../../../etc/passwd", "/gradio_api/file=%2fetc%2fpasswd",
        "/gradio_api/file=..%2f..%2fetc%2fpasswd", "/gradio_api/file=pyproject.toml", "/gradio_api/file=app.py",
        "/file=/etc/passwd", "/assets/..%2f..%2f..%2fetc%2fpasswd", "/static/%2e%2e/%2e%2e/pyproject.toml",
    ],
)  # fmt: skip
def test_no_file_of_the_machine_is_served(server, path):
    try:
        body = urllib.request.urlopen(f"{server.url}{path}", timeout=10).read()
    except urllib.error.HTTPError as error:
        assert error.code in (403, 404)
        body = error.read()
    assert b"root:" not in body and b"[project]" not in body and b"import gradio" not in body


def test_read_only_shows_and_changes_nothing(tmp_path):
    import app

    access = Access(Workspace(tmp_path / "lab"), read_only=True)
    with TestClient(app.create_app(access, hosts=None)) as client:
        assert client.get("/", headers={"Host": "someone-lab.example.org"}).status_code == 200
        for endpoint, data in {"start_training": [{}, "x"], "control_run": ["latest", "stop"]}.items():
            event = client.post(f"/gradio_api/call/{endpoint}", json={"data": data}).json()["event_id"]
            assert "read-only" in client.get(f"/gradio_api/call/{endpoint}/{event}").text
        assert client.post("/gradio_api/upload", files={"files": b"x"}).status_code == 403
    assert not (tmp_path / "lab").exists()


def test_a_password_stands_before_every_route_of_the_page(tmp_path):
    import app

    with TestClient(app.create_app(Access(Workspace(tmp_path)), hosts=None, auth=("ada", "secret"))) as client:
        for path in ("/", "/config", "/gradio_api/info", "/gradio_api/queue/status", "/theme.css", "/nothing"):
            assert client.get(path).status_code == 401, path
        assert client.get("/", auth=("ada", "secret")).status_code == 200


def test_ctrl_c_ends_it_quietly_while_a_page_is_open(server):
    Client(server.url, verbose=False)  # keeps a connection open, as a page does
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=20) is not None
    assert "Traceback" not in server.log() and "ERROR" not in server.log()
