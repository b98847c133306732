"""What stands before every request: who asks, how often, how much, and what browsers may do."""

import hmac
import time
from collections import OrderedDict
from http.cookies import SimpleCookie
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shardwright.service.settings import Settings, is_loopback

OPEN: Final = frozenset({"/openapi.json", "/health", "/sign-in"})
"""Addresses that need no token."""
COOKIE: Final = "shardwright_token"
_CLIENTS: Final = 10_000
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Middleware: token, rate, size of bodies, and headers; answers in JSON what it refuses."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._rates = _Rates(settings.limits.requests_a_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if refused is not None:
            await refused(scope, receive, with_headers)
            return
        most = self._settings.limits.upload_bytes
        await self._app(scope, _bounded(receive, most), with_headers)

    def _refused(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        client = scope.get("client")
        wait = self._rates.wait(client[0] if client else "")
        if wait:
            return _error(429, "too many requests", {"Retry-After": str(wait)})
        if not (path in OPEN or path.startswith("/static/") or self._knows(headers)):
            if "text/html" in headers.get("accept", "") and scope["method"] == "GET":
                return RedirectResponse("/sign-in", 303)
            return _error(401, "bring the token", {"WWW-Authenticate": "Bearer"})
        if self._settings.token is None and not is_loopback(_host(headers)):
            return _error(403, "without a token only this machine is answered")
        if scope["method"] not in ("GET", "HEAD") and _from_elsewhere(headers):
            return _error(403, "the request comes from another site")
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            return _error(400, "Content-Length is no number")
        if int(length) > self._settings.limits.upload_bytes:
            return _error(413, f"at most {self._settings.limits.upload_bytes:,} bytes are taken")
        return None

    def _knows(self, headers: Headers) -> bool:
        token = self._settings.token
        if token is None:
            return True
        kind, _, brought = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer":
            cookies = SimpleCookie()
            cookies.load(headers.get("cookie", ""))
            brought = cookies[COOKIE].value if COOKIE in cookies else ""
        return same_token(token, brought.strip())


def same_token(token: str, brought: str) -> bool:
    """Whether both are one, in a time that says nothing of how much of it is right."""
    return hmac.compare_digest(token.encode(), brought.encode())


def _host(headers: Headers) -> str:
    """The host that is asked; a page of another site may have its name lead to this machine."""
    host = headers.get("host", "")
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def _from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that a page of another site asks."""
    site = headers.get("sec-fetch-site")
    return site is not None and site not in ("same-origin", "none")


def _error(status: int, problem: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"detail": problem}, status, headers)


def _bounded(receive: Receive, most: int) -> Receive:
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise HTTPException(413, f"at most {most:,} bytes are taken")
        return message

    return bounded


class _Rates:
    """A bucket for each client that fills evenly and holds what may come at once."""

    def __init__(self, a_minute: int) -> None:
        self._pace = a_minute / 60
        self._most = 2.0 * a_minute
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> int:
        """Seconds until the client may ask again; 0 counts this request and lets it pass."""
        if not self._pace:
            return 0
        now = time.monotonic()
        left, then = self._left.pop(client, (self._most, now))
        left = min(self._most, left + (now - then) * self._pace)
        passes = left >= 1
        self._left[client] = (left - passes, now)
        if len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return 0 if passes else max(1, round((1 - left) / self._pace))
