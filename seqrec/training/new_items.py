"""Items unseen in training: the given vectors of another catalogue, transformed as in training.

Shapes: N items of the catalogue that was trained on, N' of the other, V width of the vectors as the model reads them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset
from seqrec.nn.geometry import transform_vectors
from seqrec.nn.item_table import ItemTable, TableOptions

ADVICE = "train with --init_mode adapter or frozen, without --unfreeze_at, to serve new items"
_SAME = 1e-3
"""Largest median difference of the same items' vectors in two files that counts as equal, relative to their entries."""


def read_new_items(
    options: TableOptions,
    load: Callable[[Dataset], NDArray[np.float32]],
    occurring: NDArray[np.bool_],
    catalogues: tuple[Dataset, Dataset],
    weight: Tensor,
    own_table: ItemTable,
) -> Tensor:
    """Return the given vectors of another catalogue, transformed with the statistics of training.

    Args:
        options: Of the item table.
        load: Returns a catalogue's given vectors.
        occurring: (N+1,) whether an item has a training interaction.
        catalogues: The training catalogue, and the other.
        weight: (N+1, V) of the model, which the vectors of the training catalogue must reproduce.
        own_table: The model's table without given vectors.

    Returns:
        (N'+1, V).

    Raises:
        UserError: If the model has per-item parameters, or the vectors come from other weights.
    """
    if options.mode not in ("adapter", "frozen") or not options.is_frozen:
        raise UserError(f"this model has per-item parameters, so it cannot score new items: {ADVICE}")
    trained_on, other = catalogues
    before, now = load(trained_on), load(other)
    place = {raw_id: row for row, raw_id in enumerate(trained_on.item_table()["raw_id"], 1)}
    number = np.array([place.get(raw_id, 0) for raw_id in other.item_table()["raw_id"]])
    if before.shape[1] != now.shape[1] or _differ(before[number[number > 0]], now[1:][number > 0]):
        raise UserError(
            f"the vectors of {other.name} and {trained_on.name} differ where the items are the same: encode both with "
            "the same weights and limits"
        )
    fitted = np.concatenate([occurring | (options.fit_transform == "all"), np.zeros(len(now) - 1, dtype=bool)])
    together, width = np.concatenate([before, now[1:]]), own_table.weight.shape[1]
    transformed = transform_vectors(together, options.init_transform, fitted, width, own_table.std)
    known, new = np.split(transformed, [len(before)])
    if not np.allclose(known, weight.numpy(), rtol=1e-5, atol=1e-6):
        raise UserError(
            f"the vectors of {trained_on.name} are not those of the run's training: encode them again with the same "
            "weights"
        )
    return torch.from_numpy(np.concatenate([known[:1], new]))


def _differ(some: NDArray[Any], others: NDArray[Any]) -> bool:
    """Return whether (n, V) vectors of the same items come from different encoders."""
    return len(some) > 0 and bool(np.median(np.abs(some - others)) > _SAME * np.abs(some).mean())
