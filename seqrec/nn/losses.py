"""Losses over the catalogue. Shapes: T positions, D width, N items, K negatives.

Row i of all N+1 item vectors is item i; row 0 is padding and never a class. A sampled loss needs only the vectors of
the items that it names: M rows, each of another item. Cosine scores and temperatures are applied by the caller to the
vectors; a bias is a further column of both sides.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seqrec.basics.checks import require_above, require_at_least
from seqrec.basics.errors import UserError

Loss = Literal["ce", "sampled_softmax", "nce", "gbce", "bce"]
NegativeSource = Literal["uniform", "popularity", "in_batch", "mixed"]
BLOCK_ELEMENTS = 1 << 23
"""Logits in memory at one time: 32 MiB of float32."""
_CPU_ELEMENTS, _CPU_HALVES = 1 << 19, 1 << 22
"""On a CPU, fewer: each logit is read five times, and 2 MiB fit the cores' caches. In bfloat16 every product first puts
the item vectors in another order, which pays with many rows."""
_MIN_ROWS, _ROWS = 64, 1024
"""Fewest positions per block: with one block of columns, and with several."""
_ROWS_TOGETHER = 64
_SAFE_EXPONENT = 86.0
_LEAST_EXPONENT = -64.0
"""Of a score less the largest: lower ones change no sum, and near 2^-126 a processor takes up to 50 times as long."""
_LOG2_E = 1.4426950408889634
"""Scores are kept in base 2: on processors exp2 takes down to a third of the time that exp takes."""
_OWN = {
    "num_negatives": ("sampled_softmax", "nce", "gbce"),
    "negatives": ("sampled_softmax",),
    "nce_thres": ("nce",),
    "gbce_t": ("gbce",),
}
"""Losses that an option applies to, where not all."""


@dataclass(frozen=True, slots=True)
class LossOptions:
    """Training loss options; independent of how evaluation ranks."""

    loss: Loss = "ce"
    """Loss: ce (softmax over all items), sampled_softmax, nce (the same without its correction and without negatives
    that equal the target), gbce (calibrated) or bce (binary cross-entropy)."""
    num_negatives: int = 256
    """Negatives per batch, for sampled_softmax, nce and gbce."""
    negatives: NegativeSource = "uniform"
    """Negatives of sampled_softmax: uniform, popularity, in_batch (the batch's other targets) or mixed (in_batch and
    uniform)."""
    nce_thres: float = 0.99
    """Under nce, a negative whose cosine with the target exceeds this is left out."""
    gbce_t: float = 0.75
    """Calibration of gbce: 0 is plain binary cross-entropy with several negatives, 1 undoes the sampling's bias."""
    temp: float | None = None
    """Temperature: scores are cosines divided by it, in training and in use. Dot products if not given."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "num_negatives")
        require_above(0, self, "temp")
        if not -1 <= self.nce_thres <= 1:
            raise UserError(f"--nce_thres must lie in [-1, 1], got {self.nce_thres}")
        if not 0 <= self.gbce_t <= 1:
            raise UserError(f"--gbce_t must lie in [0, 1], got {self.gbce_t}")
        for option in fields(self):
            value, losses = getattr(self, option.name), _OWN.get(option.name, (self.loss,))
            if value != option.default and self.loss not in losses:
                told = " and ".join(losses).replace(" and ", ", ", len(losses) - 2)
                raise UserError(f"--{option.name} {value} is for --loss {told}, not {self.loss}")
            if value != option.default and option.name == "num_negatives" and self.negatives == "in_batch":
                raise UserError(f"--num_negatives {value} is not for --negatives in_batch, which draws none")

    @property
    def needs_popularity(self) -> bool:
        """Return whether negatives are drawn by how often items occur."""
        return self.loss == "sampled_softmax" and self.negatives != "uniform"

    @property
    def needs_targets(self) -> bool:
        """Return whether a batch's targets are its negatives too."""
        return self.loss == "sampled_softmax" and self.negatives in ("in_batch", "mixed")


