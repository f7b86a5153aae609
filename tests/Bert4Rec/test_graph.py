"""BERT4Rec's user encoder as an exported graph."""

from pathlib import Path

import pytest

from Bert4Rec.model import Bert4RecConfig
from Bert4Rec.module import Bert4RecModule
from Bert4Rec.options import Config
from tests.graphs import assert_graph_is_the_model


@pytest.mark.parametrize("architecture", ["bert", "published"])
def test_the_graph_is_the_model(architecture: str, tmp_path: Path) -> None:
    shape = Bert4RecConfig(hidden_units=16, maxlen=7, architecture=architecture)  # type: ignore[arg-type]
    assert_graph_is_the_model(Bert4RecModule(Config(model=shape), 40, None), tmp_path)
