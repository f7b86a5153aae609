"""Compress the old events of users into the tokens of a trained model: `python PerSRec/compress.py RUN`.

The result lies in RUN/memory/; `scripts/recommend.py RUN --memory` and `PerSRec/evaluate.sh RUN --from_cache` read it.
Called again, after new events, it computes the users whose old events have changed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from seqrec.basics.checks import find_device, require_at_least
from seqrec.basics.command import run_command


@dataclass(frozen=True, slots=True)
class Config:
    """Which histories to compress, and where."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run with user tokens."""
    data_path: Path | None = None
    """Folder of the prepared dataset, if it has moved or grown since the run."""
    histories: Literal["all", "test", "valid"] = "all"
    """Histories: all (every event, to recommend), test or valid (what precedes the targets, to evaluate)."""
    skipped: int = 0
    """Newest old events to leave out, as if they had come after the compression: to measure what staleness costs."""
    output: Path | None = None
    """Folder of the result; RUN/memory if not given."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:N or auto (a GPU if there is one)."""

    def __post_init__(self) -> None:
        require_at_least(0, self, "skipped")
        find_device(self.device)


def main(config: Config) -> None:
    """Compute what is missing, and say where it is."""
    import logging
    import time

    from PerSRec.finetune import load_trained
    from PerSRec.memory import make_memory

    dataset, module = load_trained(config.run, config.data_path)
    module.to(find_device(config.device))
    split = module.config.protocol.hold_out(dataset)
    held_out = {"valid": split.valid, "test": split.test, "all": dataset.whole_histories()}
    start = time.perf_counter()
    folder = config.output or config.run / "memory"
    histories = held_out[config.histories]
    found, computed = make_memory(
        module.encoder, module.embed, module.digest(), dataset, histories, folder, config.skipped
    )
    size = sum(file.stat().st_size for file in found.iterdir())
    logging.getLogger(__name__).info(
        "%s users, %s of them computed now in %.1f s; %.1f kB each, in %s",
        f"{len(histories):,}", f"{computed:,}", time.perf_counter() - start, size / len(histories) / 1e3, folder,
    )  # fmt: skip


if __name__ == "__main__":
    run_command(main, Config)
