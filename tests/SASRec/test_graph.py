"""SASRec's user encoder as an exported graph."""

from pathlib import Path
from typing import Any

import pytest

from SASRec.model import SASRecConfig
from SASRec.module import SASRecModule
from SASRec.options import Config
from seqrec.basics.errors import UserError
from seqrec.serving.graph import write_graph
from tests.graphs import assert_graph_is_the_model


@pytest.mark.parametrize("options", [{"num_heads": 2}, {"block": "ligr"}])
def test_the_graph_is_the_model(options: dict[str, Any], tmp_path: Path) -> None:
    config = Config(model=SASRecConfig(hidden_units=16, maxlen=7, **options))
    assert_graph_is_the_model(SASRecModule(config, 40, None), tmp_path)


def test_a_model_that_reads_times_is_not_exported(tmp_path: Path) -> None:
    config = Config(model=SASRecConfig(hidden_units=16, maxlen=7, relative_time=True))
    with pytest.raises(UserError, match="reads more than the items of a history"):
        write_graph(SASRecModule(config, 40, None), tmp_path / "graph.onnx")
