"""A family's user encoder as an exported graph, checked against the model."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from seqrec.data.dataset import Histories
from seqrec.serving.encoder import open_graph, read_users
from seqrec.serving.graph import write_form, write_graph


def assert_graph_is_the_model(module: Any, folder: Path) -> None:
    """Compare a module over 40 items, with random weights, with its graph, for histories of many lengths."""
    torch.manual_seed(0)
    module.eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    write_graph(module, folder / "graph.onnx")
    session = open_graph(folder / "graph.onnx")
    events, most = module.event_vectors().detach().numpy(), module.most_events
    assert most > 3
    for lengths in ([1], [most + 2, 1, most, 3, most - 1], [2] * 30):
        items = np.random.default_rng(0).integers(1, 41, sum(lengths)).astype(np.int32)
        counts, rows = np.array(lengths), np.arange(len(lengths))
        ends = np.cumsum(counts)
        histories = Histories(items, rows, ends - counts, ends)
        read, offsets = histories.gather(rows, most)
        found = read_users(session, events, read, np.diff(offsets))
        with torch.no_grad():
            expected = module.user_vectors(module.make_inputs(histories, rows))
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4)
    write_form(folder / "graph.onnx", "fp16", folder / "half.onnx")
    half = read_users(open_graph(folder / "half.onnx"), events, read, np.diff(offsets))
    assert 0 < np.abs(half - found).max() < 0.02 * np.abs(found).max()
