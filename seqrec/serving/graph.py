"""Writing what reads a history as an ONNX graph, in several number formats; `encoder.py` runs it.

Shapes: n users, V width of an event's vector, D width of users and items.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Histories
from seqrec.serving.encoder import read_users
from seqrec.training.module import NextItemModule

BATCH_EVENTS = 16_384
"""Events of histories, padding included, that are read at a time."""


class _UserGraph(nn.Module):
    def __init__(self, module: NextItemModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, history: Tensor, lengths: Tensor) -> Tensor:
        return self.module.read_rectangle(history, lengths)


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence what PyTorch's exporter says of packages that are not needed."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def write_graph(module: NextItemModule, path: Path) -> None:
    """Write the graph of a model's user encoder, in float32.

    Raises:
        UserError: If the model reads more of a history than its items.
    """
    most = module.most_events
    history, lengths = torch.zeros(2, min(3, most), module.event_vectors().shape[1]), torch.ones(2, dtype=torch.int64)
    with _quietly(), torch.no_grad():
        module.read_rectangle(history, lengths)  # says what is wrong in a sentence
        users = torch.export.Dim("users")
        events = torch.export.Dim("events", max=most)
        program = torch.onnx.export(
            _UserGraph(module).eval(),
            (history, lengths),
            dynamo=True,
            verbose=False,
            input_names=["history", "lengths"],
            output_names=["user"],
            dynamic_shapes={"history": {0: users, 1: events}, "lengths": {0: users}},
        )
        assert program is not None
        program.save(path)


def write_form(path: Path, form: str, target: Path) -> None:
    """Write a float32 graph in another form: fp16, or int8 weights of its matrix products."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with _quietly():
        if form == "fp16":
            onnx.save(convert_float_to_float16(onnx.load(path), keep_io_types=True), target)
        else:
            quantize_dynamic(path, target, weight_type=QuantType.QInt8)


def read_histories(
    session: onnxruntime.InferenceSession, events: NDArray[np.float32], histories: Histories, most: int
) -> NDArray[np.float32]:
    """Return the user vectors of all histories of a view, (n, D), each from its `most` latest events."""
    found: NDArray[np.float32] | None = None
    lengths = np.minimum(histories.lengths, most)
    for rows in RowSampler(lengths, max_tokens=BATCH_EVENTS, shuffle=False).batches():
        items, offsets = histories.gather(rows, most)
        users = read_users(session, events, items, np.diff(offsets))
        if found is None:
            found = np.empty((len(histories), users.shape[1]), dtype=np.float32)
        found[rows] = users
    assert found is not None
    return found
