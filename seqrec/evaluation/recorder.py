"""The ranks of all targets, and their metrics over users and processes. Shapes: B of n targets."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.errors import UserError
from seqrec.data.protocol import KS
from seqrec.evaluation.metrics import auc_by_user, join_by_user, mean_by_user, measure
from seqrec.evaluation.ranking import Ranking


@dataclass(slots=True)
class RankRecorder:
    """Collects the ranks of n targets and computes their metrics over all processes."""

    ks: tuple[int, ...] = KS
    joint: bool = False
    """Whether all targets of a user are relevant at once; otherwise the user counts with the mean over them."""
    users: NDArray[np.int64] = field(init=False)
    """(n,) user of each target."""
    ranks: NDArray[np.int64] = field(init=False)
    """(n,) 0-based rank, -1 where none was recorded."""
    candidates: NDArray[np.int64] = field(init=False)
    tied: NDArray[np.int64] = field(init=False)

    def expect(self, users: NDArray[np.int64]) -> None:
        """Forget everything recorded, and record targets of (n,) users."""
        self.users = users
        self.ranks = np.full(len(users), -1, dtype=np.int64)
        self.candidates = np.zeros(len(users), dtype=np.int64)
        self.tied = np.zeros(len(users), dtype=np.int64)

    def add(self, rows: Tensor, ranking: Ranking) -> None:
        """Record the ranking of (B,) of the targets."""
        places = rows.cpu().numpy()
        self.ranks[places] = ranking.ranks.cpu().numpy()
        self.candidates[places] = ranking.num_candidates.cpu().numpy()
        self.tied[places] = ranking.tied.cpu().numpy()

    def compute(self, device: torch.device | str = "cpu") -> dict[str, float]:
        """Return the mean of every metric over the users of all processes, with their number and the share tied.

        A user of several targets counts once.

        Raises:
            UserError: If there is no target.
            RuntimeError: If a target was not ranked.
        """
        if not len(self.users):
            raise UserError("no user has a held-out item: every sequence is shorter than 3, or the split is empty")
        if dist.is_available() and dist.is_initialized():
            for name in ("ranks", "candidates", "tied"):
                shared = torch.from_numpy(getattr(self, name)).to(device)
                dist.all_reduce(shared, op=dist.ReduceOp.MAX)
                setattr(self, name, shared.cpu().numpy())
        if missing := int((self.ranks < 0).sum()):
            raise RuntimeError(f"{missing} of {len(self.ranks)} targets were not ranked")
        users = self.users
        metrics = measure(self.ranks, self.candidates, self.ks)
        if self.joint:
            by_user = {name: join_by_user(name, values, users) for name, values in metrics.items()}
            by_user["AUC"] = auc_by_user(self.ranks, self.candidates, users)
        else:
            by_user = {name: mean_by_user(values, users) for name, values in metrics.items()}
        count = len(by_user["MRR"])
        means = {name: math.fsum(values) / count for name, values in by_user.items()}
        return means | {
            "users": count,
            "tied_users": float(mean_by_user(self.tied.astype(np.float64), users).mean()),
        }
