"""A Hub for models on this machine: the routes by which its client reads and writes a repository, held in memory."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class ModelHub(ThreadingHTTPServer):
    """Serves `repos`, files by path by repository; every revision is the newest. Writing needs `TOKEN`."""

    daemon_threads = True
    TOKEN = "hf_test"

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Routes)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.commits: list[str] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Routes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        name, rest = self.parted(parts[2:] if is_api else parts)
        files = self.server.repos.get(name)
        if files is None:
            return self.fail("RepoNotFound")
        if is_api and rest[:1] == ["tree"]:
            under = "/".join(rest[2:])
            listed = [
                {"type": "file", "path": path, "size": len(data), "oid": oid(data)}
                for path, data in files.items()
                if path.startswith(under)
            ]
            return self.send(listed) if listed or not under else self.fail("EntryNotFound")
        if is_api:
            facts = {"id": name, "sha": COMMIT, "private": False, "gated": False, "disabled": False, "tags": []}
            return self.send({**facts, "siblings": [{"rfilename": path} for path in files]})
        path = "/".join(rest[2:])
        return self.send_file(files[path]) if path in files else self.fail("EntryNotFound")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = unquote(urlparse(self.path).path).strip("/").split("/")
        if parts == ["api", "validate-yaml"]:
            return self.send({"errors": [], "warnings": []})
        if self.headers.get("Authorization") != f"Bearer {self.server.TOKEN}":
            return self.send({"error": "Invalid username or password."}, 401)
        if parts == ["api", "repos", "create"]:
            return self.create(json.loads(body))
        name, (verb, *_) = self.parted(parts[2:])
        if verb == "preupload":  # "regular": contents come inside the commit
            asked = json.loads(body)["files"]
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            return self.send({"files": [{"path": file["path"], **regular} for file in asked]})
        return self.commit(name, [json.loads(line) for line in body.splitlines()])

    def create(self, asked: dict):
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        known = name in self.server.repos
        self.server.repos.setdefault(name, {})
        if asked.get("private"):
            self.server.private.add(name)
        return self.send({"url": f"{self.server.url}/{name}", "name": name}, 409 if known else 200)

    def commit(self, name: str, lines: list[dict]):
        files = self.server.repos[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                self.server.commits.append(value["summary"])
        return self.send(
            {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.server.url}/{name}/commit/{COMMIT}"}
        )

    def parted(self, parts: list[str]) -> tuple[str, list[str]]:
        """A repository, with or without an owner, and what follows."""
        verbs = ("resolve", "tree", "revision", "preupload", "commit")
        at = next((i for i, part in enumerate(parts) if i and part in verbs), len(parts))
        return "/".join(parts[:at]), parts[at:]

    def fail(self, code: str):
        self.send_response(404)
        for key, value in (("X-Error-Code", code), ("X-Repo-Commit", COMMIT), ("Content-Length", "0")):
            self.send_header(key, value)
        self.end_headers()

    def send(self, value, status: int = 200):
        self.send_bytes(json.dumps(value).encode(), status, {"Content-Type": "application/json"})

    def send_file(self, data: bytes):
        headers, asked = {"ETag": f'"{oid(data)}"', "Accept-Ranges": "bytes"}, self.headers.get("Range")
        if not asked:
            return self.send_bytes(data, 200, headers)
        first, last = asked.removeprefix("bytes=").split("-")
        start, end = int(first), min(int(last or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        return self.send_bytes(data[start : end + 1], 206, headers)

    def send_bytes(self, body: bytes, status: int, headers: dict[str, str]):
        self.send_response(status)
        self.send_header("X-Repo-Commit", COMMIT)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
