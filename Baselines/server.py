"""Servers that answer as OpenAI's does: limits, retries, and answers that are kept."""

import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from Baselines.ask_options import ServerOptions
from Baselines.listing import Said
from seqrec.basics.errors import UserError

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)
"""Statuses after which a request is sent again."""


class Server:
    """Asks a server, at most so often, and keeps its answers in a file of JSON lines."""

    def __init__(self, model: str, options: ServerOptions, kept: Path) -> None:
        """Read the answers that are kept.

        Raises:
            UserError: If the file is none of answers.
        """
        assert options.server is not None
        self.model, self.options, self.kept = model, options, kept
        self.address = options.server.rstrip("/") + "/chat/completions"
        key = os.environ.get("OPENAI_API_KEY")
        self.client = httpx.Client(timeout=options.timeout, headers={"Authorization": f"Bearer {key}"} if key else {})
        self._lock, self._next = threading.Lock(), 0.0
        self._answers: dict[str, Said] = {}
        if kept.is_file():
            for number, line in enumerate(kept.read_text(encoding="utf-8").splitlines(), 1):
                try:
                    found = json.loads(line)
                    self._answers[found["of"]] = Said(found["text"], found["in"], found["out"], was_kept=True)
                except (ValueError, KeyError, TypeError) as error:
                    raise UserError(f"{kept}, line {number}, is no answer: delete the line, or the file") from error

    def answer(self, message: str, most: int) -> Said:
        """Return the answer of so many tokens at most, which is kept.

        Raises:
            UserError: If the server refuses, cannot be reached, or says something else than an answer.
        """
        turns = [{"role": "user", "content": message}]
        body = {"model": self.model, "messages": turns, "temperature": 0, "max_tokens": most}
        of = hashlib.sha256(json.dumps([self.address, body]).encode()).hexdigest()
        if of in self._answers:
            return self._answers[of]
        found = self._send(body)
        try:
            text, usage = found["choices"][0]["message"]["content"], found.get("usage") or {}
            said = Said(str(text or ""), int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(f"{self.address} answered {str(found)[:200]}, expected choices with a message") from error
        with self._lock:
            self._answers[of] = said
            with self.kept.open("a", encoding="utf-8") as file:
                line = {"of": of, "text": said.text, "in": said.tokens_in, "out": said.tokens_out}
                file.write(json.dumps(line) + "\n")
        return said

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
