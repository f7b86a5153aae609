"""What LSVCR learns from a batch and how it ranks, as Lightning modules: videos, and comments under a video."""

from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from LSVCR.aligned import read_learned
from LSVCR.cases import CommentBatch, CommentDataset, VideoBatch, VideoCases
from LSVCR.data import Streams, moments_of, open_streams
from LSVCR.model import Inputs, SRModel
from LSVCR.options import Config
from LSVCR.timing import TimingScore
from seqrec.basics.errors import UserError
from seqrec.data.batches import RowSampler
from seqrec.data.comment_cases import CaseSplit, CommentProtocol
from seqrec.data.comments import Comments, load_comments
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.discovery import open_dataset
from seqrec.data.fresh import FreshItems
from seqrec.data.vectors import NONE, load_embeddings
from seqrec.evaluation.ranking import Ranking, rank_listed, top_scores
from seqrec.evaluation.recorder import RankRecorder
from seqrec.nn.losses import LossOptions, catalogue_loss
from seqrec.nn.optimization import can_fuse, decay_weights, schedule_rate
from seqrec.training.batches import BatchModule, HeldOut
from seqrec.training.folder import RunFolder
from seqrec.training.module import NextItemModule, Recommender, TrainedOn, share_of_mean
from seqrec.training.trainer import complete

SR = "sr."
"""Begins the names of the recommender's weights in an alignment."""
PLACES = "video_history.places.weight", "comment_history.places.weight"
EVAL_ROWS = 16_384
"""Rows of both histories in a batch of evaluation."""


class LSVCRModule(NextItemModule):
    """The model, its loss and its optimiser; a task says what a batch is."""

    def __init__(self, config: Config, streams: Streams, titles: NDArray[np.float32] | None) -> None:
        """Build the model for a dataset with comments, and with the (N+1, W) text vectors of its videos, if any."""
        super().__init__(config.protocol.metric_ks)
        self.config, self.streams = config, streams
        given = None if titles is None else torch.from_numpy(np.asarray(titles))
        num_items = streams.comments.dataset.num_items
        self.model = SRModel(num_items, config.model, (config.task,), given, with_ids=not config.disable_id)
        self.timing = None if config.timing == "none" else TimingScore(config.timing)

    def finish(self, loss: Tensor, inputs: Inputs, texts: tuple[Tensor, Tensor] | None, num_counted: int) -> Tensor:
        """Return the loss of a batch with that of ids and texts, of several processes this one's share, and log it."""
        config = self.config
        if texts is not None and self.model.ids is not None and config.id_text_loss_weight:
            rows = inputs.videos, inputs.entries
            alike = self.model.id_text_loss(rows, texts, config.contrast_neg_num, config.temperature)
            loss = loss + config.id_text_loss_weight * alike
        loss, total = share_of_mean(loss, num_counted)
        self.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=total)
        return loss

    def configure_optimizers(self) -> Any:
        """Return AdamW over all parameters, with its schedule."""
        config = self.config
        groups = decay_weights(self, config.weight_decay)
        optimizer = torch.optim.AdamW(groups, config.lr, fused=can_fuse(self))
        return schedule_rate(optimizer, self, config.warmup_steps, config.schedule)


