"""PerSRec's user encoder as an exported graph."""

from pathlib import Path
from typing import Any

import pytest

from PerSRec.module import PerSRecModule
from PerSRec.options import Config, HistoryOptions, ModelOptions
from seqrec.basics.errors import UserError
from seqrec.nn.losses import LossOptions
from seqrec.serving.graph import write_graph
from tests.graphs import assert_graph_is_the_model


def make_module(model: dict[str, Any], **history: Any) -> PerSRecModule:
    options = ModelOptions(hidden_units=16, **model)
    objective = LossOptions(loss="nce", temp=0.5) if options.compat == "published" else LossOptions()
    config = Config(model=options, history=HistoryOptions(maxlen=7, **history), objective=objective)
    return PerSRecModule(config, 40, None)


@pytest.mark.parametrize(
    "model",
    [
        {"model": "hstu"},
        {"model": "hstu", "enable_relative_attention_bias": False},
        {"model": "hstu", "compat": "published"},
        {"model": "sasrec"},
        {"model": "sasrec", "block": "ligr"},
        {"model": "llama"},
    ],
)
def test_the_graph_is_the_model(model: dict[str, Any], tmp_path: Path) -> None:
    assert_graph_is_the_model(make_module(model), tmp_path)


@pytest.mark.parametrize(
    ("model", "history"),
    [
        ({"model": "hstu", "time_bias": True}, {}),
        ({"model": "hstu"}, {"number_of_user_tokens": 2, "pretrain_item_num": 4}),
    ],
)
def test_what_reads_times_or_tokens_is_not_exported(
    model: dict[str, Any], history: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="reads more than the items of a history"):
        write_graph(make_module(model, **history), tmp_path / "graph.onnx")
