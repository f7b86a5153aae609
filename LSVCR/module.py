"""What LSVCR learns from a batch and how it ranks, as Lightning modules: videos, and comments under a video."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from LSVCR.cases import CommentBatch, VideoBatch
from LSVCR.data import Moments, Streams, TextVectors, moments_of
from LSVCR.model import Inputs, SRModel
from LSVCR.options import Config
from LSVCR.timing import TimingScore
from seqrec.basics.errors import UserError
from seqrec.data.dataset import END, Dataset, Histories
from seqrec.data.fresh import FreshItems
from seqrec.evaluation.ranking import Ranking, rank_listed, top_scores
from seqrec.evaluation.recorder import RankRecorder
from seqrec.nn.losses import LossOptions, catalogue_loss
from seqrec.nn.optimization import can_fuse, decay_weights, schedule_rate
from seqrec.training.batches import HeldOut
from seqrec.training.module import NextItemModule, share_of_mean
from seqrec.training.requests import unknown_id

PAIRS = 2**18
"""Greatest number of users and fresh videos that are scored at a time: of each pair, D numbers are in memory."""


class LSVCRModule(NextItemModule):
    """The model, its loss and its optimiser; a task says what a batch is."""

    text_digest: Tensor

    def __init__(self, config: Config, streams: Streams, texts: TextVectors | None) -> None:
        """Build the model for a dataset with comments, and with text vectors, if any."""
        super().__init__(config.protocol.metric_ks)
        self.config, self.streams = config, streams
        given = None if texts is None else torch.from_numpy(np.asarray(texts.titles))
        num_items = streams.comments.dataset.num_items
        self.model = SRModel(num_items, config.model, (config.task,), given, with_ids=not config.disable_id)
        self.timing = None if config.timing == "none" else TimingScore(config.timing)
        digest = bytes(32) if texts is None else bytes.fromhex(texts.sha256)
        self.register_buffer("text_digest", torch.tensor(list(digest), dtype=torch.uint8))

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

    def __init__(self, config: Config, streams: Streams, texts: TextVectors | None) -> None:
        super().__init__(config, streams, texts)
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
        step = max(PAIRS // items.shape[1], 1)  # users at a time
        parts = zip(self.user_vectors(inputs).split(step), items.split(step), inputs.moments.split(step), strict=True)
        found = []
        for users, candidates, moments in parts:
            times = self.streams.clock.read(candidates.cpu().numpy(), moments.cpu().numpy()[:, None])
            found.append(self.timed_scores(users, catalogue[candidates], times.to(self.device)).float())
        return torch.cat(found)

    def rank(self, batch: HeldOut, catalogue: Tensor) -> list[Ranking]:
        """Return the ranks of a batch's targets in each way that it asks for, given all item vectors, (N+1, D)."""
        if self.fresh is None:
            return super().rank(batch, catalogue)
        assert batch.negatives is not None
        items = torch.cat([batch.targets[:, None], batch.negatives], dim=1)
        there = items > 0
        first = torch.zeros_like(there)
        first[:, 0] = True
        return [rank_listed(self.fresh_scores(batch.inputs, catalogue, items)[there], there.sum(dim=1), first[there])]

    def best(
        self,
        inputs: Inputs,
        catalogue: Tensor,
        k: int,
        seen: tuple[Tensor, Tensor] | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the (B, k) items of highest score and their scores; with a clock, of the last days alone."""
        if self.fresh is None:
            return super().best(inputs, catalogue, k, seen, hidden)
        assert inputs.moments is not None and self.streams.clock is not None
        moments = inputs.moments.clamp(max=self.streams.clock.end)
        items = torch.from_numpy(self.fresh.all(moments.cpu().numpy())).to(self.device)
        fresh = self.fresh_scores(inputs, catalogue, items)
        scores = fresh.new_zeros(len(items), len(catalogue)).scatter_(1, items, fresh)
        old = torch.ones_like(scores, dtype=torch.bool).scatter_(1, items, value=False)
        return top_scores(scores, k, seen, old if hidden is None else old | hidden)


class CommentModule(LSVCRModule):
    """Which comments under a video a user takes up."""

    def __init__(self, config: Config, streams: Streams, texts: TextVectors | None) -> None:
        super().__init__(config, streams, texts)
        self.recorder = RankRecorder(config.protocol.metric_ks, joint=True)
        self.under = 0

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

    def candidates(self) -> Tensor:
        """Return (0, 0): a case has candidates of its own."""
        return torch.zeros(0, 0)

    def _rank(self, batch: CommentBatch) -> None:
        scores, _ = self.scores(batch)
        self.recorder.add(batch.rows, rank_listed(scores.float(), batch.lengths, batch.relevant))

    def look_under(self, item: str) -> Dataset:
        """Rank the comments under a video from now on, see `NextItemModule.look_under`."""
        comments = self.streams.comments
        names = comments.dataset.item_table()["raw_id"]
        if (place := names.index_of(item)) is None:
            raise UserError(unknown_id(comments.dataset, "item", item, "--under"))
        self.under = place + 1
        if comments.firsts[self.under] == comments.firsts[self.under + 1]:
            raise UserError(f"there is no comment under {item!r} in {comments.own.path}")
        return comments.own

    def make_inputs(self, histories: Histories, rows: NDArray[np.int64]) -> Inputs:
        """Return all that users know, under the video."""
        if not self.under:
            raise UserError("this run ranks the comments under a video: say which, by --under")
        users = histories.users[rows]
        return self.streams.read(Moments(users, np.full_like(users, END)), watched=np.full_like(users, self.under))

    def count_rows(self, histories: Histories) -> NDArray[np.int64]:
        """Return (n,) rows of both histories of each user."""
        return self.streams.count_rows(Moments(histories.users, np.full_like(histories.users, END)))

    def best(
        self,
        inputs: Inputs,
        catalogue: Tensor,
        k: int,
        seen: tuple[Tensor, Tensor] | None = None,
        hidden: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the (B, k) comments of highest score under the video, and their scores."""
        streams = self.streams
        first, end = (int(place) for place in streams.comments.firsts[self.under : self.under + 2])
        assert streams.vectors is not None
        users = F.normalize(self.model(inputs, "CommRank")[0], dim=1) / self.config.temperature
        vectors = torch.from_numpy(np.array(streams.vectors[first:end])).to(users.device)
        scores = users @ F.normalize(self.model.text(vectors), dim=1).T
        if self.timing is not None and streams.clock is not None:
            there = np.arange(first, end)
            times = streams.clock.read(there, np.full_like(there, END)).to(users.device)
            scores = scores + self.timing(times) / self.config.temperature
        if seen is not None:
            inside = (seen[1] >= first) & (seen[1] < end)
            seen = seen[0][inside], seen[1][inside] - first + 1
        if hidden is not None:
            hidden = F.pad(hidden[first:end], (1, 0))
        best, found = top_scores(F.pad(scores, (1, 0)), k, seen, hidden)
        return torch.where(best > 0, best + first - 1, 0), found
