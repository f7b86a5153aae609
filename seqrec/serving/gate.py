"""What every request passes: the limit of its body, and the meters."""

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


class Gate:
    """Refuses requests without the key and bodies that are too large, and counts and times all."""

    def __init__(self, app: Any, meters: Meters, most_bytes: int, key: str | None) -> None:
        self.app, self.meters, self.most_bytes = app, meters, most_bytes
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

        async def refuse(code: int, why: str) -> None:
            nonlocal status
            status = code
            await JSONResponse({"detail": why}, code)(scope, receive, send)

        try:
            given, wanted = headers.get(b"x-api-key", b""), self.key
            if wanted is not None and scope["path"] not in OPEN and not hmac.compare_digest(given, wanted):
                await refuse(401, "give the service's key as X-API-Key")
                return
            if not declared.isdigit() or int(declared) > self.most_bytes:
                size = self.most_bytes + 1
            else:
                with suppress(_TooLargeError):
                    await self.app(scope, counted, watched)
            if size > self.most_bytes:
                await refuse(413, f"a body has {self.most_bytes:,} bytes at most")
        finally:
            route = scope.get("route")
            path = route.path if route is not None else "unknown"
            self.meters.requests.labels(path, str(status)).inc()
            self.meters.seconds.labels(path).observe(time.perf_counter() - began)


class _TooLargeError(Exception):
    pass
