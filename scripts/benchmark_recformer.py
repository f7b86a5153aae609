"""Times Recformer beside transformers' Longformer on the same weights; run by scripts/benchmark.py.

python scripts/benchmark_recformer.py SETTINGS.json

Prints a line that starts with "turn" after each measurement, and a line of JSON at the end.
"""

import copy
import json
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LongformerConfig, LongformerModel

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from Recformer.backbone import load_backbone  # noqa: E402
from Recformer.config import RecformerConfig  # noqa: E402
from Recformer.data import TrainBatch, TrainDataset  # noqa: E402
from Recformer.encoding import TOKENS_PER_BATCH  # noqa: E402
from Recformer.model import RecformerModel  # noqa: E402
from Recformer.text import ItemTokens, TokenBatch, item_sequences, load_item_tokens  # noqa: E402
from seqrec.dataset import leave_one_out, load_dataset  # noqa: E402
from seqrec.losses import full_softmax  # noqa: E402
from seqrec.ragged import BatchKey, RowSampler  # noqa: E402

LR = 5e-5


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
        fields = batch.padded(self.config.pad_token_id, self.config.max_item_embeddings)
        ids, item_positions = fields.pop("input_ids"), fields.pop("item_position_ids")
        words = self.encoder.embeddings.word_embeddings(ids) + self.item_position_embeddings(item_positions)
        positions = torch.arange(ids.shape[1]) + self.config.position_offset
        hidden: Tensor = self.encoder(
            inputs_embeds=words, position_ids=positions.expand_as(ids), **fields
        ).last_hidden_state
        if self.config.pooler_type == "cls":
            return hidden[:, 0]
        real = fields["attention_mask"][:, :, None]
        return (hidden * real).sum(dim=1) / real.sum(dim=1)


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


def take_turns(what: str, repeats: int, ours: Callable[[], None], peer: Callable[[], None]) -> dict[str, list[float]]:
    """Return the seconds of each turn, after one turn that is not counted."""
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    for turn in range(repeats + 1):
        for side, work in (("ours", ours), ("peer", peer)):
            start = time.perf_counter()
            work()
            if turn:
                seconds[side].append(time.perf_counter() - start)
                print(f"turn of {what}, {side}: {seconds[side][-1]:.2f} s", flush=True)
    return seconds


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the benchmark reports."""
    torch.set_num_threads(settings["threads"])
    torch.manual_seed(settings["seed"])
    dataset = load_dataset(Path(settings["data_path"]))
    changes = {name: settings[name] for name in ("max_token_num", "pooler_type")}
    model, tokenizer = load_backbone(settings["model_name_or_path"], **changes)
    limit, size, config = settings["max_token_num"], settings["batch_size"], model.config
    items = load_item_tokens(dataset, tokenizer, config.max_attr_num, config.max_attr_length)
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
            "encoding", settings["repeats"], lambda: encode(ours, ragged), lambda: encode(peer, padded)
        )
        turns = []
        for side in (ours, peer):
            side.train()
            optimizer = torch.optim.AdamW([p for p in side.parameters() if p.requires_grad], LR, fused=True)
            turns.append(lambda side=side, optimizer=optimizer: train(side, optimizer, steps, table, config.temp))
        training = take_turns("training", settings["repeats"], *turns)
    return {
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
