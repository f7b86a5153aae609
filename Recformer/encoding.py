"""Item vectors of a text encoder. Shapes: N items, D width."""

import hashlib
import os
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from Recformer.config import RecformerConfig
from Recformer.model import RecformerModel
from Recformer.text import ItemTokens, item_sequences
from seqrec.evaluation import full_precision
from seqrec.progress import progress
from seqrec.ragged import RowSampler
from seqrec.run import Precision

TOKENS_PER_BATCH = 8192


def encode_items(
    model: RecformerModel,
    items: ItemTokens,
    max_tokens: int = TOKENS_PER_BATCH,
    precision: Precision = "32-true",
    share: tuple[int, int] = (0, 1),
) -> Tensor:
    """Return the vectors of all items, (N+1, D) float32 on the model's device, row 0 zero; see `encode_some`."""
    vectors = encode_some(model, items, np.arange(1, items.num_items + 1), max_tokens, precision, share)
    return torch.cat([vectors.new_zeros(1, vectors.shape[1]), vectors])


@torch.no_grad()
def encode_some(
    model: RecformerModel,
    items: ItemTokens,
    ids: NDArray[np.int64],
    max_tokens: int = TOKENS_PER_BATCH,
    precision: Precision = "32-true",
    share: tuple[int, int] = (0, 1),
) -> Tensor:
    """Return the vectors of some items, (n, D) float32 on the model's device.

    Items of like length share a batch, so a batch is one rectangle or few. The model is left in the mode it was in.

    Args:
        model: The encoder.
        items: The catalogue.
        ids: (n,) items in 1..N.
        max_tokens: Tokens per batch.
        precision: Of matrix products. It alone decides, never what the hardware can do.
        share: This process's number and how many there are: each encodes every so many-th batch, and all get all
            vectors, the same as one process's to the last bit. All have to call this.
    """
    device = next(model.parameters()).device
    vectors = torch.zeros(len(ids), model.config.hidden_size, device=device)
    limit = model.config.max_token_num
    lengths = np.minimum(items.lengths[ids] + 1, limit)
    batches = RowSampler(lengths, max_tokens=max_tokens, shuffle=False).batches()
    was_training = model.training
    model.eval()
    with _multiply_in(precision, device.type):
        first, processes = share
        # All run the encoder equally often: weights that are sharded are gathered by all processes at once.
        turns = range(first, -(-len(batches) // processes) * processes, processes)
        for turn in progress(turns, desc="encoding items", unit="batch"):
            rows = batches[turn % len(batches)]
            pooled = model(item_sequences(ids[rows], items, limit).to(device)).pooled.float()
            if turn < len(batches):
                vectors[torch.from_numpy(rows).to(device)] = pooled
    if processes > 1:
        torch.distributed.all_reduce(vectors)  # each row is zero in all processes but one
    model.train(was_training)
    return vectors


def own_device(accelerator: str = "auto") -> torch.device:
    """Return the device of this process, also before a launcher's processes have met."""
    if accelerator == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))))


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
