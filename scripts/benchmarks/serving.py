"""Load on the service: requests per second and waiting times by the number of clients, and beyond what it can do.

python scripts/benchmarks/serving.py exports/sasrec

The service and the clients share the machine's processors. Each client keeps a connection and sends its next request
when the last is answered; in the last rows requests come at a fixed rate, whether or not the ones before are answered.
"""

import itertools
import json
import re
import selectors
import socket
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import tyro

from seqrec.basics.command import run_command
from seqrec.basics.formatting import align
from seqrec.serving.process import running_service


@dataclass(frozen=True, slots=True)
class Config:
    """Load on the service."""

    model: tyro.conf.Positional[Path]
    """Folder of an export."""
    clients: tuple[int, ...] = (1, 16, 64)
    """Numbers of clients."""
    seconds: float = 10
    """Of each load."""
    length: int = 50
    """Items of a history."""
    k: int = 10
    """Items that are asked for."""
    search: str = "auto"
    """How the service finds items."""
    form: str = "fp32"
    """Form of the export."""
    beyond: float = 2
    """Rate of the last load, as a multiple of the best of those before; 0 leaves it out."""


class Client:
    """A connection that is kept, and the request that is under way on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.began, self.answer = 0.0, b""

    def send(self, request: bytes) -> None:
        """Begin a request."""
        self.began, self.answer = time.perf_counter(), b""
        self.socket.sendall(request)

    def read(self) -> tuple[float, int] | None:
        """Take what has come, and return the seconds and the status once the answer is whole."""
        came = self.socket.recv(1 << 16)
        if not came:
            raise ConnectionError("the service has closed a connection")
        self.answer += came
        head, blank, body = self.answer.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if not blank or (length is not None and len(body) < int(length[1])):
            return None
        return time.perf_counter() - self.began, int(head[9:12])


def closed_loop(port: int, requests: list[bytes], clients: int, seconds: float) -> list[tuple[float, int]]:
    """Return the seconds and the status of each request of clients that wait for their answers."""
    found, places = [], itertools.cycle(requests)
    with selectors.DefaultSelector() as waiting:
        for _ in range(clients):
            client = Client(port)
            waiting.register(client.socket, selectors.EVENT_READ, client)
            client.send(next(places))
        end = time.perf_counter() + seconds
        while waiting.get_map():
            for key, _ in waiting.select():
                if (done := key.data.read()) is None:
                    continue
                found.append(done)
                if time.perf_counter() < end:
                    key.data.send(next(places))
                else:
                    waiting.unregister(key.data.socket)
                    key.data.socket.close()
    return found


def open_loop(port: int, requests: list[bytes], rate: float, seconds: float) -> list[tuple[float, int]]:
    """Return the seconds and the status of each request of a stream of so many a second."""
    found: list[tuple[float, int]] = []
    places = itertools.cycle(requests)
    idle: list[Client] = []
    began, number, sent = time.perf_counter(), int(rate * seconds), 0
    with selectors.DefaultSelector() as waiting:
        while len(found) < number:
            due = min(int((time.perf_counter() - began) * rate) + 1, number)
            for _ in range(due - sent):
                client = idle.pop() if idle else Client(port)
                waiting.register(client.socket, selectors.EVENT_READ, client)
                client.send(next(places))
            sent = due
            for key, _ in waiting.select(1 / rate if sent < number else None):
                if (done := key.data.read()) is not None:
                    found.append(done)
                    waiting.unregister(key.data.socket)
                    idle.append(key.data)
    for client in idle:
        client.socket.close()
    return found


def make_requests(folder: Path, config: Config) -> list[bytes]:
    """Return requests with histories that are drawn by popularity."""
    table, draw = pl.read_parquet(folder / "items.parquet", glob=False), np.random.default_rng(0)
    counts = table["count"].to_numpy() + 0.1
    made = []
    for _ in range(2_000):
        rows = draw.choice(len(table), config.length, p=counts / counts.sum())
        body = json.dumps({"history": table["raw_id"].gather(rows).to_list(), "k": config.k}).encode()
        lines = ["POST /recommend HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
        made.append(head.encode() + body)
    return made


def resident(pid: int) -> float:
    """Return the MiB of memory that a process holds."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else float("nan")


def main(config: Config) -> None:
    """Start the service, put load on it, and print what came of it."""
    with running_service(config.model, "--search", config.search, "--form", config.form) as (service, address):
        port = int(address.rpartition(":")[2])
        requests = make_requests(config.model, config)
        closed_loop(port, requests, 4, 2)
        rows, best = [], 0.0
        for clients in config.clients:
            done = closed_loop(port, requests, clients, config.seconds)
            best = max(best, len(done) / config.seconds)
            rows.append(
                [
                    f"{clients} client{'s' * (clients > 1)}",
                    *summary(done, config.seconds),
                    f"{resident(service.pid):.0f}",
                ]
            )
        if config.beyond:
            done = open_loop(port, requests, best * config.beyond, config.seconds)
            rows.append(
                [f"{best * config.beyond:.0f} a second", *summary(done, config.seconds), f"{resident(service.pid):.0f}"]
            )
            began = time.perf_counter()
            while urllib.request.urlopen(f"http://127.0.0.1:{port}/ready").status != 200:
                time.sleep(0.05)
            done = closed_loop(port, requests, 1, 1)
            note = f"after {time.perf_counter() - began - 1:.2f} s, 1 client"
            rows.append([note, *summary(done, 1), f"{resident(service.pid):.0f}"])
    print(align(["load", "answers a second", "p50 ms", "p99 ms", "503", "other errors", "MiB"], rows))


def summary(done: list[tuple[float, int]], seconds: float) -> list[str]:
    """Return answers a second, the quantiles of their times, and the errors."""
    times = np.array([took for took, status in done if status == 200]) * 1000
    shed = sum(status == 503 for _, status in done)
    p50, p99 = np.quantile(times, [0.5, 0.99])
    return [
        f"{len(times) / seconds:,.0f}",
        f"{p50:.1f}",
        f"{p99:.1f}",
        f"{shed:,}",
        f"{len(done) - len(times) - shed:,}",
    ]


if __name__ == "__main__":
    run_command(main, Config)
