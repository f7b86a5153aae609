"""Servers that answer as OpenAI's does: limits and retries."""

import os
import threading
import time
from typing import Any

import httpx

from Baselines.ask_options import ServerOptions
from Baselines.listing import Said
from seqrec.basics.errors import UserError

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which a request is sent again."""


class Server:
    """Asks a server, at most so often."""

    def __init__(self, model: str, options: ServerOptions) -> None:
        assert options.server is not None
        self.model, self.options = model, options
        self.address = options.server.rstrip("/") + "/chat/completions"
        key = os.environ.get("OPENAI_API_KEY")
        self.client = httpx.Client(timeout=options.timeout, headers={"Authorization": f"Bearer {key}"} if key else {})
        self._lock, self._next = threading.Lock(), 0.0

    def answer(self, message: str, most: int) -> Said:
        """Return the answer of so many tokens at most.

        Raises:
            UserError: If the server refuses, cannot be reached, or says something else than an answer.
        """
        turns = [{"role": "user", "content": message}]
        found = self._send({"model": self.model, "messages": turns, "temperature": 0, "max_tokens": most})
        try:
            text, usage = found["choices"][0]["message"]["content"], found.get("usage") or {}
            return Said(str(text or ""), int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{self.address} answered {str(found)[:200]}, expected choices with a message") from error

    def _send(self, body: dict[str, Any]) -> Any:
        pause = 1.0
        for attempt in range(self.options.retries + 1):
            self._wait()
            try:
                answer = self.client.post(self.address, json=body)
            except httpx.HTTPError as error:
                fault = f"{type(error).__name__}: {error}"
            else:
                if answer.is_success:
                    try:
                        return answer.json()
                    except ValueError as error:
                        raise UserError(f"{self.address} answered no JSON: {answer.text[:200]}") from error
                fault = f"{answer.status_code} {answer.text[:200]}"
                if answer.status_code not in AGAIN:
                    raise UserError(f"{self.address} refused the request: {fault}")
                wanted = answer.headers.get("retry-after", "")
                pause = max(pause, float(wanted)) if wanted.replace(".", "", 1).isdigit() else pause
            if attempt < self.options.retries:
                time.sleep(min(pause, 60))
                pause *= 2
        raise UserError(f"{self.address} did not answer, {self.options.retries + 1} times; the last: {fault}")

    def _wait(self) -> None:
        """Wait until the next request may be sent."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + 60 / self.options.requests_per_minute
        time.sleep(at - now)
