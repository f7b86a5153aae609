"""What every request passes: the key, the limit of its body, a full service, and the meters."""

import hmac
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi.responses import JSONResponse

from seqrec.serving.service import Meters

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


OPEN = ("/", "/health", "/ready", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")
"""Paths that need no key."""
RECOMMEND = "/recommend"


def shed() -> JSONResponse:
    """Return the answer to one request too many."""
    return JSONResponse({"detail": "too many requests wait: try again"}, 503, {"Retry-After": "1"})


class Gate:
    """Refuses requests without the key, bodies that are too large and what is too much, and counts and times all."""

    def __init__(self, app: Any, meters: Meters, most_bytes: int, key: str | None, is_full: Callable[[], bool]) -> None:
        """Stand before an application.

        Args:
            app: The application.
            meters: Are told of every request.
            most_bytes: Greatest size of a body.
            key: What requests must have, if anything.
            is_full: Whether another recommendation would be too much: it is refused unread, which costs least.
        """
        self.app, self.meters, self.most_bytes, self.is_full = app, meters, most_bytes, is_full
        self.key = None if key is None else key.encode()

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request, see ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, size = time.perf_counter(), 500, 0
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")

        async def counted() -> Any:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.most_bytes:
                raise _TooLargeError
            return message

        async def watched(message: Any) -> None:
            nonlocal status
            if size > self.most_bytes:
                return  # what the application says of a body that was cut
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        async def refuse(answer: JSONResponse) -> None:
            nonlocal status
            status = answer.status_code
            await answer(scope, receive, send)

        try:
            given, wanted = headers.get(b"x-api-key", b""), self.key
            if wanted is not None and scope["path"] not in OPEN and not hmac.compare_digest(given, wanted):
                await refuse(JSONResponse({"detail": "give the service's key as X-API-Key"}, 401))
                return
            if scope["path"] == RECOMMEND and self.is_full():
                await refuse(shed())
                return
            if not declared.isdigit() or int(declared) > self.most_bytes:
                size = self.most_bytes + 1
            else:
                with suppress(_TooLargeError):
                    await self.app(scope, counted, watched)
            if size > self.most_bytes:
                await refuse(JSONResponse({"detail": f"a body has {self.most_bytes:,} bytes at most"}, 413))
        finally:
            route = scope.get("route")
            path = route.path if route is not None else RECOMMEND if scope["path"] == RECOMMEND else "unknown"
            self.meters.requests.labels(path, str(status)).inc()
            self.meters.seconds.labels(path).observe(time.perf_counter() - began)


class _TooLargeError(Exception):
    pass
