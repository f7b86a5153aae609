"""Running the ONNX graph of a user encoder; nothing here needs PyTorch.

Shapes: B users, T events of all, L of the longest history, V width of an event's vector, D width of users and items.
The graph maps `history`, (B, L, V) float32 with nothing after a history's end, and `lengths`, (B,) int64, to `user`,
(B, D) float32; B and L are free.
"""

import os
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray


class Table(Protocol):
    """Vectors whose rows can be taken."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.float32]:
        """Return (..., V) of (...) rows."""


def open_graph(path: Path, num_threads: int = 1) -> onnxruntime.InferenceSession:
    """Return a graph, ready to run on the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])


def read_users(
    session: onnxruntime.InferenceSession,
    events: Table,
    items: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the user vectors of some histories, (B, D).

    Args:
        session: Of `open_graph`.
        events: (N+1, V) of the items, whose rows are taken.
        items: (T,) of the histories, one after another.
        lengths: (B,) events of each, 1 or more.
    """
    table = np.zeros((len(lengths), int(lengths.max())), dtype=np.int64)
    there = np.arange(table.shape[1]) < lengths[:, None]
    table[there] = items
    history = events[table]
    history[~there] = 0
    users: NDArray[np.float32] = session.run(None, {"history": history, "lengths": lengths})[0]
    return users
