"""Item vectors of a text encoder. Shapes: N items, D width."""

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seqrec.basics.cache import CachedArrays
from seqrec.basics.precision import HALVES, Precision, full_precision
from seqrec.basics.progress import progress
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset
from seqrec.data.vectors import Producer, save_embeddings
from seqrec.text.encoder import TextEncoder
from seqrec.text.sequences import item_sequences
from seqrec.text.tokens import ItemTokens

TOKENS_PER_BATCH = 8192


def encode_items(
    model: TextEncoder,
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
    model: TextEncoder,
    items: ItemTokens,
    ids: NDArray[np.int64],
    max_tokens: int = TOKENS_PER_BATCH,
    precision: Precision = "32-true",
    share: tuple[int, int] = (0, 1),
) -> Tensor:
    """Return the vectors of some items, (n, D) float32 on the model's device.

    Items of similar length share a batch. The model is left in the mode it was in.

    Args:
        model: The encoder.
        items: The catalogue.
        ids: (n,) items in 1..N.
        max_tokens: Tokens per batch.
        precision: Precision of matrix products; it never depends on the hardware.
        share: Number of this process and of all. Each encodes its share of the batches, and all get all vectors,
        bitwise the same as with one process. All have to call this.
    """
    device = next(model.parameters()).device
    vectors = torch.zeros(len(ids), model.width, device=device)
    limit = model.max_token_num
    lengths = np.minimum(items.lengths[ids] + 1, limit)
    batches = RowSampler(lengths, max_tokens=max_tokens, shuffle=False).batches()
    was_training = model.training
    model.eval()
    with _multiply_in(precision, device.type):
        first, processes = share
        # All run the encoder equally often: sharded weights are gathered by all processes at once.
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


def write_vectors(
    model: TextEncoder,
    items: ItemTokens,
    dataset: Dataset,
    path: Path,
    producer: Producer,
    part_items: int,
    max_tokens: int = TOKENS_PER_BATCH,
    precision: Precision = "32-true",
) -> None:
    """Encode a catalogue part by part and write its item vectors.

    A part is on disk before the next begins: memory does not grow with the catalogue, and after a kill the same call
    continues. Under a launcher such as `torchrun` the processes split the parts, and all have to call this.

    Args:
        model: The encoder, on its device.
        items: The catalogue.
        dataset: The dataset that the catalogue belongs to.
        path: The `.npy` to write.
        producer: The weights and options that decide the vectors.
        part_items: Items per part.
        max_tokens: Tokens per batch.
        precision: Precision of matrix products.
    """

    def encode(ids: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        return {"vectors": encode_some(model, items, ids, max_tokens, precision).cpu().numpy()}

    tokens = hashlib.sha256(items.tokens.data).hexdigest()
    write_in_parts(encode, dataset, {"vectors": (path, producer)}, tokens, part_items)


def write_in_parts(
    encode: Callable[[NDArray[np.int64]], dict[str, NDArray[np.float32]]],
    dataset: Dataset,
    targets: Mapping[str, tuple[Path, Producer]],
    texts_sha256: str,
    part_items: int,
) -> None:
    """Write kinds of vectors of a catalogue, part by part; see `write_vectors`.

    Args:
        encode: Returns the vectors of some items in 1..N by kind, (n, D) each.
        dataset: The catalogue.
        targets: By kind, the `.npy` to write and what decides the vectors.
        texts_sha256: Hash of the items' texts.
        part_items: Items per part.
    """
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")

    def make_part(part: int) -> dict[str, NDArray[np.float32]]:
        ids = np.arange(part * part_items, min((part + 1) * part_items, dataset.num_items + 1))
        found = encode(ids[ids > 0])  # row 0 is padding
        return found if part else {name: np.pad(vectors, ((1, 0), (0, 0))) for name, vectors in found.items()}

    folder = next(iter(targets.values()))[0].parent.parent / ".parts"
    deciding = {name: [producer.options, producer.checkpoint_sha256] for name, (_, producer) in targets.items()}
    key = deciding | {"items": dataset.item_ids_sha256, "tokens": texts_sha256, "part": part_items}
    parts = CachedArrays(folder, key, dataset.num_items // part_items + 1)
    with parts.lock() if rank == 0 else nullcontext():
        if processes > 1:
            torch.distributed.barrier()  # the first has locked the parts for all
        parts.make(make_part, f"encoding {dataset.name}", rank, processes)
        if processes > 1:
            torch.distributed.barrier()
        if rank == 0:
            for name, vectors in parts.join().items():
                save_embeddings(targets[name][0], vectors, dataset, targets[name][1])
            parts.remove()


def own_device(accelerator: str = "auto") -> torch.device:
    """Return the device of this process, also before the process group is set up."""
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


def _multiply_in(precision: Precision, device: str) -> AbstractContextManager[Any]:
    """Set the precision of matrix products within the block."""
    if precision == "32-true":
        return full_precision(device)
    return torch.autocast(device, HALVES[precision])
