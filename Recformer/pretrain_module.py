"""Pretraining: module, batches and run."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as lightning
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from Recformer.backbone import load_pretraining
from Recformer.item_batches import Events, count_events, read_events
from Recformer.options import PretrainConfig
from Recformer.pretraining import Classes, PretrainBatch, PretrainDataset, RecformerForPretraining, contrast
from seqrec.basics.errors import UserError
from seqrec.data.batches import Rounds, RowSampler
from seqrec.data.dataset import Dataset
from seqrec.data.discovery import open_dataset
from seqrec.text.encoding import encode_items
from seqrec.text.masking import WordMasker
from seqrec.text.options import Pooling
from seqrec.text.pooling import pool_items
from seqrec.text.sequences import HistoryReader, TokenBatch
from seqrec.text.tokens import ItemTokens, load_item_tokens
from seqrec.training.batches import BatchModule
from seqrec.training.encoder_module import EncoderModule
from seqrec.training.folder import RunFolder
from seqrec.training.trainer import fit, report, test


class PretrainModule(EncoderModule):
    """The two losses, and validation by ranking."""

    model: RecformerForPretraining

    def __init__(self, model: RecformerForPretraining, items: ItemTokens, config: PretrainConfig) -> None:
        """Take a model and the items of the held-out domain."""
        super().__init__(model, model.longformer, config.learning, config.protocol.metric_ks)
        self.items, self.config = items, config
        self._read: Tensor | None = None
        if config.mlm_weight == 0:
            model.longformer.freeze_unread()
            model.lm_head.requires_grad_(False)

    def user_vectors(self, inputs: TokenBatch | Events) -> Tensor:
        """Return (B, D), normalised."""
        if isinstance(inputs, Events):
            assert self._read is not None
            return F.normalize(
                pool_items(self._read[inputs.items], *inputs[1:], self.model.longformer.config.item_decay), dim=1
            )
        pooled: Tensor = self.model.longformer(inputs).pooled
        return F.normalize(pooled.float(), dim=1)

    def item_vectors(self) -> Tensor:
        """Return (N+1, D), the items of the held-out domain, normalised."""
        config = self.config
        vectors = encode_items(self.model.longformer, self.items, config.eval_max_tokens, config.training.precision)
        self._read = F.normalize(vectors, dim=1)
        return self._read

    def training_step(self, batch: PretrainBatch) -> Tensor:
        """Return this process's share of the loss of the whole batch."""
        histories, items, means, history_loss, item_loss = self.model(batch.parts)
        counts = self._counts(batch)
        total = counts.sum(dim=0)
        # Lightning averages gradients over processes: shares are scaled so that their mean is the batch's mean.
        scale = len(counts) / total.clamp(min=1)
        classes, first = self._gather(items, batch, counts[:, 3])
        last = batch.windows.cumsum(0) - 1
        losses, hits = contrast(histories, classes, first + last, self.config.encoder.temp)
        scale = scale * batch.counts
        contrastive = losses.sum() * scale[0]
        by_items = contrastive.new_zeros(())
        if len(means):
            by_items = contrast(means, classes, first + batch.later_rows, self.config.encoder.temp)[0].sum() * scale[4]
        mlm = history_loss * scale[1] + item_loss * scale[2]
        loss: Tensor = contrastive + by_items + self.config.mlm_weight * mlm
        for name, value in (
            ("loss", loss),
            ("contrast", contrastive),
            ("items", by_items),
            ("mlm", mlm),
            ("accuracy", hits.sum() * scale[0]),
        ):
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, batch_size=batch.num_rows, sync_dist=True)
        return loss

    def _counts(self, batch: PretrainBatch) -> Tensor:
        """Return (P, 5) histories, hidden tokens of histories and of items, items, and items that means predict."""
        own = [len(batch.windows)]
        for sides in ([part.histories for part in batch.parts], [part.items for part in batch.parts]):
            own.append(sum(len(side.masked.labels) for side in sides if side is not None and side.masked is not None))
        own += [len(batch.item_ids), len(batch.item_ids) - len(batch.windows)]
        return self._all(torch.tensor(own, device=self.device) * batch.counts).view(-1, 5)

    def _all(self, value: Tensor, sync_grads: bool = False) -> Tensor:
        """Return the value of every process, (P, ...) where there are several."""
        values = self.all_gather(value, sync_grads=sync_grads)
        assert isinstance(values, Tensor)
        return values

    def _gather(self, vectors: Tensor, batch: PretrainBatch, counts: Tensor) -> tuple[Classes, int]:
        """Return all processes' items, vectors with their gradient, and where this process's begin."""
        ids, users = batch.item_ids * batch.counts, batch.users.repeat_interleave(batch.windows)
        if len(counts) == 1:
            return Classes(vectors, ids, users), 0
        height = int(counts.max())
        filling = height - len(ids)
        rows = self._all(F.pad(vectors, (0, 0, 0, filling)), sync_grads=True)
        ids, users = (self._all(F.pad(values, (0, filling))).flatten() for values in (ids, users))
        return Classes(rows.flatten(0, 1), ids, users), height * self.global_rank


