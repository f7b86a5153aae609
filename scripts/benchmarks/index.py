"""The index beside the scores of all items, on made-up vectors: what it finds, loses and takes, by number format.

python scripts/benchmarks/index.py --num_items 1000000 --decay 0.5

Items are drawn from a normal distribution, and a user is the vector of a target with noise added. In trained vectors
some directions have more of the variance than others; --decay gives drawn ones such directions.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import faiss
import numpy as np
from numpy.typing import NDArray

from seqrec.basics.checks import require_above, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.formatting import align, number, size
from seqrec.comparison.intervals import compare_means
from seqrec.evaluation.metrics import ndcg_at_k
from seqrec.serving.folder import FORMS
from seqrec.serving.index import best_items, fit_index, recall, round_index, search

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
    decay: float = 0.0
    """Number i of a vector, from 1, has the standard deviation i ** -decay."""
    noise: float = 1.5
    """Standard deviation of what is added to a target's vector, as a multiple of the vectors' own."""
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
        require_at_least(0, self, "decay")
        if not set(self.forms) <= set(FORMS):
            raise UserError(f"--forms are some of {', '.join(FORMS)}, got {' '.join(self.forms)}")


def main(config: Config) -> None:
    """Build, search and print."""
    draw = np.random.default_rng(config.seed)
    deviations = np.arange(1, config.width + 1, dtype=np.float32) ** np.float32(-config.decay)
    vectors = draw.standard_normal((config.num_items + 1, config.width), dtype=np.float32) * deviations
    targets = draw.integers(1, config.num_items + 1, 2 * config.users)
    noise = draw.standard_normal((len(targets), config.width), dtype=np.float32) * deviations
    tuned_on, users = np.split(vectors[targets] + np.float32(config.noise) * noise, 2)
    tuned_best, best = (best_items(vectors, some, K) for some in (tuned_on, users))
    exact = ndcg(best, targets[config.users :])
    flat = faiss.IndexFlatIP(config.width)
    flat.add(vectors[1:])
    took = one_by_one(partial(flat.search, k=K), users)
    rows = [["all items scored", "", f"{took:.2f}", "", number(exact.mean()), "", size(vectors.nbytes)]]
    began = time.perf_counter()
    whole = fit_index(vectors, tuned_on, tuned_best, config.least_recall)
    built = time.perf_counter() - began
    for form in config.forms:
        index = round_index(whole, form, vectors, tuned_on, tuned_best, config.least_recall)
        took = one_by_one(partial(search, index, vectors, k=K), users)
        found = search(index, vectors, users, K)[0]
        own = ndcg(found, targets[config.users :])
        change = compare_means(own[None], exact[None])
        interval = f"{number(change.mean, True)} [{number(change.low, True)}, {number(change.high, True)}]"
        effort, share, bytes_of = index.hnsw.efSearch, recall(found, best), len(faiss.serialize_index(index))
        rows.append([form, str(effort), f"{took:.2f}", f"{share:.4f}", number(own.mean()), interval, size(bytes_of)])
    header = ["", "effort", "ms a user", f"recall@{K}", f"NDCG@{K}", "change [95 % interval]", "size"]
    print(align(header, rows))
    print(f"\nThe index was built and fitted in {built:.0f} s.")


def one_by_one(search_for: Callable[[NDArray[np.float32]], object], users: NDArray[np.float32]) -> float:
    """Return the milliseconds that a search takes for one user, (1, D), in the mean."""
    began = time.perf_counter()
    for user in users:
        search_for(user[None])
    return (time.perf_counter() - began) / len(users) * 1000


def ndcg(found: NDArray[np.int64], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each user's NDCG, (n,), from what was found, (n, K)."""
    hit = found == targets[:, None]
    return ndcg_at_k(np.where(hit.any(axis=1), hit.argmax(axis=1), K), K)


if __name__ == "__main__":
    run_command(main, Config)