def check_repeat_score(asked: bool, options: LossOptions) -> None:
    """Refuse --repeat_score where a loss does not tell all items apart.

    Raises:
        UserError: If it is asked for with such a loss.
    """
    if asked and options.loss != "ce":
        raise UserError(f"--repeat_score is for --loss ce, which tells all items apart, not {options.loss}")


def catalogue_loss(
    options: LossOptions,
    hidden: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    negatives: Tensor,
    log_chance: Tensor,
    num_items: int,
    extra: "Extra | None" = None,
) -> Tensor:
    """Return the loss that the options name; for the arguments see the functions below, `extra` is for `ce` alone."""
    if options.loss == "ce":
        return full_softmax(hidden, item_vectors, targets, extra=extra)
    if options.loss == "bce":
        return binary_cross_entropy(hidden, item_vectors, targets, negatives)
    if options.loss == "gbce":
        return calibrated_cross_entropy(hidden, item_vectors, targets, negatives, num_items, options.gbce_t)
    if options.loss == "nce":
        return noise_contrastive(hidden, item_vectors, targets, negatives, options.nce_thres)
    return sampled_softmax(hidden, item_vectors, targets, negatives, log_chance)


class Extra(NamedTuple):
    """What is added to the scores of some pairs of a position and an item; a pair may come several times."""

    rows: Tensor
    """(P,) int64 positions, ascending."""
    items: Tensor
    """(P,) int64 in 1..N."""
    values: Tensor
    """(P,) float32."""


def full_softmax(
    hidden: Tensor,
    item_vectors: Tensor,
    targets: Tensor,
    block_elements: int = BLOCK_ELEMENTS,
    extra: Extra | None = None,
) -> Tensor:
    """Return the mean cross-entropy of the softmax over all items, exact, without a (T, N) matrix.

    Args:
        hidden: (T, D) what each position predicts with; T at least 1.
        item_vectors: (N+1, D).
        targets: (T,) int64 in 1..N.
        block_elements: Logits held at one time; memory is this plus the gradients of both arguments.
        extra: Added to some scores; its values get a gradient, too.

    Under autocast to bfloat16 the three products of matrices are in bfloat16, logits and their exponentials are kept in
    it, and sums are float32.

    Returns:
        Scalar float32: mean over t of logsumexp_i(s_ti) - s_t,target, where s_ti = h_t . v_i + extra.

    Raises:
        UserError: If there is no position.
    """
    if not len(targets):
        raise UserError("the softmax needs at least one position; every training sequence has fewer than 2 items")
    device = hidden.device.type
    dtype = torch.promote_types(hidden.dtype, item_vectors.dtype)
    if torch.is_autocast_enabled(device):
        # Half precision ends at 65,504, and exponentials don't: with it the softmax stays in float32.
        lower = torch.get_autocast_dtype(device)
        dtype = torch.float32 if lower == torch.float16 else lower
    pairs = (None, None, None) if extra is None else extra
    with torch.autocast(device, enabled=False):
        loss: Tensor = _FullSoftmax.apply(hidden, item_vectors, targets, block_elements, dtype, *pairs)
    return loss


