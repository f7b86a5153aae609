"""Times Recformer beside transformers' Longformer on the same weights; run by scripts/benchmarks/speed.py.

python scripts/benchmarks/recformer.py SETTINGS.json

Prints a line that starts with "turn" after each measurement, and a line of JSON at the end.
"""

import copy
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LongformerConfig, LongformerModel

from Recformer.backbone import load_backbone, load_pretraining
from Recformer.config import RecformerConfig
from Recformer.data import TrainBatch, TrainDataset
from Recformer.model import RecformerModel
from Recformer.pretraining import (
    Classes,
    MlmPass,
    PretrainBatch,
    PretrainDataset,
    RecformerForPretraining,
    Side,
    contrast,
)
from scripts.benchmarks.sides import take_turns
from seqrec.data.batches import BatchKey, RowSampler
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.splits import leave_one_out
from seqrec.nn.losses import full_softmax
from seqrec.text.encoding import TOKENS_PER_BATCH
from seqrec.text.masking import WordMasker
from seqrec.text.sequences import TokenBatch, item_sequences
from seqrec.text.tokens import ItemTokens, load_item_tokens

LR, MLM_WEIGHT = 5e-5, 0.1


class PaddedRecformer(nn.Module):
    """The published way: `transformers`' Longformer on padded batches, with the embedding of the items' positions.

    Batches are padded to their longest sequence, and by Longformer itself to a multiple of its window.
    """

    def __init__(self, ours: RecformerModel) -> None:
        super().__init__()
        self.config = ours.config
        self.encoder = LongformerModel(longformer_config(ours.config), add_pooling_layer=False)
        self.item_position_embeddings = copy.deepcopy(ours.embeddings.item_position_embeddings)
        state = {name: value for name, value in ours.state_dict().items() if "item_position_embeddings" not in name}
        self.encoder.load_state_dict(state, strict=True)

    def forward(self, batch: TokenBatch) -> Tensor:
        """Return one vector per sequence, (B, D)."""
        return self.read(batch)[0]

    def read(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Return one vector per sequence, (B, D), and one per token and padding, (B, L, D)."""
        fields = batch.padded(self.config.pad_token_id, self.config.max_item_embeddings)
        ids, item_positions = fields.pop("input_ids"), fields.pop("item_position_ids")
        words = self.encoder.embeddings.word_embeddings(ids) + self.item_position_embeddings(item_positions)
        positions = torch.arange(ids.shape[1]) + self.config.position_offset
        hidden: Tensor = self.encoder(
            inputs_embeds=words, position_ids=positions.expand_as(ids), **fields
        ).last_hidden_state
        if self.config.pooler_type == "cls":
            return hidden[:, 0], hidden
        real = fields["attention_mask"][:, :, None]
        return (hidden * real).sum(dim=1) / real.sum(dim=1), hidden


def contrast_targets(histories: Tensor, items: Tensor, batch: PretrainBatch, temp: float) -> Tensor:
    """Return the mean contrastive loss of a batch whose windows are its targets alone."""
    losses, _ = contrast(histories, Classes(items, batch.item_ids, batch.users), torch.arange(len(items)), temp)
    return losses.mean()


class PaddedPretraining(nn.Module):
    """The published pretraining: four padded passes, and the language model's scores at every position."""

    def __init__(self, ours: RecformerForPretraining) -> None:
        super().__init__()
        self.encoder, self.head = PaddedRecformer(ours.longformer), copy.deepcopy(ours.lm_head)

    def forward(self, batch: PretrainBatch) -> Tensor:
        """Return the loss."""
        (part,) = batch.parts
        assert part.histories is not None
        (histories, history_loss), (items, item_loss) = map(self._read, (part.histories, part.items))
        contrastive = contrast_targets(F.normalize(histories), F.normalize(items), batch, self.encoder.config.temp)
        return contrastive + MLM_WEIGHT * (history_loss + item_loss)

    def _read(self, side: Side) -> tuple[Tensor, Tensor]:
        assert side.masked is not None
        hidden = self.encoder.read(replace(side.plain, input_ids=side.masked.input_ids))[1]
        labels = torch.full((len(side.plain.input_ids),), -100)
        labels[side.masked.asked] = side.masked.labels
        padded = torch.nn.utils.rnn.pad_sequence(
            labels.split(side.plain.lengths.tolist()), batch_first=True, padding_value=-100
        )
        words = self.encoder.encoder.embeddings.word_embeddings.weight
        states = self.head.layer_norm(self.head.activation(self.head.dense(hidden)))
        scores = F.linear(states, words, self.head.bias)
        return self.encoder(side.plain), F.cross_entropy(scores.flatten(0, 1), padded.flatten())


class RaggedPretraining(nn.Module):
    """The project's pretraining."""

    def __init__(self, model: RecformerForPretraining, mlm_pass: MlmPass) -> None:
        super().__init__()
        self.model = model
        self.model.shared = mlm_pass == "shared"

    def forward(self, batch: PretrainBatch) -> Tensor:
        """Return the loss."""
        histories, items, _, history_loss, item_loss = self.model(batch.parts)
        contrastive = contrast_targets(histories, items, batch, self.model.longformer.config.temp)
        (part,) = batch.parts
        assert part.histories is not None and part.histories.masked is not None and part.items.masked is not None
        mlm: Tensor = history_loss / len(part.histories.masked.labels) + item_loss / len(part.items.masked.labels)
        return contrastive + MLM_WEIGHT * mlm


class RaggedRecformer(nn.Module):
    """The project's encoder."""

    def __init__(self, model: RecformerModel) -> None:
        super().__init__()
        self.model = model
        self.model.freeze_unread()

    def forward(self, batch: TokenBatch) -> Tensor:
        """Return one vector per sequence, (B, D)."""
        pooled: Tensor = self.model(batch).pooled
        return pooled


def longformer_config(config: RecformerConfig) -> LongformerConfig:
    """Return the configuration under which Longformer computes what Recformer does."""
    return LongformerConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_position_embeddings,
        pad_token_id=config.pad_token_id,
        hidden_act=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
        hidden_dropout_prob=config.hidden_dropout_prob,
        attention_probs_dropout_prob=config.attention_probs_dropout_prob,
        attention_window=list(config.attention_window),
        type_vocab_size=config.token_type_size,
    )


