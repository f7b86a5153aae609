"""Requests that arrive while the model is busy are answered together."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from seqrec.serving.answers import Answer, Answering, Query


class OverloadedError(Exception):
    """There are more requests than can be answered in time."""


class Desk:
    """Hands queries to a model, up to `most` at a time, in a thread of its own; the model may be exchanged."""

    def __init__(self, model: Answering, most: int, waiting: int, watch: Callable[[int], object]) -> None:
        """Start without a queue.

        Args:
            model: That answers.
            most: Greatest number of queries that are answered together.
            waiting: Greatest number of queries that wait.
            watch: Told the size of each batch.
        """
        self.model, self.most, self.waiting, self.watch = model, most, waiting, watch
        self._queue: deque[tuple[Answering, Query, asyncio.Future[Answer]]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._worker: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        """Whether one more query would be refused."""
        return len(self._queue) >= self.waiting

    async def ask(self, model: Answering, query: Query) -> Answer:
        """Return the answer to a query in the items of a model, which is this desk's or was until a moment ago.

        Raises:
            OverloadedError: If too many queries wait.
        """
        if self.is_full:
            raise OverloadedError
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.append((model, query, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def run(self, change: Callable[..., Any], *arguments: Any) -> Any:
        """Do something to a model while it answers nothing, and return what that returns."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, change, *arguments)

    def _next(self) -> tuple[Answering, list[Query], list[asyncio.Future[Answer]]]:
        """Take the queries that come first and are for one model."""
        model = self._queue[0][0]
        queries: list[Query] = []
        futures: list[asyncio.Future[Answer]] = []
        while self._queue and self._queue[0][0] is model and len(queries) < self.most:
            _, query, future = self._queue.popleft()
            if not future.done():
                queries.append(query)
                futures.append(future)
        return model, queries, futures

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue:
            model, queries, futures = self._next()
            self.watch(len(queries))
            try:
                answers = await loop.run_in_executor(self._thread, model.answer, queries)
            except Exception as error:  # noqa: BLE001 - whoever asked is told
                for future in futures:
                    if not future.done():
                        future.set_exception(error)
                continue
            for future, answer in zip(futures, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
