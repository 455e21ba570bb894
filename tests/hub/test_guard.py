"""The guard, before a small application of its own: every refusal, and what is let through."""

import base64

import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from hub.guard import LOOPBACK, Guard, host_of, is_loopback, parse_auth


async def echo(request):
    return PlainTextResponse(f"{len(await request.body())} bytes")


def client(**settings) -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    return TestClient(Guard(app, **settings), base_url="http://127.0.0.1:7860")


def basic(user: str, password: str) -> dict:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:7860", "LOCALHOST"])
def test_loopback_names_are_answered(host):
    assert client().get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "", "[::1"])
def test_a_name_that_is_rebound_to_loopback_is_refused(host):
    answer = client().get("/", headers={"Host": host})
    assert answer.status_code == 403
    assert "name" in answer.text


def test_behind_a_proxy_any_name_is_answered():
    assert client(hosts=None).get("/", headers={"Host": "someone-lab.hf.space"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:7860"])
def test_another_page_may_not_ask(origin):
    assert client().post("/run", headers={"Origin": origin}).status_code == 403


def test_the_page_itself_may_ask():
    assert client().post("/run", headers={"Origin": "http://127.0.0.1:7860"}).status_code == 200


def test_every_route_asks_for_the_password():
    guarded = client(auth=("ada", "lovelace:1843"))
    for path in ("/", "/config", "/gradio_api/info", "/api/models/x"):
        refused = guarded.get(path)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")
        assert guarded.get(path, headers=basic("ada", "lovelace:1843")).status_code == 200
    for wrong in (
        basic("ada", "lovelace"),
        basic("", ""),
        {"Authorization": "Basic %%%"},
        {"Authorization": "Bearer x"},
    ):
        assert guarded.get("/", headers=wrong).status_code == 401


@pytest.mark.parametrize("path", ["/file=../../etc/passwd", "/../etc/passwd", "/a/%2e%2e/b", "/a/..\\b", "/a/.."])
def test_no_path_leads_upwards(path):
    # as the server hands it on, decoded once; a client of the library would tidy it away
    refused = Guard(app=None).refusal({"type": "http", "method": "GET", "path": path}, {"host": "127.0.0.1"})
    assert refused == (403, "no path leads upwards here")


def test_uploads_are_bounded_with_and_without_a_stated_length():
    small = client(limit=1000)
    assert small.post("/upload", content=b"x" * 1000).text == "1000 bytes"
    assert small.post("/upload", content=b"x" * 1001).status_code == 413

    def pieces():
        for _ in range(5):
            yield b"x" * 400

    with pytest.raises(ClientDisconnect):  # the application sees its reader hang up
        small.post("/upload", content=pieces())


def test_read_only_takes_no_uploads():
    assert client(read_only=True).post("/gradio_api/upload", content=b"x").status_code == 403
    assert client(read_only=True).get("/gradio_api/upload_progress").status_code == 200


def test_answers_forbid_the_browser_to_ask_elsewhere():
    headers = client().get("/").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_hosts():
    assert host_of("[::1]:80") == "::1"
    assert host_of("Example.org.:1") == "example.org"
    assert is_loopback("127.8.8.8") and is_loopback("localhost") and not is_loopback("0.0.0.0")
    assert "127.0.0.1" in LOOPBACK


@pytest.mark.parametrize("text", ["", "ada", "ada:", ":secret"])
def test_auth_needs_both(text):
    with pytest.raises(ValueError, match="USER:PASSWORD"):
        parse_auth(text)
