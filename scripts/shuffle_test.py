"""Measure how much of a model's score depends on the order of histories: rank the test targets after shuffling, too.

python scripts/shuffle_test.py runs/SASRec/demo/none-seed1 runs/Bert4Rec/demo/none-seed1

If the difference is small, the dataset's sequences have little for a sequential model to learn.
Source of the test: Klenitskiy et al. (2024), https://arxiv.org/abs/2408.12008.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro
from numpy.typing import NDArray

from seqrec.basics.checks import find_device, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.formatting import number
from seqrec.basics.progress import progress
from seqrec.comparison.intervals import compare_means
from seqrec.comparison.results import name_run, user_metric
from seqrec.data.dataset import Dataset, Histories
from seqrec.data.protocol import EvaluationProtocol
from seqrec.evaluation.metrics import mean_by_user

if TYPE_CHECKING:
    from seqrec.training.module import Recommender


@dataclass(frozen=True, slots=True)
class Config:
    """Rank test targets after histories in order and shuffled."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of finished runs."""
    metric: str = "NDCG@10"
    """Metric: NDCG@k, Recall@k or MRR."""
    shuffles: int = 3
    """Number of shuffles of every history; scores are averaged over them."""
    keep_last: bool = False
    """Leave each history's last event where it is."""
    seed: int = 0
    """Seed of the shuffles."""
    data_path: Path | None = None
    """Folder of the prepared dataset, if it has moved since the runs."""
    max_tokens: int = 16384
    """Events, or tokens of texts, per batch."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:N or auto (a GPU if there is one)."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise UserError("give at least one run folder")
        require_at_least(1, self, "shuffles", "max_tokens")
        find_device(self.device)
        user_metric(np.zeros(1, dtype=np.int64), self.metric)  # refuses an unknown one


def shuffle_histories(histories: Histories, generator: np.random.Generator, keep_last: bool) -> Histories:
    """Return evaluation histories with the items of each in random order, at the same times, and their targets."""
    # Each history is copied with its target: those of one user may overlap.
    lengths = histories.lengths + 1
    rows, longest = np.arange(len(lengths)), int(lengths.max())
    whole = replace(histories, ends=histories.ends + 1)
    items, offsets = whole.gather(rows, longest)
    times = None if whole.times is None else whole.gather_times(rows, longest)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    fixed = np.arange(len(items)) >= (offsets[1:] - (2 if keep_last else 1))[owner]
    order = np.lexsort((np.where(fixed, 1 + np.arange(len(items)), generator.random(len(items))), owner))
    return Histories(items[order].astype(np.int32), histories.users, offsets[:-1], offsets[1:] - 1, times)


def rank_histories(
    dataset: Dataset,
    recommender: "Recommender",
    histories: Histories,
    protocol: EvaluationProtocol,
    max_tokens: int,
    device: str,
) -> NDArray[np.int64]:
    """Return (n,) the 0-based rank of each history's target."""
    import torch

    from seqrec.data.batches import BatchKey, RowSampler
    from seqrec.training.batches import HeldOutDataset

    module = recommender.module.to(device)
    data = HeldOutDataset(dataset, histories, protocol, recommender.make_inputs)
    ranks = np.zeros(len(histories), dtype=np.int64)
    sampler = RowSampler(recommender.count_tokens(histories), max_tokens=max_tokens, shuffle=False)
    with torch.inference_mode():
        catalogue = module.item_vectors().float()
        for rows in progress(sampler.batches(), desc="ranking", unit="batch"):
            batch = module.transfer_batch_to_device(data[BatchKey(rows, 0, 0)], torch.device(device), 0)
            ranks[rows] = module.rank(batch, catalogue)[0].ranks.cpu().numpy()
    return ranks


def compare_orders(config: Config, folder: Path, device: str) -> str:
    """Return a run's line: in order, shuffled, difference with its interval."""
    from seqrec.training.restore import load_run  # takes seconds, and --help needs none of it

    dataset, recommender = load_run(folder, config.data_path)
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["protocol"]
    protocol = EvaluationProtocol.of(record)
    if "candidates_sha256" in record:
        raise UserError(f"{folder} ranks against --candidates, which this test does not: give runs that rank all items")
    histories = protocol.hold_out(dataset).test
    generator = np.random.default_rng(config.seed)

    def score(view: Histories) -> NDArray[np.float64]:
        ranks = rank_histories(dataset, recommender, view, protocol, config.max_tokens, device)
        return mean_by_user(user_metric(ranks, config.metric), view.users)

    in_order = score(histories)
    shuffled = np.mean(
        [score(shuffle_histories(histories, generator, config.keep_last)) for _ in range(config.shuffles)], axis=0
    )
    interval = compare_means(shuffled[None], in_order[None])  # of this one run, over other users
    share = f"{100 * interval.mean / in_order.mean():+.0f} %" if in_order.any() else ""
    return (
        f"{name_run(folder.resolve()):<44} {number(in_order.mean())}  {number(shuffled.mean())}  "
        f"{number(interval.mean, sign=True)} [{number(interval.low, sign=True)}, {number(interval.high, sign=True)}]  "
        f"{share}"
    )


def main(config: Config) -> None:
    """Print one line per run."""
    device = find_device(config.device)
    print(f"{config.metric:<44} in order  shuffled  difference [95 %]")
    for folder in config.runs:
        print(compare_orders(config, folder, device))


if __name__ == "__main__":
    run_command(main, Config)
