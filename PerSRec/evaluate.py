"""Test a trained model whose old events come from a memory: `python PerSRec/evaluate.py RUN --from_cache`.

The targets are those of the run's own test, and so is what they are ranked against.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError


@dataclass(frozen=True, slots=True)
class Config:
    """What the recent events are read with."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run with user tokens."""
    from_cache: bool = False
    """Read old events from RUN/memory or --memory, as serving does; otherwise read whole histories."""
    memory: Path | None = None
    """Folder that PerSRec/compress.sh wrote."""
    tokens: Literal["own", "other", "zero"] = "own"
    """Whose tokens a user gets: own, other (those of another user) or zero (none): what they are worth."""
    predict_with_full_item_seq: bool = True
    """Read old events and tokens, too; otherwise recent events alone."""
    data_path: Path | None = None
    """Folder of the prepared dataset, if it has moved since the run."""

    def __post_init__(self) -> None:
        if not self.from_cache and (self.memory is not None or self.tokens != "own"):
            raise UserError("--memory and --tokens are for --from_cache: give it too")
        if self.from_cache and not self.predict_with_full_item_seq:
            raise UserError("--no_predict_with_full_item_seq reads no tokens: drop --from_cache")


def main(config: Config) -> None:
    """Print the metrics, and their differences to the run's own test."""
    import logging

    import numpy as np

    from PerSRec.finetune import load_trained
    from PerSRec.memory import open_memory
    from PerSRec.module import batches_of
    from seqrec.comparison.intervals import compare_means
    from seqrec.comparison.results import read_run
    from seqrec.evaluation.metrics import ndcg_at_k
    from seqrec.training.trainer import test

    log = logging.getLogger(__name__)
    needs_tokens = config.from_cache or not config.predict_with_full_item_seq
    dataset, module = load_trained(config.run, config.data_path, needs_tokens)
    module.only_recent = not config.predict_with_full_item_seq
    if config.from_cache:
        folder = config.memory or config.run / "memory"
        module.memory = open_memory(module.encoder, module.digest(), dataset, folder, config.tokens)
    flags = module.config
    split = flags.protocol.hold_out(dataset)
    seconds = test(module, batches_of(module, dataset, split), flags.training)
    told = ", ".join(f"{name} {module.results[name]:.4f}" for name in ("NDCG@10", "Recall@10", "MRR"))
    log.info("%s, %.1f s", told, seconds)
    if (memory := module.memory) is not None:
        log.info("%s histories from the memory, %s read whole", f"{memory.num_recalled:,}", f"{memory.num_whole:,}")
    if flags.protocol.several_targets:
        return
    own = read_run(config.run).ranks[split.test.users]
    ndcg = [ndcg_at_k(np.asarray(ranks), 10)[None] for ranks in (module.recorder.ranks, own)]
    interval = compare_means(ndcg[0], ndcg[1])
    log.info("NDCG@10 less that of the run's own test: %+.4f [%+.4f, %+.4f], over users",
             interval.mean, interval.low, interval.high)  # fmt: skip


if __name__ == "__main__":
    run_command(main, Config)
