"""Counts and times requests, for Prometheus."""

import time
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Watch:
    """Seconds of requests by method, route and status."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "shardwright_request_seconds",
            "Seconds from a request's head to the end of its answer",
            ("method", "route", "status"),
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All that was counted."""
        return generate_latest(self._registry)

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """The application, watched."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            started, status = time.perf_counter(), 500

            async def noting(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            try:
                await app(scope, receive, noting)
            finally:
                # The route as it is written, so that addresses of strangers make no new series.
                route: Any = scope.get("route")
                place = getattr(route, "path", "(none)")
                spent = time.perf_counter() - started
                self._seconds.labels(_method(scope["method"]), place, str(status)).observe(spent)

        return watched


def _method(name: str) -> str:
    return name if name in ("GET", "HEAD", "POST") else "other"