class VideoModule(LSVCRModule):
    """Which video a user watches next."""

    def __init__(self, config: Config, streams: Streams, titles: NDArray[np.float32] | None) -> None:
        super().__init__(config, streams, titles)
        days, dataset = config.protocol.fresh_days, streams.comments.dataset
        self.fresh = FreshItems.of(dataset, days) if self.timing is not None and days is not None else None

    def user_vectors(self, inputs: Inputs) -> Tensor:
        """Return (B, D): scores are their dot products with the item vectors."""
        users, _ = self.model(inputs, "Rec")
        return F.normalize(users, dim=1) / self.config.temperature

    def item_vectors(self) -> Tensor:
        """Return (N+1, D)."""
        return F.normalize(self.model.item_vectors(), dim=1)

    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Inputs:
        """Return what users of a view knew before the event that follows."""
        return self.streams.read(moments_of(histories, rows, self.streams.comments))

    def count_rows(self, histories: Histories) -> NDArray[np.int64]:
        """Return (n,) rows of both histories of each user."""
        return self.streams.count_rows(moments_of(histories, np.arange(len(histories)), self.streams.comments))

    def training_step(self, batch: VideoBatch) -> Tensor:
        """Return the loss over all videos, or over fresh ones by their age, too, and that of ids and texts."""
        users, texts = self.model(batch.inputs, "Rec")
        hidden = F.normalize(users, dim=1) / self.config.temperature
        if batch.others is None or batch.times is None:
            none, classes = batch.targets[:0], self.item_vectors()
            N = self.model.num_items
            loss = catalogue_loss(LossOptions(), hidden, classes, batch.targets, none, none.float(), N)
        else:
            items = torch.cat([batch.targets[:, None], batch.others], dim=1)
            known, places = items.unique(return_inverse=True)
            vectors = F.normalize(self.model.item_vectors(known), dim=1)[places]
            scores = self.timed_scores(hidden, vectors, batch.times).masked_fill(items == 0, -torch.inf)
            loss = F.cross_entropy(scores, torch.zeros_like(batch.targets))
        return self.finish(loss, batch.inputs, texts, batch.num_counted)

    def timed_scores(self, users: Tensor, vectors: Tensor, times: Tensor) -> Tensor:
        """Return (B, K) scores of (B, D) users, (B, K, D) videos and what the clock says of these, (B, K, F)."""
        assert self.timing is not None
        scores: Tensor = (users[:, None] * vectors).sum(dim=2) + self.timing(times) / self.config.temperature
        return scores

    def fresh_scores(self, inputs: Inputs, catalogue: Tensor, items: Tensor) -> Tensor:
        """Return (B, K) float32 scores of (B, K) items; those of item 0 mean nothing."""
        assert self.streams.clock is not None and inputs.moments is not None
        times = self.streams.clock.read(items.cpu().numpy(), inputs.moments.cpu().numpy()[:, None])
        return self.timed_scores(self.user_vectors(inputs), catalogue[items], times.to(self.device)).float()

    def rank(self, batch: HeldOut, catalogue: Tensor) -> Ranking:
        """Return the ranks of a batch's targets, given all item vectors, (N+1, D)."""
        if self.fresh is None:
            return super().rank(batch, catalogue)
        assert batch.negatives is not None
        items = torch.cat([batch.targets[:, None], batch.negatives], dim=1)
        there = items > 0
        first = torch.zeros_like(there)
        first[:, 0] = True
        return rank_listed(self.fresh_scores(batch.inputs, catalogue, items)[there], there.sum(dim=1), first[there])

    def best(
        self, inputs: Inputs, catalogue: Tensor, k: int, seen: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the (B, k) items of highest score and their scores; with a clock, of the last days alone."""
        if self.fresh is None:
            return super().best(inputs, catalogue, k, seen)
        assert inputs.moments is not None and self.fresh.dataset.timestamps is not None
        now = int(self.fresh.dataset.timestamps.max()) + 1
        moments = inputs.moments.clamp(max=now)
        inputs = inputs._replace(moments=moments)
        items = torch.from_numpy(self.fresh.all(moments.cpu().numpy())).to(self.device)
        scores = self.user_vectors(inputs).new_zeros(len(items), len(catalogue))
        scores.scatter_(1, items, self.fresh_scores(inputs, catalogue, items))
        hidden = torch.ones_like(scores, dtype=torch.bool).scatter_(1, items, value=False)
        return top_scores(scores, k, seen, hidden)


class CommentModule(LSVCRModule):
    """Which comments under a video a user takes up."""

    def __init__(self, config: Config, streams: Streams, titles: NDArray[np.float32] | None) -> None:
        super().__init__(config, streams, titles)
        self.recorder = RankRecorder(config.protocol.metric_ks, joint=True)

    def scores(self, batch: CommentBatch) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Return the (T,) scores of candidates, and what the model's `merged_texts` returns."""
        users, texts = self.model(batch.inputs, "CommRank")
        users = F.normalize(users, dim=1) / self.config.temperature
        comments = F.normalize(self.model.text(batch.vectors), dim=1)
        owner = torch.repeat_interleave(batch.lengths)
        scores = (users[owner] * comments[batch.candidates]).sum(dim=1)
        if self.timing is not None and batch.times is not None:
            scores = scores + self.timing(batch.times) / self.config.temperature
        return scores, texts

    def item_vectors(self) -> Tensor:
        """Return (N+1, D) of videos."""
        return self.model.item_vectors()

    def training_step(self, batch: CommentBatch) -> Tensor:
        """Return the loss over each case's comments, and that of ids and texts."""
        scores, texts = self.scores(batch)
        owner = torch.repeat_interleave(batch.lengths)
        place = torch.arange(len(owner), device=owner.device) - (batch.lengths.cumsum(0) - batch.lengths)[owner]
        logits = scores.new_full((len(batch.lengths), int(batch.lengths.max())), -torch.inf)
        logits = logits.index_put((owner, place), scores)
        loss = F.cross_entropy(logits, place[batch.relevant])
        return self.finish(loss, batch.inputs, texts, batch.num_counted)

    def _rank(self, batch: CommentBatch) -> None:
        scores, _ = self.scores(batch)
        self.recorder.add(batch.rows, rank_listed(scores.float(), batch.lengths, batch.relevant))


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


def open_module(config: Config, comments: Comments) -> tuple[VideoModule | CommentModule, CaseSplit]:
    """Return the module for a dataset with comments, and the cases of comments."""
    titles = vectors = None
    if config.text != NONE:
        titles, vectors = (
            load_embeddings(config.text, data, config.embedding_dir) for data in (comments.dataset, comments.own)
        )
        if titles.shape[1] != vectors.shape[1]:
            raise UserError(
                f"--text {config.text}: the vectors of videos have {titles.shape[1]} numbers and those of comments "
                f"{vectors.shape[1]}: make both by one encoder"
            )
    elif config.task == "CommRank":
        raise UserError("--task CommRank tells comments by their texts: give --text NAME")
    streams, cases = open_streams(comments, config, vectors)
    task = VideoModule if config.task == "Rec" else CommentModule
    return task(config, streams, titles), cases


def train(config: Config) -> None:
    """Train, choose the best epoch on validation, test once, and write the run folder."""
    dataset = open_dataset(config.dataset, config.data_path)
    comments = load_comments(dataset)
    protocol = config.protocol
    if config.task == "CommRank":
        protocol = CommentProtocol(max_candidate_num=config.max_candidate_num)
    name = f"{config.task.lower()}-{config.text}"
    run = RunFolder("LSVCR", dataset, name, config.training, protocol)
    split = config.protocol.hold_out(dataset)
    if not run.open(config):
        return
    lightning.seed_everything(config.training.seed, verbose=False)
    module, cases = open_module(config, comments)
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
    """Return a trained model of videos for use.

    Raises:
        UserError: If it is to serve another catalogue, or is one of comments.
    """
    if trained is not None:
        raise UserError("videos that were not there in training have no vectors: train again")
    module, _ = open_module(config, load_comments(dataset))
    if not isinstance(module, VideoModule):
        raise UserError("this run ranks the comments under a video: give one of --task Rec")
    module.load_state_dict(state)
    return Recommender(module, module.make_inputs, module.count_rows)
