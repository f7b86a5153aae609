"""PLMSASRec's user encoder as an exported graph."""

from pathlib import Path

import pytest

from PLMSASRec.module import PLMSASRecModule
from PLMSASRec.options import Config, SasrecOptions
from seqrec.data.dataset import Dataset
from tests.graphs import assert_graph_is_the_model


@pytest.mark.parametrize("head", ["tied", "untied"])
def test_the_graph_is_the_model(head: str, tiny: Dataset, tmp_path: Path) -> None:
    sizes = {"sasrec_hidden_size": 16, "sasrec_inner_size": 24, "sasrec_seq_len": 7, "sasrec_n_heads": 2}
    config = Config(model=SasrecOptions(**sizes), input_type="id", head=head)  # type: ignore[arg-type]
    assert_graph_is_the_model(PLMSASRecModule(config, tiny), tmp_path)