def _cut(count: int, classes: Tensor, block_elements: int) -> tuple[int, int, list[slice]]:
    """Return the rows of a block of logits and of all, and a block's columns: all items, if that leaves enough rows."""
    halves, num_items = classes.dtype == torch.bfloat16, len(classes)
    on_cpu = _CPU_HALVES if halves else _CPU_ELEMENTS
    elements = min(on_cpu, block_elements) if classes.device.type == "cpu" else block_elements
    rows, columns = max(_MIN_ROWS, elements // num_items), num_items
    if rows * num_items > block_elements:
        rows = min(count, _ROWS)
        columns = max(1, block_elements // rows)
    total = count
    if halves:
        # A processor's products in half precision are compiled anew for every number of rows: let there be few.
        number = -(-count // rows)
        rows = -(-count // (number * _ROWS_TOGETHER)) * _ROWS_TOGETHER
        total = number * rows
    return rows, total, [slice(c, min(c + columns, num_items)) for c in range(0, num_items, columns)]


class _FullSoftmax(torch.autograd.Function):
    """Softmax cross-entropy block by block; gradients are computed while a block's probabilities are in memory.

    With one block of columns (small catalogues) each logit is computed once; with several, twice: first for the
    normaliser, then for the gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        items: Tensor,
        targets: Tensor,
        block_elements: int,
        dtype: torch.dtype,
        extra_rows: Tensor | None,
        extra_items: Tensor | None,
        extra_values: Tensor | None,
    ) -> Tensor:
        with_gradient = any(ctx.needs_input_grad)
        own = items.detach()[targets].float()
        count, classes = len(targets), items.detach()[1:].to(dtype)
        rows, padded, blocks = _cut(count, classes, block_elements)
        h = F.pad(hidden.detach().to(dtype), (0, 0, 0, padded - count))
        extra = None
        if extra_rows is not None and extra_items is not None and extra_values is not None:
            extra = Extra(extra_rows, extra_items - 1, extra_values.detach().float() * _LOG2_E)
        base_2 = F.pad((hidden.detach() * _LOG2_E).to(dtype), (0, 0, 0, padded - count))
        # No shift is needed where no exponent can overflow: |h . v| <= |h| |v|.
        most = (base_2.norm(dim=1).max() * classes.norm(dim=1).max()).float()
        if extra is not None and len(extra.values):
            most = most + most.new_zeros(count).index_add_(0, extra.rows, extra.values.abs()).max()
        scores = _Scores(base_2, classes, extra, bool(most > _SAFE_EXPONENT))
        log_mass = torch.empty(padded, dtype=torch.float32, device=h.device)
        own_scores = (hidden.detach().float() * own).sum(dim=1)
        hidden_grad = torch.empty_like(h, dtype=torch.float32) if with_gradient else None
        item_grad = torch.zeros_like(items, dtype=torch.float32) if with_gradient else None
        extra_grad = None
        if extra is not None:
            is_own = extra.items + 1 == targets[extra.rows]
            own_scores.index_add_(0, extra.rows, extra.values * is_own, alpha=1 / _LOG2_E)
            extra_grad = is_own / -count
        for part in (slice(start, min(start + rows, padded)) for start in range(0, padded, rows)):
            shift, mass, weights = scores.normaliser(part, blocks)
            log_mass[part] = mass.log() if shift is None else mass.log().add_(shift, alpha=1 / _LOG2_E)
            if hidden_grad is None or item_grad is None:
                continue
            share = (mass * count).reciprocal_()[:, None]
            scaled = h[part] * share.to(h.dtype)
            for number, block in enumerate(blocks):
                w = weights if len(blocks) == 1 else scores.exponentials(part, block, shift)
                if extra_grad is not None:
                    pairs, row, column = scores.pairs(part, block)
                    extra_grad[pairs] += w[row, column] * share[row, 0]
                if number:
                    hidden_grad[part] += w @ classes[block]
                else:
                    hidden_grad[part] = w @ classes[block]
                inside = item_grad[block.start + 1 : block.stop + 1]
                if h.dtype == torch.float32:
                    inside.addmm_(w.T, scaled)
                else:
                    inside += w.T @ scaled
            hidden_grad[part] *= share
        if hidden_grad is not None and item_grad is not None:
            hidden_grad = hidden_grad[:count].sub_(own, alpha=1 / count)
            item_grad.index_add_(0, targets, hidden.detach().float(), alpha=-1 / count)
            ctx.save_for_backward(hidden_grad.to(hidden.dtype), item_grad.to(items.dtype), extra_grad)
        return (log_mass[:count] - own_scores).double().mean().float()

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        hidden_grad, item_grad, extra_grad = ctx.saved_tensors
        upstream = grad_outputs[0]
        need_hidden, need_items = ctx.needs_input_grad[:2]
        return (
            hidden_grad * upstream if need_hidden else None,
            item_grad * upstream if need_items else None,
            *(None,) * 5,
            extra_grad * upstream if ctx.needs_input_grad[7] else None,
        )


class _Scores(NamedTuple):
    """The scores of positions and classes in base 2, and their powers, some rows and columns at a time."""

    h: Tensor
    classes: Tensor
    extra: Extra | None
    """Its items count from 0."""
    shift_needed: bool

    def pairs(self, part: slice, block: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return which extra pairs lie in some rows and columns, and where in these."""
        assert self.extra is not None
        bounds = torch.tensor([part.start, part.stop], device=self.h.device)
        first, stop = torch.searchsorted(self.extra.rows, bounds).tolist()
        items = self.extra.items[first:stop]
        inside = ((items >= block.start) & (items < block.stop)).nonzero()[:, 0] + first
        return inside, self.extra.rows[inside] - part.start, self.extra.items[inside] - block.start

    def logits(self, part: slice, block: slice) -> Tensor:
        """Return (rows, columns) scores."""
        logits = self.h[part] @ self.classes[block].T
        if self.extra is not None:
            pairs, row, column = self.pairs(part, block)
            logits.index_put_((row, column), self.extra.values[pairs].to(logits.dtype), accumulate=True)
        return logits

    def exponentials(self, part: slice, block: slice, shift: Tensor | None) -> Tensor:
        """Return 2^(score - shift), (rows, columns)."""
        logits = self.logits(part, block)
        return (logits if shift is None else _lower(logits, shift)).exp2_()

    def normaliser(self, part: slice, blocks: list[slice]) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return each row's shift, its sum of shifted exponentials, and the exponentials of the last block."""
        if not self.shift_needed:
            mass = torch.zeros(part.stop - part.start, device=self.h.device)
            for block in blocks:
                weights = self.exponentials(part, block, None)
                mass += _sum_rows(weights)
            return None, mass, weights
        if len(blocks) == 1:
            logits = self.logits(part, blocks[0])
            shift = logits.amax(dim=1)
            weights = _lower(logits, shift).exp2_()
            return shift.float(), _sum_rows(weights), weights
        shift = torch.full((part.stop - part.start,), -torch.inf, device=self.h.device)
        mass = torch.zeros_like(shift)
        for block in blocks:
            logits = self.logits(part, block)
            higher = torch.maximum(shift, logits.amax(dim=1).float())
            weights = _lower(logits, higher).exp2_()
            mass = mass * (shift - higher).exp2() + _sum_rows(weights)
            shift = higher
        return shift, mass, weights


def _lower(logits: Tensor, shift: Tensor) -> Tensor:
    """Return (rows, columns) logits less the (rows,) shift, in place, and none so low that it is slow."""
    return logits.sub_(shift[:, None]).clamp_min_(_LEAST_EXPONENT)


def _sum_rows(weights: Tensor) -> Tensor:
    """Return (rows,) float32 sums of (rows, columns) weights.

    A processor that is asked for a float32 sum of bfloat16 copies all first, so these are summed in 64 parts, which are
    rounded to bfloat16 one by one.
    """
    if weights.dtype == torch.float32:
        return weights.sum(dim=1)
    length = weights.shape[1] // 64
    even, rest = weights.tensor_split([64 * length], dim=1)
    parts = torch.cat([even.unflatten(1, (64, length)).sum(dim=2), rest], dim=1)
    return parts.sum(dim=1, dtype=torch.float32)


def sampled_softmax(
    hidden: Tensor, item_vectors: Tensor, targets: Tensor, negatives: Tensor, log_chance: Tensor
) -> Tensor:
    """Return the mean cross-entropy of each target against negatives that the whole batch shares.

    A negative that is the position's own target is left out. The logarithm of the chance that an item is drawn at all
    is taken from its score, so that the sum of exponentials estimates the full softmax's without bias.

    Args:
        hidden: (T, D).
        item_vectors: (M, D).
        targets: (T,) int64 rows of the item vectors.
        negatives: (K,) distinct int64 rows.
        log_chance: (K,) logarithm of the chance that a batch's negatives hold the item.

    Source: Bengio & Senécal (2008), https://doi.org/10.1109/TNN.2007.912312; in-batch negatives as in Yi et al. (2019),
    https://doi.org/10.1145/3298689.3346996.
    """
    own, scores = _scores(hidden, item_vectors, targets, negatives)
    return F.cross_entropy(torch.cat([own[:, None], scores - log_chance], dim=1), torch.zeros_like(targets))


def noise_contrastive(
    hidden: Tensor, item_vectors: Tensor, targets: Tensor, negatives: Tensor, threshold: float
) -> Tensor:
    """Return the mean cross-entropy of each target against shared negatives but those that are nearly the target.

    Args:
        hidden: (T, D).
        item_vectors: (M, D).
        targets: (T,) int64 rows of the item vectors.
        negatives: (K,) distinct int64 rows.
        threshold: A negative is left out where its cosine with the target exceeds it, and where it is the target.

    Source: InfoNCE, van den Oord et al. (2018), https://arxiv.org/abs/1807.03748, as HLLM has it,
    https://arxiv.org/abs/2409.12740.
    """
    own, scores = _scores(hidden, item_vectors, targets, negatives)
    with torch.no_grad():
        units = F.normalize(F.embedding(torch.cat([targets, negatives]), item_vectors).float(), dim=1)
        own_units, others = units.split([len(targets), len(negatives)])
        is_same = own_units @ others.T > threshold
    scores = scores.masked_fill(is_same, -torch.inf)
    return F.cross_entropy(torch.cat([own[:, None], scores], dim=1), torch.zeros_like(targets))


def calibrated_cross_entropy(
    hidden: Tensor, item_vectors: Tensor, targets: Tensor, negatives: Tensor, num_items: int, t: float
) -> Tensor:
    """Return gBCE: mean binary cross-entropy of each target and K negatives, the target's probability to the power b.

    With a = K / (N - 1) and b = a (t (1 - 1/a) + 1/a), the loss of a position is
    -(log sigmoid(own)^b + sum over negatives of log(1 - sigmoid(score))) / (K + 1).

    Args:
        hidden: (T, D).
        item_vectors: (M, D).
        targets: (T,) int64 rows of the item vectors.
        negatives: (K,) distinct int64 rows, drawn uniformly from the catalogue and shared by all positions; a position
            leaves out the one that is its own target.
        num_items: N.
        t: Calibration in [0, 1].

    Source: Petrov & Macdonald (2023), https://doi.org/10.1145/3604915.3608783.
    """
    own, scores = _scores(hidden, item_vectors, targets, negatives)
    rate = len(negatives) / max(1, num_items - 1)
    power = rate * (t * (1 - 1 / rate) + 1 / rate)
    losses = power * F.softplus(-own) + F.softplus(scores).sum(dim=1)
    return losses.mean() / (len(negatives) + 1)


def _scores(hidden: Tensor, item_vectors: Tensor, targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Return (T,) the targets' scores and (T, K) the negatives', float32, -inf where a negative is the own target."""
    # One lookup for both: the gradient of each has a row per item.
    read = F.embedding(torch.cat([targets, negatives]), item_vectors)
    own_vectors, others = read.split([len(targets), len(negatives)])
    scores = (hidden @ others.T).float()
    ascending, order = negatives.sort()
    place = torch.searchsorted(ascending, targets).clamp_(max=len(negatives) - 1)
    is_own = ascending[place] == targets
    penalty = torch.zeros_like(scores[:, 0]).masked_fill_(is_own, -torch.inf)
    scores = scores.scatter_add(1, order[place][:, None], penalty[:, None])
    return (hidden * own_vectors).sum(dim=1).float(), scores


def binary_cross_entropy(hidden: Tensor, item_vectors: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of each target and one negative.

    Args:
        hidden: (T, D).
        item_vectors: (M, D).
        targets: (T,) int64 rows of the item vectors.
        negatives: (T,) int64 rows, items that the user did not interact with.

    Source: Kang & McAuley (2018), equation 7, https://doi.org/10.1109/ICDM.2018.00035.
    """
    positive, negative = (hidden * F.embedding(torch.stack([targets, negatives]), item_vectors)).sum(dim=2).float()
    return F.softplus(-positive).mean() + F.softplus(negative).mean()
