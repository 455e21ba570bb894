"""One guard before every route of the server: who may ask, by which name, from which page, and how much may be sent.

Standard library only: an ASGI middleware, so that the page's routes and the Hub endpoint's stand behind the same lines.
A server on loopback can still be reached by any web page open in the browser beside it: by a name that resolves to
127.0.0.1 (DNS rebinding), or by a form that posts across origins. Hence `Host` and `Origin` are checked always.
"""

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import unquote, urlsplit

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
UPLOAD_LIMIT = 256 * 2**20  # bytes of one request
# The browser itself keeps the page from asking any other host. Gradio's templates are compiled in the page.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; base-uri 'self'"

Scope = dict
Receive = Callable[[], Awaitable[dict]]
Send = Callable[[dict], Awaitable[None]]


class Guard:
    """ASGI middleware that answers what it refuses and passes on the rest.

    Args:
        hosts: names by which the server may be addressed; None: any, where a proxy in front decides.
        auth: (user, password) that every request has to give (HTTP Basic, RFC 7617); None: nobody is asked.
        read_only: refuse uploads.
        limit: bytes that one request may carry.
    """

    def __init__(
        self,
        app: Callable,
        hosts: frozenset[str] | None = LOOPBACK,
        auth: tuple[str, str] | None = None,
        read_only: bool = False,
        limit: int = UPLOAD_LIMIT,
    ):
        self.app, self.hosts, self.auth, self.read_only, self.limit = app, hosts, auth, read_only, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self.refusal(scope, headers)
        if refusal is None:
            await self.app(scope, self._bounded(receive), _hardened(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(send, *refusal)

    def refusal(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """(HTTP status, sentence) of a request that is not let through."""
        host = host_of(headers.get("host", ""))
        if self.hosts is not None and host not in self.hosts:
            return 403, f"this server does not answer to the name {host[:80]!r}"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            return 403, "this request comes from another page"
        if self.auth is not None and not self._knows(headers.get("authorization", "")):
            return 401, "a user name and a password are needed"
        if ".." in unquote(unquote(scope["path"])).replace("\\", "/").split("/"):
            return 403, "no path leads upwards here"
        if self.read_only and scope.get("method") == "POST" and scope["path"].rstrip("/").endswith("/upload"):
            return 403, "this page is read-only: nothing can be uploaded"
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.limit:
            return 413, f"a request may carry at most {self.limit / 2**20:.0f} MB"
        return None

    def _knows(self, authorization: str) -> bool:
        scheme, _, given = authorization.partition(" ")
        if scheme.lower() != "basic":
            return False
        try:
            decoded = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            return False
        # takes as long for a wrong first letter as for a wrong last one
        return hmac.compare_digest(decoded, ":".join(self.auth).encode())

    def _bounded(self, receive: Receive) -> Receive:
        """What says nothing of its length is counted as it comes, and cut off."""
        received = 0

        async def counted() -> dict:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message if received <= self.limit else {"type": "http.disconnect"}

        return counted


def host_of(header: str) -> str:
    """The name in a Host header, without its port: `[::1]:7860` -> `::1`."""
    try:
        return (urlsplit(f"//{header}").hostname or "").rstrip(".")
    except ValueError:  # brackets that do not match
        return header


def is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_auth(text: str) -> tuple[str, str]:
    """`USER:PASSWORD` -> (user, password). Raises ValueError where one is missing."""
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise ValueError("--auth, or $LLM_LAB_AUTH, should be USER:PASSWORD, both of at least one letter")
    return user, password


async def _refuse(send: Send, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="LLM Lab", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{sentence}\n".encode()})


def _hardened(send: Send) -> Send:
    """Every answer tells the browser to load nothing from elsewhere and to guess no types."""
    added = [
        (b"content-security-policy", POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
    ]

    async def sent(message: dict) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *added]}
        await send(message)

    return sent
