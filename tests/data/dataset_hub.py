"""A Hub for datasets on this machine: the routes that `datasets` asks of huggingface.co, over files held in memory."""

import gzip
import hashlib
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import unquote, urlparse

import pyarrow
import pyarrow.parquet
import yaml

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class DatasetHub(ThreadingHTTPServer):
    """Serves `repos`, files by path by repository. A file in `held` is not sent before `release` is set."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Routes)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.held: set[str] = set()
        self.release = threading.Event()
        self.sent: list[str] = []  # paths of files, in the order in which they were asked for
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_) -> None:
        """A process that was killed leaves its connection broken: nothing to print."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def environment(self, folder) -> dict[str, str]:
        """What a process needs to take this for the Hub."""
        quick = {"HF_HUB_DISABLE_TELEMETRY": "1", "USE_TORCH": "0"}  # datasets would import torch, which takes seconds
        return {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder), **quick}


class Routes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        url = urlparse(self.path)
        parts = unquote(url.path).strip("/").split("/")
        api = parts[0] == "api"
        kind, owner, name, *rest = [*parts[api:], "", ""]
        files = self.server.repos.get(f"{owner}/{name}") if kind == "datasets" else None
        rest = [part for part in rest if part]
        if files is None:
            return self.fail("RepoNotFound")
        if api and rest[:1] == ["tree"]:
            listed = tree(files, "/".join(rest[2:]), "recursive=true" in url.query.lower())
            return self.send(json.dumps(listed).encode()) if listed else self.fail("EntryNotFound")
        if api:
            known = not rest or rest[1] in ("main", COMMIT)
            return (
                self.send(json.dumps(info(f"{owner}/{name}", files)).encode())
                if known
                else self.fail("RevisionNotFound")
            )
        path = "/".join(rest[2:])
        return self.send_file(path, files[path]) if path in files else self.fail("EntryNotFound")

    def fail(self, code: str):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, body: bytes, status: int = 200, **headers: str):
        self.send_response(status)
        self.send_header("X-Repo-Commit", COMMIT)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, path: str, data: bytes):
        if self.command == "GET":
            self.server.sent.append(path)
            if path in self.server.held:
                self.server.release.wait(60)
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Accept_Ranges": "bytes"}
        asked = self.headers.get("Range")
        if not asked:
            return self.send(data, **headers)
        first, last = asked.removeprefix("bytes=").split("-")
        start, end = (
            (int(first), min(int(last or len(data)), len(data) - 1))
            if first
            else (len(data) - int(last), len(data) - 1)
        )
        return self.send(data[start : end + 1], 206, Content_Range=f"bytes {start}-{end}/{len(data)}", **headers)


def info(repo: str, files: dict[str, bytes]) -> dict:
    facts = {"id": repo, "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": ["license:mit"]}
    return {**facts, "cardData": {"license": "mit"}, "siblings": [{"rfilename": path} for path in files]}


def tree(files: dict[str, bytes], under: str, recursive: bool) -> list[dict]:
    """Files and folders in the folder `under`, those inside of these too where it is recursive."""
    start = f"{under}/" if under else ""
    inside = {path: data for path, data in files.items() if path.startswith(start)}
    folders = {str(folder) for path in inside for folder in PurePosixPath(path).parents}
    folders = {folder for folder in folders if folder != "." and folder.startswith(start)}
    listed = [{"type": "directory", "path": path, "oid": COMMIT, "size": 0} for path in sorted(folders)]
    for path, data in inside.items():
        listed.append({"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()})
    return [entry for entry in listed if recursive or "/" not in entry["path"][len(start) :]]


def json_gz(rows: list[dict]) -> bytes:
    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0)


def parquet(rows: list[dict]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def card(**configs: dict[str, str]) -> bytes:
    """A README.md that says which files are which split of which configuration."""
    listed = [
        {"config_name": name, "data_files": [{"split": split, "path": path} for split, path in files.items()]}
        for name, files in configs.items()
    ]
    return (
        f"---\n{yaml.safe_dump({'license': 'mit', 'configs': listed} if listed else {'license': 'mit'})}---\n".encode()
    )
