"""What every request passes: the limit of its body, and the meters."""

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi.responses import JSONResponse

from seqrec.serving.service import Meters

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Gate:
    """Refuses bodies that are too large before they are read, and counts and times requests."""

    def __init__(self, app: Any, meters: Meters, most_bytes: int) -> None:
        self.app, self.meters, self.most_bytes = app, meters, most_bytes

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request, see ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status, size = time.perf_counter(), 500, 0
        declared = dict(scope["headers"]).get(b"content-length", b"0")

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

        try:
            if not declared.isdigit() or int(declared) > self.most_bytes:
                size = self.most_bytes + 1
            else:
                with suppress(_TooLargeError):
                    await self.app(scope, counted, watched)
            if size > self.most_bytes:
                status = 413
                await JSONResponse({"detail": f"a body has {self.most_bytes:,} bytes at most"}, 413)(
                    scope, receive, send
                )
        finally:
            route = scope.get("route")
            path = route.path if route is not None else "unknown"
            self.meters.requests.labels(path, str(status)).inc()
            self.meters.seconds.labels(path).observe(time.perf_counter() - began)


class _TooLargeError(Exception):
    pass
