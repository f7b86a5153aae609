"""The losses of alignment (Zheng et al., 2024, section 3.2). Shapes: B users of this process, G of all, D width.

Vectors have length 1, and a product of two is their cosine. Deviation: users whose target is the same are no negatives
of one another where targets are compared.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def contrast(own: Tensor, others: Tensor, first: int, temperature: float, hidden: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of telling each user's partner from those of the others.

    Args:
        own: (B, D).
        others: (G, D) partners; that of user i is row first + i.
        first: Where this process's begin.
        temperature: Cosines are divided by it.
        hidden: Partners that do not count, bool, broadcastable to (B, G); a user's own does in any case.
    """
    logits = own @ others.T / temperature
    places = torch.arange(first, first + len(own), device=own.device)
    if hidden is not None:
        logits = logits.masked_fill(hidden.expand_as(logits).scatter(1, places[:, None], False), -torch.inf)
    return F.cross_entropy(logits, places)


def prefer(user: Tensor, first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Return the mean cross-entropy of telling a user's `first` vector from the `second`, all (B, D)."""
    margin = (user * (first - second)).sum(dim=1) / temperature
    return F.softplus(-margin).mean()
