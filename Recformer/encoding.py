"""Item vectors of a text encoder. Shapes: N items, D width."""

import hashlib
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from Recformer.config import RecformerConfig
from Recformer.model import RecformerModel
from Recformer.text import ItemTokens, item_sequences
from seqrec.evaluation import full_precision
from seqrec.ragged import RowSampler
from seqrec.run import Precision

TOKENS_PER_BATCH = 8192


def encode_items(
    model: RecformerModel, items: ItemTokens, max_tokens: int = TOKENS_PER_BATCH, precision: Precision = "32-true"
) -> Tensor:
    """Return the vectors of all items, (N+1, D) float32 on the model's device, row 0 zero; see `encode_some`."""
    vectors = encode_some(model, items, np.arange(1, items.num_items + 1), max_tokens, precision)
    return torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])


@torch.no_grad()
def encode_some(
    model: RecformerModel,
    items: ItemTokens,
    ids: NDArray[np.int64],
    max_tokens: int = TOKENS_PER_BATCH,
    precision: Precision = "32-true",
) -> Tensor:
    """Return the vectors of some items, (n, D) float32 on the model's device.

    Items of like length share a batch, so a batch is one rectangle or few. The model is left in the mode it was in.

    Args:
        model: The encoder.
        items: The catalogue.
        ids: (n,) items in 1..N.
        max_tokens: Tokens per batch.
        precision: Of matrix products. It alone decides, never what the hardware can do.
    """
    device = next(model.parameters()).device
    vectors = torch.zeros(len(ids), model.config.hidden_size, device=device)
    limit = model.config.max_token_num
    lengths = np.minimum(items.lengths[ids] + 1, limit)
    batches = RowSampler(lengths, max_tokens=max_tokens, shuffle=False).batches()
    was_training = model.training
    model.eval()
    with _multiply_in(precision, device.type):
        for rows in tqdm(batches, desc="encoding items", unit="batch", leave=False, delay=2):
            texts = item_sequences(ids[rows], items, limit).to(device)
            vectors[torch.from_numpy(rows).to(device)] = model(texts).pooled.float()
    model.train(was_training)
    return vectors


def weights_sha256(model: nn.Module) -> str:
    """Return a hash of a model's parameters by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def describe(config: RecformerConfig, name_or_path: str, precision: Precision) -> dict[str, Any]:
    """Return the options that, beside the weights, decide an item's vector."""
    keys = ("max_attr_num", "max_attr_length", "max_token_num", "attention_window", "pooler_type")
    return {"backbone": name_or_path, "precision": precision} | {key: getattr(config, key) for key in keys}


def _multiply_in(precision: Precision, device: str) -> AbstractContextManager[Any]:
    """Let matrix products be of a precision, whatever is set outside."""
    if precision == "32-true":
        return full_precision(device)
    return torch.autocast(device, torch.bfloat16 if precision == "bf16-mixed" else torch.float16)
