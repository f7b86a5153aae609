"""Made-up videos and comments with text vectors, small models of them, and what users know by the rule."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from LSVCR.data import read_texts
from LSVCR.module import CommentModule, VideoModule
from LSVCR.options import Config, ModelOptions, Task
from LSVCR.training import open_module
from seqrec.data.comment_cases import CaseSplit
from seqrec.data.comments import Comments, load_comments
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.protocol import EvaluationProtocol
from seqrec.data.sources.comments_demo import CommentsDemo
from seqrec.data.vectors import Producer, embedding_path, save_embeddings

SMALL = ModelOptions(hidden_units=8, inner_size=12, maxlen=5, llm_emb_size=6)
WIDTH = 10


def make_comments(folder: Path) -> Comments:
    """Return made-up videos and comments, with text vectors."""
    config = CommentsDemo(name="tube", data_dir=folder, num_users=60, num_videos=100, visits=9, comments_per_video=7)
    found = load_comments(load_dataset(prepare(config)))
    for data in (found.dataset, found.own):
        vectors = np.random.default_rng(data.num_items).normal(size=(data.num_items + 1, WIDTH)).astype(np.float32)
        vectors[0] = 0
        save_embeddings(embedding_path(data, "drawn", folder / "embedding"), vectors, data, Producer("test", None, {}))
    return found


def config_of(comments: Comments, task: Task = "Rec", **options: Any) -> Config:
    folder = comments.dataset.path.parent / "embedding"
    return Config(**{"task": task, "text": "drawn", "embedding_dir": folder, "model": SMALL, **options})


def opened(comments: Comments, config: Config) -> tuple[VideoModule | CommentModule, CaseSplit]:
    """Return a module in which nothing is 0 or 1 by chance."""
    torch.manual_seed(0)
    module, cases = open_module(config, comments, read_texts(comments, config))
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, std=0.4)
        if name == "model.ids.weight":
            parameter.data[0] = 0
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return module.eval(), cases


def protocol_of(task: Task) -> EvaluationProtocol:
    return EvaluationProtocol(fresh_days=7.0) if task == "Rec" else EvaluationProtocol()


def known_before(comments: Comments, user: int, time: int) -> tuple[list[int], list[tuple[int, list[int]]]]:
    """Return the videos of a user before a moment, and the entries, event by event from the rule."""
    dataset, own = comments.dataset, comments.own
    videos = []
    if user < dataset.num_users:
        assert dataset.timestamps is not None
        stretch = slice(int(dataset.offsets[user]), int(dataset.offsets[user + 1]))
        videos = [v for v, t in zip(dataset.items[stretch], dataset.timestamps[stretch], strict=True) if t < time]
    entries: list[tuple[int, list[int], int]] = []
    stretch = slice(int(own.offsets[user]), int(own.offsets[user + 1]))
    for comment, t in zip(own.items[stretch].tolist(), comments.times[stretch].tolist(), strict=True):
        item = int(comments.under[comment])
        if entries and entries[-1][0] == item and t - entries[-1][2] <= 86_400:
            entries[-1] = (item, [*entries[-1][1], comment], t)
        else:
            entries.append((item, [comment], t))
    return [int(v) for v in videos], [(item, taken) for item, taken, last in entries if last < time]
