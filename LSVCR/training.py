"""A run: its batches, training, test, and what is made of it later."""

from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from LSVCR.aligned import read_learned
from LSVCR.cases import CommentDataset, VideoCases
from LSVCR.data import Streams, TextVectors, open_streams, read_texts
from LSVCR.model import SRModel
from LSVCR.module import CommentModule, VideoModule
from LSVCR.options import Config
from seqrec.basics.errors import UserError
from seqrec.data.batches import RowSampler
from seqrec.data.comment_cases import CaseSplit, CommentProtocol
from seqrec.data.comments import Comments, load_comments
from seqrec.data.dataset import Dataset
from seqrec.data.discovery import open_dataset
from seqrec.training.batches import BatchModule
from seqrec.training.folder import RunFolder
from seqrec.training.module import Recommender, TrainedOn
from seqrec.training.trainer import complete

SR = "sr."
"""Begins the names of the recommender's weights in an alignment."""
PLACES = "video_history.places.weight", "comment_history.places.weight"
EVAL_ROWS = 16_384
"""Rows of both histories in a batch of evaluation."""


class CommentData(lightning.LightningDataModule):
    """Cases of comments, in batches."""

    def __init__(self, streams: Streams, cases: CaseSplit, config: Config) -> None:
        super().__init__()
        seed, self.num_workers = config.training.seed, config.training.dataloader_num_workers
        self.parts = {
            "train": CommentDataset(streams, cases.train, config.neg_comment_num, seed),
            "valid": CommentDataset(streams, cases.valid, None, seed),
            "test": CommentDataset(streams, cases.test, None, seed),
        }
        if not len(cases.train):
            raise UserError("no user took up a comment that stood there before, with another one beside it")
        self.sampler = RowSampler(self.parts["train"].lengths, batch_size=config.batch_size, shuffle=True, seed=seed)

    def _loader(self, stage: str, sampler: RowSampler) -> DataLoader[Any]:
        if self.trainer is not None:
            sampler.spread(self.trainer.global_rank, self.trainer.world_size)
        workers = self.num_workers
        return DataLoader(
            self.parts[stage],
            batch_size=None,
            sampler=sampler,
            generator=torch.Generator(),
            num_workers=workers,
            persistent_workers=workers > 0,
        )

    def _held_out(self, stage: str) -> DataLoader[Any]:
        return self._loader(stage, RowSampler(self.parts[stage].lengths, max_tokens=EVAL_ROWS, shuffle=False))

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the training cases."""
        return self._loader("train", self.sampler)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation cases."""
        return self._held_out("valid")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test cases."""
        return self._held_out("test")


def open_module(
    config: Config, comments: Comments, texts: TextVectors | None
) -> tuple[VideoModule | CommentModule, CaseSplit]:
    """Return the module for a dataset with comments and its text vectors, and the cases of comments."""
    streams, cases = open_streams(comments, config, None if texts is None else texts.comments)
    task = VideoModule if config.task == "Rec" else CommentModule
    return task(config, streams, texts), cases


def train(config: Config) -> None:
    """Train, choose the best epoch on validation, test once, and write the run folder."""
    dataset = open_dataset(config.dataset, config.data_path)
    comments = load_comments(dataset)
    protocol = config.protocol
    if config.task == "CommRank":
        protocol = CommentProtocol(max_candidate_num=config.max_candidate_num)
    name = f"{config.task.lower()}-{config.text}"
    texts = read_texts(comments, config)
    run = RunFolder("LSVCR", dataset, name, config.training, protocol, None if texts is None else texts.sha256)
    split = config.protocol.hold_out(dataset)
    if not run.open(config):
        return
    lightning.seed_everything(config.training.seed, verbose=False)
    module, cases = open_module(config, comments, texts)
    if config.start_from is not None:
        take_aligned(module.model, config.start_from)
    complete(run, module, batches_of(module, dataset, split, cases))


def take_aligned(model: SRModel, run: Path) -> None:
    """Give a model the weights of a finished alignment; it keeps its own for what the alignment has not: videos' ids.

    Places beyond those that were aligned get the mean of these.

    Raises:
        UserError: If the alignment is of another architecture.
    """
    own = model.state_dict()
    found = {name.removeprefix(SR): tensor for name, tensor in read_learned(run).items() if name.startswith(SR)}
    for name in PLACES:
        missing = max(len(own[name]) - len(found[name]), 0)
        mean = found[name].mean(dim=0, keepdim=True)
        found[name] = torch.cat([found[name], mean.expand(missing, -1)])[: len(own[name])]
    found = {name: tensor for name, tensor in found.items() if name in own}
    odd = [name for name in own if name not in found and not name.startswith(("ids.", "gate"))]
    odd += [name for name in found if found[name].shape != own[name].shape]
    if odd:
        raise UserError(f"--start_from {run} is of another architecture; they differ in {', '.join(odd[:6])}")
    model.load_state_dict(own | found)


def batches_of(
    module: VideoModule | CommentModule, dataset: Dataset, split: Any, cases: CaseSplit
) -> lightning.LightningDataModule:
    """Return a run's batches of training and evaluation."""
    config, streams = module.config, module.streams
    if isinstance(module, CommentModule):
        return CommentData(streams, cases, config)
    train_cases = VideoCases(streams, split.train, config.training.seed, module.fresh, config.neg_video_num)
    sampler = RowSampler(train_cases.lengths, batch_size=config.batch_size, shuffle=True, seed=config.training.seed)
    return BatchModule(
        dataset,
        split,
        config.protocol,
        train_cases,
        sampler,
        module.make_inputs,
        eval_lengths=module.count_rows,
        eval_max_tokens=EVAL_ROWS,
        valid_users=config.training.valid_users,
        num_workers=config.training.dataloader_num_workers,
    )


def restore_trained(
    config: Config, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
) -> Recommender:
    """Return a trained model for use.

    Raises:
        UserError: If it is to serve another catalogue, or text vectors are not those that it read.
    """
    if trained is not None:
        raise UserError("videos that were not there in training have no vectors: train again")
    comments = load_comments(dataset)
    module, _ = open_module(config, comments, read_texts(comments, config))
    if not torch.equal(module.text_digest, state["text_digest"]):
        raise UserError(f"the text vectors {config.text!r} are not those that the run read: make those again")
    module.load_state_dict(state)
    return Recommender(module, module.make_inputs, module.count_rows)
