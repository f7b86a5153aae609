"""Items that came after training: the given vectors of another catalogue, as a trained model reads them.

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
"""Median difference of the same item's vectors in two files, relative to their entries, up to which they are alike."""


def read_new_items(
    options: TableOptions,
    load: Callable[[Dataset], NDArray[np.float32]],
    occurring: NDArray[np.bool_],
    catalogues: tuple[Dataset, Dataset],
    weight: Tensor,
    own_table: ItemTable,
) -> Tensor:
    """Return the given vectors of another catalogue, transformed by the statistics of training.

    Args:
        options: How vectors entered the model.
        load: Returns a catalogue's vectors as they were given.
        occurring: (N+1,) whether an item has a training interaction.
        catalogues: The one that was trained on, and the other.
        weight: (N+1, V) of the model, to which the same must lead from the vectors of the former.
        own_table: What the model would have without given vectors.

    Returns:
        (N'+1, V).

    Raises:
        UserError: If the model has learnt something of each item, or the vectors come from other weights.
    """
    if options.mode not in ("adapter", "frozen") or not options.is_frozen:
        raise UserError(f"this model has learnt something of each item, of which new ones have nothing: {ADVICE}")
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
            f"the vectors of {trained_on.name} are not those that the run was trained with: encode them again with the "
            "weights of then"
        )
    return torch.from_numpy(np.concatenate([known[:1], new]))


def _differ(some: NDArray[Any], others: NDArray[Any]) -> bool:
    """Return whether (n, V) vectors of the same items are of different making."""
    return len(some) > 0 and bool(np.median(np.abs(some - others)) > _SAME * np.abs(some).mean())
