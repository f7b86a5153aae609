"""Rank held-out items by dot product, streaming the catalogue, and sum the metrics over users and processes.

Shapes: B users, D width, N items, K sampled negatives, C columns of one chunk. Row i of the item vectors is item i, row
0 is padding and never a candidate. A bias or a temperature is a further column of both sides.

When targets are ranked, the score of a pair is the float32 nearest to its exact dot product. A float32 matrix product
decides pairs that differ clearly from the target's score; the few within its rounding error are recomputed in float64.
Hence the ranks of given vectors do not depend on batch size, chunk size, device or number of processes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.errors import UserError
from seqrec.basics.precision import full_precision
from seqrec.data.dataset import Histories

CHUNK_ELEMENTS = 1 << 21
"""Scores in memory at one time: 8 MiB of float32."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Ranks of B targets."""

    ranks: Tensor
    """(B,) int64, 0-based; a tie counts against the target."""
    num_candidates: Tensor
    """(B,) int64, the target included."""
    tied: Tensor
    """(B,) bool: some other candidate has exactly the target's score."""


def rank_targets(
    user_vectors: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    *,
    negatives: Tensor | None = None,
    seen: tuple[Tensor, Tensor] | None = None,
    extra: tuple[Tensor, Tensor, Tensor] | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> Ranking:
    """Rank each user's target among the whole catalogue, or among sampled negatives.

    Args:
        user_vectors: (B, D) float32.
        item_vectors: (N+1, D) float32.
        targets: (B,) int64 in 1..N.
        negatives: (B, K) int64 items to rank against, 0 for none; None ranks against all items.
        seen: Items that are no candidates, as (S,) int64 rows of the batch and (S,) int64 items; a target stays one.
        extra: What is added to the scores of some pairs, as (P,) rows, (P,) items and (P,) float32; each pair once.
            With `seen`, they are to be among the seen ones.
        chunk_elements: B x C that are held at one time.

    Raises:
        UserError: If a vector is not finite or a score exceeds float32: the model has diverged.
        ValueError: If a target lies outside 1..N.
    """
    _check_finite(user_vectors, item_vectors)
    num_items = len(item_vectors) - 1
    if len(targets) and not 1 <= int(targets.min()) <= int(targets.max()) <= num_items:
        raise ValueError(f"targets must lie in 1..{num_items}, got {int(targets.min())}..{int(targets.max())}")
    user_vectors, item_vectors = user_vectors.detach().float(), item_vectors.detach().float()
    norms = user_vectors.norm(dim=1).double() * item_vectors.norm(dim=1).double().max()
    if len(norms) and float(norms.max()) > torch.finfo(torch.float32).max:
        raise UserError(f"scores may reach {float(norms.max()):.1g}, more than float32 holds: the model has diverged")
    own = _exact_scores(user_vectors, item_vectors[targets])
    if extra is not None:
        own, extra = _add_to_own(own, targets, extra)
    if negatives is not None:
        return _rank_sampled(user_vectors, item_vectors, own, negatives, extra, chunk_elements)
    # Pairs that something is added to are ranked by themselves, if they are candidates at all.
    apart = seen or (None if extra is None else extra[:2])
    if seen is not None and extra is not None:
        apart = torch.cat([seen[0], extra[0]]), torch.cat([seen[1], extra[1]])
    with full_precision(user_vectors.device.type):
        ranking = _rank_all(user_vectors, item_vectors, targets, own, norms.float(), apart, chunk_elements)
    if extra is None or seen is not None:
        return ranking
    return _rank_extra(user_vectors, item_vectors, own, extra, ranking)


def _add_to_own(
    own: Tensor, targets: Tensor, extra: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return the targets' scores with what is added to them, and the other pairs."""
    rows, items, values = extra
    is_target = targets[rows] == items
    own = own.index_add(0, rows[is_target], values[is_target])
    return own, (rows[~is_target], items[~is_target], values[~is_target])


def _rank_extra(
    user_vectors: Tensor, item_vectors: Tensor, own: Tensor, extra: tuple[Tensor, Tensor, Tensor], others: Ranking
) -> Ranking:
    """Return the ranks among the pairs that something is added to, and the others."""
    rows, items, values = extra
    ranks, tied, num_candidates = others.ranks.clone(), others.tied.clone(), others.num_candidates.clone()
    scores = _exact_scores(user_vectors[rows], item_vectors[items]) + values
    ranks.index_add_(0, rows, (scores >= own[rows]).long())
    tied[rows[scores == own[rows]]] = True
    num_candidates.index_add_(0, rows, torch.ones_like(rows))
    return Ranking(ranks, num_candidates, tied)


def leave_out(
    ranking: Ranking,
    user_vectors: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    seen: tuple[Tensor, Tensor],
    extra: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Ranking:
    """Return what `rank_targets` returns with `seen`, from what it returned without: only these pairs are scored.

    The other arguments are those of `rank_targets`; pairs with something `extra` are to be among the seen ones.
    """
    user_vectors, item_vectors = user_vectors.detach().float(), item_vectors.detach().float()
    items, rows = _by_item(seen, len(targets))
    rows, items = rows[items != targets[rows]], items[items != targets[rows]]  # a target stays a candidate
    own = _exact_scores(user_vectors, item_vectors[targets])
    scores = _exact_scores(user_vectors[rows], item_vectors[items])
    if extra is not None:
        own, (extra_rows, extra_items, values) = _add_to_own(own, targets, extra)
        scores = scores + _values_at(rows, items, extra_rows, extra_items, values, len(item_vectors))
    ranks = ranking.ranks.index_add(0, rows, -(scores >= own[rows]).long())
    num_candidates = ranking.num_candidates - torch.bincount(rows, minlength=len(targets))
    tied = ranking.tied.clone()
    doubt = torch.unique(rows[scores == own[rows]])
    if len(doubt):  # whether another candidate has the target's score, too, only a look at all of them tells
        inside = torch.isin(seen[0], doubt)
        pairs = torch.searchsorted(doubt, seen[0][inside]), seen[1][inside]
        if extra is not None:
            inside = torch.isin(extra[0], doubt)
            extra = torch.searchsorted(doubt, extra[0][inside]), extra[1][inside], extra[2][inside]
        tied[doubt] = rank_targets(user_vectors[doubt], item_vectors, targets[doubt], seen=pairs, extra=extra).tied
    return Ranking(ranks, num_candidates, tied)


def _values_at(
    rows: Tensor, items: Tensor, extra_rows: Tensor, extra_items: Tensor, values: Tensor, height: int
) -> Tensor:
    """Return what is added to the scores of some pairs, of any shape, 0 for most; each extra pair comes once."""
    if not len(values):
        return torch.zeros_like(items, dtype=torch.float32)
    keys, order = (extra_rows * height + extra_items).sort()
    asked = rows * height + items
    place = torch.searchsorted(keys, asked).clamp(max=len(keys) - 1)
    return values[order][place] * (keys[place] == asked)


def rank_scores(
    scores: Tensor, targets: Tensor, *, negatives: Tensor | None = None, seen: tuple[Tensor, Tensor] | None = None
) -> Ranking:
    """Rank each user's target by scores that are no dot products, otherwise as `rank_targets` does.

    Args:
        scores: (B, N+1), column i for item i.
        targets: (B,) int64 in 1..N.
        negatives: (B, K) int64 items to rank against, 0 for none; None ranks against all items.
        seen: Items that are no candidates, as (S,) int64 rows of the batch and (S,) int64 items; a target stays one.

    Raises:
        UserError: If a score is not finite.
    """
    _check_finite(scores)
    own = scores.gather(1, targets[:, None])
    if negatives is not None:
        others = scores.gather(1, negatives).masked_fill(negatives == 0, -torch.inf)
    else:
        others = _candidates(scores, seen).scatter(1, targets[:, None], -torch.inf)
    return Ranking(
        ranks=(others >= own).sum(dim=1),
        num_candidates=(others > -torch.inf).sum(dim=1) + 1,
        tied=(others == own).any(dim=1),
    )


def rank_few(
    pairs: tuple[Tensor, Tensor, Tensor],
    others: Tensor,
    targets: Tensor,
    *,
    seen: tuple[Tensor, Tensor] | None = None,
) -> Ranking:
    """Rank each user's target by scores of which few are the user's own, as `rank_scores` does of all of them.

    It takes time in proportion to the pairs, not to users times items: where an item's score is the same for all users,
    a lookup among these counts it.

    Args:
        pairs: (P,) int64 rows of the batch, (P,) int64 items and (P,) their scores; each pair once, row after row and
            item after item.
        others: (N+1,) the score of each item where no pair says otherwise.
        targets: (B,) int64 in 1..N.
        seen: Items that are no candidates, as (S,) int64 rows of the batch and (S,) int64 items; a target stays one.

    Raises:
        UserError: If a score is not finite.
    """
    rows, items, scores = pairs
    _check_finite(scores, others)
    height = len(others)
    keys = rows * height + items
    own_keys = torch.arange(len(targets), device=targets.device) * height + targets
    place, is_pair = _find(own_keys, keys)
    own = others[targets]
    own[is_pair] = scores[place[is_pair]]
    # All items as if no pair said anything; less those of which one does, the target and the seen ones; then the pairs.
    ascending = others[1:].sort().values
    as_good = len(ascending) - torch.searchsorted(ascending, own)
    equal = torch.searchsorted(ascending, own, right=True) - torch.searchsorted(ascending, own)
    out = own_keys if seen is None else torch.unique(torch.cat([own_keys, seen[0] * height + seen[1]]))
    out = out[out % height > 0]
    place, is_pair = _find(out, keys)
    real = items > 0
    kept = real.index_fill(0, place[is_pair], False)
    alone = out[~is_pair]
    for sign, found, whose in (
        (-1, others[items[real]], rows[real]),
        (-1, others[alone % height], alone // height),
        (1, scores[kept], rows[kept]),
    ):
        as_good.index_add_(0, whose, sign * (found >= own[whose]).long())
        equal.index_add_(0, whose, sign * (found == own[whose]).long())
    return Ranking(as_good, height - torch.bincount(out // height, minlength=len(targets)), equal > 0)


def _find(asked: Tensor, ascending: Tensor) -> tuple[Tensor, Tensor]:
    """Return where numbers stand among ascending ones, and whether they do."""
    place = torch.searchsorted(ascending, asked)
    is_there = place < len(ascending)
    is_there[is_there.clone()] = ascending[place[is_there]] == asked[is_there]
    return place, is_there


def rank_listed(scores: Tensor, lengths: Tensor, relevant: Tensor) -> Ranking:
    """Rank the relevant candidates of users who have candidates of their own, several of which may be relevant.

    An equal score counts against a relevant candidate, unless the other one is relevant, too.

    Args:
        scores: (T,) of the candidates, user after user.
        lengths: (B,) int64 candidates of each user.
        relevant: (T,) bool.

    Raises:
        UserError: If a score is not finite.

    Returns:
        Of the relevant ones in their order: the rank counts all other candidates of the user.
    """
    _check_finite(scores)
    owner = torch.repeat_interleave(lengths)
    order = torch.argsort(relevant.int(), stable=True)
    order = order[torch.argsort(scores[order], descending=True, stable=True)]
    order = order[torch.argsort(owner[order], stable=True)]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - (lengths.cumsum(0) - lengths)[owner[order]]
    _, value = torch.stack([owner.double(), scores.double()], dim=1).unique(dim=0, return_inverse=True)
    among = torch.bincount(value) - torch.bincount(value, relevant.double()).long()  # others of that score
    return Ranking(place[relevant], lengths[owner[relevant]], among[value[relevant]] > 0)


def top_scores(
    scores: Tensor, k: int, seen: tuple[Tensor, Tensor] | None = None, hidden: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return each user's items of highest score, as `top_items` does.

    Args:
        scores: (B, N+1).
        k: Number of items; at most N.
        seen: Items that are no candidates, as (S,) int64 rows of the batch and (S,) int64 items.
        hidden: (B, N+1) or (N+1,) bool, whether an item is none, either.
    """
    _check_finite(scores)
    scores = _candidates(scores, seen)
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
    best, items = scores.topk(min(k, scores.shape[1] - 1), dim=1)
    return items.masked_fill(best == -torch.inf, 0), best.float()


def _candidates(scores: Tensor, seen: tuple[Tensor, Tensor] | None) -> Tensor:
    """Return the (B, N+1) scores, -inf for padding and for items that are no candidates."""
    scores = scores.clone()
    scores[:, 0] = -torch.inf
    if seen is not None:
        scores[seen[0], seen[1]] = -torch.inf
    return scores


def _check_finite(*tensors: Tensor) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise UserError("vectors or scores contain NaN or infinity: the model has diverged; try a lower --lr")


def _exact_scores(user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
    """Return the dot product of rows (..., D), accurate to the last bit of float32."""
    return (user_vectors.double() * item_vectors.double()).sum(dim=-1).float()


def _rank_sampled(
    user_vectors: Tensor,
    item_vectors: Tensor,
    own: Tensor,
    negatives: Tensor,
    extra: tuple[Tensor, Tensor, Tensor] | None,
    chunk_elements: int,
) -> Ranking:
    step = max(1, chunk_elements // (negatives.shape[1] * item_vectors.shape[1]))
    parts = [
        _exact_scores(user_vectors[i : i + step, None], item_vectors[negatives[i : i + step]])
        for i in range(0, len(own), step)
    ]
    scores = torch.cat(parts) if parts else own.new_zeros(0, negatives.shape[1])
    if extra is not None:
        every = torch.arange(len(negatives), device=own.device)[:, None]
        scores = scores + _values_at(every, negatives, *extra, len(item_vectors))
    scores = scores.masked_fill(negatives == 0, -torch.inf)
    return Ranking(
        ranks=(scores >= own[:, None]).sum(dim=1),
        num_candidates=(negatives > 0).sum(dim=1) + 1,
        tied=(scores == own[:, None]).any(dim=1),
    )


def _rank_all(
    user_vectors: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    own: Tensor,
    norms: Tensor,
    seen: tuple[Tensor, Tensor] | None,
    chunk_elements: int,
) -> Ranking:
    num_users, width = user_vectors.shape
    num_items = len(item_vectors) - 1
    ranks = torch.zeros_like(targets)
    tied = torch.zeros_like(targets, dtype=torch.bool)
    num_candidates = torch.full_like(targets, num_items)
    if seen is not None:
        seen_items, seen_rows = _by_item(seen, num_users)
        keep = targets[seen_rows] != seen_items  # a target stays a candidate
        seen_items, seen_rows = seen_items[keep], seen_rows[keep]
        num_candidates = num_candidates - torch.bincount(seen_rows, minlength=num_users)
    # The rounding error of a float32 dot product of width D: a random walk of D steps, with room to spare; and what
    # products too small for float32 lose.
    float32 = torch.finfo(torch.float32)
    margin = 4 * width**0.5 * float32.eps * norms + width * float32.tiny
    step = max(1, chunk_elements // max(num_users, 1))
    for start in range(1, num_items + 1, step):
        stop = min(start + step, num_items + 1)
        candidates = item_vectors[start:stop].T
        scores = user_vectors @ candidates if width > 1 else user_vectors * candidates  # (B, C)
        if seen is not None:
            _leave_out(scores, seen_items, seen_rows, start)
        inside = ((targets >= start) & (targets < stop)).nonzero()[:, 0]
        scores[inside, targets[inside] - start] = -torch.inf
        lead = scores.sub_(own[:, None])
        if width == 1:
            # A single product is rounded once, so nothing is left in doubt, however many items tie.
            ranks += (lead >= 0).sum(dim=1)
            tied |= (lead == 0).any(dim=1)
            continue
        # Counting in float32 is several times as fast as through booleans: of C signs that are all 1 or -1,
        # (C + their sum) / 2 are 1; and float32 counts to 2^24 without an error.
        above = ((lead.sign().sum(dim=1) + lead.shape[1]) / 2).long()
        near_rows = (lead.abs().amin(dim=1) <= margin).nonzero()[:, 0]
        if len(near_rows):
            near = lead[near_rows]
            above[near_rows] = (near > margin[near_rows, None]).sum(dim=1)
            row, column = (near.abs() <= margin[near_rows, None]).nonzero(as_tuple=True)
            _count_near(user_vectors, item_vectors, own, near_rows[row], column + start, ranks, tied)
        ranks += above
    return Ranking(ranks, num_candidates, tied)


def _by_item(seen: tuple[Tensor, Tensor], num_users: int) -> tuple[Tensor, Tensor]:
    """Return (S,) items and (S,) rows of the pairs, each once and sorted by item: a chunk's pairs are one stretch."""
    pairs = torch.unique(seen[1] * num_users + seen[0])
    return pairs // max(num_users, 1), pairs % max(num_users, 1)


def _leave_out(scores: Tensor, seen_items: Tensor, seen_rows: Tensor, start: int) -> None:
    """Set the (B, C) scores of a chunk's seen pairs to -inf, in place; its first column is item `start`."""
    bounds = torch.tensor([start, start + scores.shape[1]], device=seen_items.device)
    a, b = torch.searchsorted(seen_items, bounds).tolist()
    scores[seen_rows[a:b], seen_items[a:b] - start] = -torch.inf


def top_items(
    user_vectors: Tensor,
    item_vectors: Tensor,
    k: int,
    seen: tuple[Tensor, Tensor] | None = None,
    hidden: Tensor | None = None,
    extra: tuple[Tensor, Tensor, Tensor] | None = None,
    chunk_elements: int = CHUNK_ELEMENTS,
) -> tuple[Tensor, Tensor]:
    """Return each user's items of highest score, best first, without a (users x items) matrix.

    Scores are those of a float32 product: items that it takes for equal come in no particular order.

    Args:
        user_vectors: (B, D) float32.
        item_vectors: (N+1, D) float32.
        k: Number of items; at most N.
        seen: Items that are no candidates, as (S,) int64 rows of the batch and (S,) int64 items.
        hidden: (N+1,) bool, whether an item is a candidate for nobody.
        extra: What is added to the scores of some pairs, see `rank_targets`.
        chunk_elements: B x C that are held at one time.

    Raises:
        UserError: If a vector is not finite.

    Returns:
        (B, k) int64 items and (B, k) float32 scores; where a user has fewer than k candidates, item 0 with score -inf.
    """
    _check_finite(user_vectors, item_vectors)
    user_vectors, item_vectors = user_vectors.detach().float(), item_vectors.detach().float()
    num_users, num_items = len(user_vectors), len(item_vectors) - 1
    k = min(k, num_items)
    best = user_vectors.new_full((num_users, k), -torch.inf)
    items = torch.zeros_like(best, dtype=torch.int64)
    seen_items, seen_rows = (None, None) if seen is None else _by_item(seen, num_users)
    step = max(1, chunk_elements // max(num_users, 1))
    with full_precision(user_vectors.device.type):
        for start in range(1, num_items + 1, step):
            scores = user_vectors @ item_vectors[start : start + step].T
            if extra is not None:
                inside = (extra[1] >= start) & (extra[1] < start + step)
                rows, columns, values = (x[inside] for x in extra)
                scores.index_put_((rows, columns - start), values, accumulate=True)
            if seen_items is not None and seen_rows is not None:
                _leave_out(scores, seen_items, seen_rows, start)
            if hidden is not None:
                scores.masked_fill_(hidden[start : start + step], -torch.inf)
            scores, columns = scores.topk(min(k, scores.shape[1]), dim=1)
            best, place = torch.cat([best, scores], dim=1).topk(k, dim=1)
            items = torch.cat([items, columns + start], dim=1).gather(1, place)
    return items.masked_fill(best == -torch.inf, 0), best


def _count_near(
    user_vectors: Tensor,
    item_vectors: Tensor,
    own: Tensor,
    rows: Tensor,
    items: Tensor,
    ranks: Tensor,
    tied: Tensor,
) -> None:
    """Decide pairs too close for float32 in float64, adding to `ranks` and `tied`."""
    step = max(1, CHUNK_ELEMENTS // user_vectors.shape[1])
    for i in range(0, len(rows), step):
        row, item = rows[i : i + step], items[i : i + step]
        exact = _exact_scores(user_vectors[row], item_vectors[item])
        ranks.index_add_(0, row, (exact >= own[row]).long())
        tied[row[exact == own[row]]] = True


def seen_pairs(histories: Histories, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return the items in the whole histories of some rows as (S,) batch rows and (S,) items, for `rank_targets`."""
    items, offsets = histories.gather(rows, int(max(histories.lengths[rows].max(initial=1), 1)))
    return torch.from_numpy(np.repeat(np.arange(len(rows)), np.diff(offsets))), torch.from_numpy(items)
