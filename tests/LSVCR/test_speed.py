"""The benchmark: the padded model computes the same losses, and both sides and the export run."""

import json
from pathlib import Path

import numpy as np
import pytest

from LSVCR.options import Config, ModelOptions
from scripts.benchmarks.lsvcr import Export, Training, measure_export, open_on, time_training
from seqrec.basics.errors import UserError
from seqrec.data.comments import load_comments
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.comments_demo import CommentsDemo
from seqrec.data.vectors import Producer, embedding_path, save_embeddings
from tests.tiny_models import write_model


def test_the_padded_model_computes_the_same(tmp_path: Path) -> None:
    demo = CommentsDemo(name="tube", data_dir=tmp_path, num_users=40, num_videos=100, visits=9, comments_per_video=7)
    comments = load_comments(load_dataset(prepare(demo)))
    for data in (comments.dataset, comments.own):
        vectors = np.random.default_rng(0).normal(size=(data.num_items + 1, 5)).astype(np.float32)
        vectors[0] = 0
        save_embeddings(embedding_path(data, "drawn", tmp_path), vectors, data, Producer("test", None, {}))
    small = ModelOptions(hidden_units=8, inner_size=12, maxlen=5)
    flags = Config(data_path=comments.dataset.path, text="drawn", embedding_dir=tmp_path, model=small)
    config = Training(batch_size=32, steps=2, repeats=1)
    times = time_training(config, *open_on(flags, config))  # compares the losses
    assert len(times.ours) == len(times.peer) == 1 and times.count == 64
    with pytest.raises(UserError, match="less than --steps 99"):
        open_on(flags, Training(batch_size=32, steps=99))


def test_the_export_is_measured(tmp_path: Path) -> None:
    model = write_model(tmp_path / "llama", "llama")
    measure_export(Export(texts=(120,), model_name_or_path=str(model), output_dir=tmp_path))
    rows = json.loads((tmp_path / "lsvcr-export.json").read_text())["rows"]
    assert rows[0]["texts"] == 120 and rows[0]["peak_MiB"] > 50