def draw_items(items: ItemTokens, num_items: int, seed: int) -> NDArray[np.int64]:
    """Return at most `num_items` distinct item ids."""
    generator = np.random.default_rng(seed)
    return generator.permutation(np.arange(1, items.num_items + 1))[:num_items]


def item_batches(items: ItemTokens, ids: NDArray[np.int64], limit: int, batch_size: int | None) -> list[TokenBatch]:
    """Return the texts of some items, `batch_size` at a time as they come, or by length in batches of equal work."""
    lengths = np.minimum(items.lengths[ids] + 1, limit)
    max_tokens = TOKENS_PER_BATCH if batch_size is None else None
    sampler = RowSampler(lengths, batch_size=batch_size, max_tokens=max_tokens, shuffle=False)
    return [item_sequences(ids[rows], items, limit) for rows in sampler.batches()]


@torch.no_grad()
def encode(model: nn.Module, batches: Iterable[TokenBatch]) -> None:
    """Encode all batches."""
    for batch in batches:
        model(batch)


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[TrainBatch], table: Tensor, temp: float
) -> None:
    """Take one step per batch: the full softmax over a fixed item table, gradient, AdamW."""
    for batch in batches:
        users = F.normalize(model(batch.inputs).float(), dim=1) / temp
        full_softmax(users, table, batch.targets).backward()
        optimizer.step()
        optimizer.zero_grad()


