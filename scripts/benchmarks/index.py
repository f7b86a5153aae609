"""The index beside the scores of all items, on made-up vectors: what it finds, loses and takes, by number format.

python scripts/benchmarks/index.py --num_items 1000000

Items are drawn from a normal distribution, and a user is the vector of a target with noise added.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seqrec.basics.checks import require_above, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.formatting import align, number
from seqrec.comparison.intervals import compare_means
from seqrec.evaluation.metrics import ndcg_at_k
from seqrec.serving.folder import FORMS
from seqrec.serving.index import best_items, fit_index, recall, search

K = 10


@dataclass(frozen=True, slots=True)
class Config:
    """The index on made-up vectors."""

    num_items: int = 1_000_000
    """Items."""
    width: int = 64
    """Of the vectors."""
    users: int = 1_000
    """Users that are measured; as many others choose the effort."""
    noise: float = 1.5
    """Standard deviation of what is added to the target's vector, whose numbers have 1."""
    least_recall: float = 0.99
    """Recall that is enough."""
    forms: tuple[str, ...] = FORMS
    """Number formats: fp32, fp16, int8; several for a choice."""
    seed: int = 0
    """Of all draws."""

    def __post_init__(self) -> None:
        require_at_least(K, self, "num_items")
        require_at_least(1, self, "width", "users")
        require_above(0, self, "noise", "least_recall")
        if not set(self.forms) <= set(FORMS):
            raise UserError(f"--forms are some of {', '.join(FORMS)}, got {' '.join(self.forms)}")


def main(config: Config) -> None:
    """Build, search and print."""
    draw = np.random.default_rng(config.seed)
    vectors = draw.standard_normal((config.num_items + 1, config.width), dtype=np.float32)
    targets = draw.integers(1, config.num_items + 1, 2 * config.users)
    noise = draw.standard_normal((len(targets), config.width), dtype=np.float32)
    tuned_on, users = np.split(vectors[targets] + np.float32(config.noise) * noise, 2)
    targets = targets[config.users :]
    began = time.perf_counter()
    best = best_items(vectors, users, K)
    took = (time.perf_counter() - began) / len(users) * 1000
    exact = ndcg(best, targets)
    rows = [["all items scored", "", "", f"{took:.2f}", "", number(exact.mean()), ""]]
    for form in config.forms:
        began = time.perf_counter()
        index, effort = fit_index(vectors, form, tuned_on, config.least_recall, K)
        built = time.perf_counter() - began
        began = time.perf_counter()
        for user in users:
            search(index, vectors, user[None], K)
        took = (time.perf_counter() - began) / len(users) * 1000
        found = search(index, vectors, users, K)[0]
        own = ndcg(found, targets)
        change = compare_means(own[None], exact[None])
        interval = f"{number(change.mean, True)} [{number(change.low, True)}, {number(change.high, True)}]"
        rows.append(
            [
                form,
                f"{built:.0f}",
                str(effort),
                f"{took:.2f}",
                f"{recall(found, best):.4f}",
                number(own.mean()),
                interval,
            ]
        )
    header = ["", "seconds to build", "effort", "ms a user", f"recall@{K}", f"NDCG@{K}", "change [95 % interval]"]
    print(align(header, rows))


def ndcg(found: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each user's NDCG, (n,), from what was found, (n, K)."""
    hit = found == targets[:, None]
    return ndcg_at_k(np.where(hit.any(axis=1), hit.argmax(axis=1), K), K)


if __name__ == "__main__":
    run_command(main, Config)