def read_domains(corpus: Dataset) -> NDArray[np.int64]:
    """Return (U,) domain of each user of a corpus.

    Raises:
        UserError: If the dataset is no corpus of several domains.
    """
    names = corpus.user_table()["raw_id"].str.split("@").list.last()
    if corpus.manifest["source"]["kind"] != "corpus":
        raise UserError(
            f"--domains_apart: {corpus.name} was not made by `scripts/prepare.py corpus`, its users have no domain"
        )
    return names.rank("dense").to_numpy().astype(np.int64)


def make_batches(
    config: PretrainConfig,
    corpus: Dataset,
    corpus_items: ItemTokens,
    valid: Dataset,
    valid_items: ItemTokens,
    tokenizer: Any,
    pooling: Pooling,
) -> BatchModule:
    """Return the training batches of the corpus and the evaluation batches of the held-out domain."""
    training = config.training
    training_data = PretrainDataset(
        corpus.whole_histories(),
        corpus_items,
        config.encoder.max_token_num,
        WordMasker.of(tokenizer) if config.mlm_weight else None,
        config.mlm_probability,
        config.batch_size,
        training.seed,
        config.window,
        item_by_item=pooling == "items",
    )
    domains = read_domains(corpus)[training_data.sequences.users] if config.domains_apart else None
    rows = RowSampler(
        training_data.sequences.lengths,
        batch_size=config.rows_per_step,
        shuffle=True,
        seed=training.seed,
        groups=domains,
    )

    reader = HistoryReader(valid_items, config.encoder.max_token_num)
    by_item = pooling == "items"
    return BatchModule(
        valid,
        config.protocol.hold_out(valid),
        config.protocol,
        training_data,
        rows if config.valid_step is None else Rounds(rows, config.valid_step, training.num_epochs),
        read_events if by_item else reader,
        eval_lengths=count_events if by_item else reader.count_tokens,
        eval_max_tokens=config.eval_max_tokens,
        valid_users=training.valid_users,
        num_workers=training.dataloader_num_workers,
    )


def pretrain(config: PretrainConfig) -> None:
    """Pretrain, test the best weights on the held-out domain, and write the run folder."""
    corpus = open_dataset(config.dataset, config.data_path)
    valid = open_dataset(config.valid_dataset, config.valid_path)
    if corpus.item_ids_sha256 == valid.item_ids_sha256:
        raise UserError(f"{corpus.name} and {valid.name} have the same items: validate on a domain that is not read")
    run = RunFolder("Recformer", valid, f"pretraining-on-{corpus.name}", config.training, config.protocol)
    if not run.open(config, corpus):
        return
    lightning.seed_everything(config.training.seed, verbose=False)
    encoder = config.encoder
    model, tokenizer = load_pretraining(*encoder.source, config.mlm_pass, config.untie_decoder, **encoder.changes)
    limits = model.longformer.config.text_limits
    corpus_items, valid_items = (load_item_tokens(data, tokenizer, *limits) for data in (corpus, valid))
    module = PretrainModule(model, valid_items, config)
    pooling = model.longformer.config.pooler_type
    data = make_batches(config, corpus, corpus_items, valid, valid_items, tokenizer, pooling)
    training = config.training
    if isinstance(data.train_sampler, Rounds):
        training = replace(training, num_epochs=data.train_sampler.count)
    module, record = fit(module, data, training, run.folder, start=config.ckpt)
    report(run, module, record, test(module, data, training))