def pretrain(model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterable[PretrainBatch]) -> None:
    """Take one step per batch: both losses, gradient, AdamW."""
    for batch in batches:
        model(batch).backward()
        optimizer.step()
        optimizer.zero_grad()


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """Return AdamW over everything that learns."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], LR, fused=True)


def pretraining_model(settings: dict[str, Any]) -> RecformerForPretraining:
    """Return the backbone with a language-model head, the same every time."""
    torch.manual_seed(settings["seed"])
    changes = {name: settings[name] for name in ("max_token_num", "pooler_type")}
    return load_pretraining(settings["model_name_or_path"], **changes)[0]


def pretraining_batches(
    dataset: Dataset, items: ItemTokens, tokenizer: Any, settings: dict[str, Any]
) -> list[PretrainBatch]:
    """Return as many histories as are finetuned on, each with a target and hidden words."""
    size, seed = settings["batch_size"], settings["seed"]
    view = leave_one_out(dataset).train
    data = PretrainDataset(view, items, settings["max_token_num"], WordMasker.of(tokenizer), 0.15, size, seed)
    rows = np.random.default_rng(seed).permutation(len(data.sequences))[: settings["num_users"]]
    return [data[BatchKey(rows[i : i + size], 0, i)] for i in range(0, len(rows), size)]


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the benchmark reports."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    dataset = load_dataset(Path(settings["data_path"]))
    changes = {name: settings[name] for name in ("max_token_num", "pooler_type")}
    model, tokenizer = load_backbone(settings["model_name_or_path"], **changes)
    limit, size, config = settings["max_token_num"], settings["batch_size"], model.config
    items = load_item_tokens(dataset, tokenizer, *config.text_limits)
    ours, peer = RaggedRecformer(model).eval(), PaddedRecformer(model).eval()
    ids = draw_items(items, settings["num_items"], settings["seed"])

    histories = TrainDataset(leave_one_out(dataset).train, items, limit, -1, settings["seed"])
    users = np.random.default_rng(settings["seed"]).permutation(len(histories.sequences))[: settings["num_users"]]
    steps = [histories[BatchKey(users[i : i + size], 0, i)] for i in range(0, len(users), size)]
    table = F.normalize(torch.randn(items.num_items + 1, config.hidden_size), dim=1)

    def autocast() -> AbstractContextManager[None]:
        return torch.autocast("cpu", torch.bfloat16, enabled=settings["precision"] == "bfloat16")

    with autocast():
        with torch.no_grad():
            difference = float((ours(steps[0].inputs) - peer(steps[0].inputs)).abs().max())
        ragged, padded = (item_batches(items, ids, limit, b) for b in (None, size))
        encoding = take_turns(
            "encoding", settings["repeats"], ours=lambda: encode(ours, ragged), peer=lambda: encode(peer, padded)
        )
        turns: dict[str, Callable[[], None]] = {}
        for name, side in (("ours", ours), ("peer", peer)):
            turns[name] = partial(train, side.train(), make_optimizer(side), steps, table, config.temp)
        training = take_turns("training", settings["repeats"], **turns)

        batches = pretraining_batches(dataset, items, tokenizer, settings)
        models = {
            "ours": RaggedPretraining(pretraining_model(settings), "separate"),
            "peer": PaddedPretraining(pretraining_model(settings)),
            "shared": RaggedPretraining(pretraining_model(settings), "shared"),
        }
        with torch.no_grad():
            losses = [float(models[name].eval()(batches[0])) for name in ("ours", "peer")]
        pretraining = take_turns(
            "pretraining",
            settings["repeats"],
            **{name: partial(pretrain, side.train(), make_optimizer(side), batches) for name, side in models.items()},
        )
    return {
        "pretraining": pretraining,
        "loss_difference": abs(losses[0] - losses[1]),
        "encoding": encoding,
        "training": training,
        "items": len(ids),
        "sequences": len(users),
        "tokens": {"items": int(items.lengths[ids].sum()), "sequences": sum(len(s.inputs.input_ids) for s in steps)},
        "difference": difference,
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))), flush=True)
