"""Recommend with a trained run: for users of its dataset, or for a history given on the command line.

python scripts/recommend.py runs/SASRec/demo/finetune-seed42 --users U000007 U000012
python scripts/recommend.py runs/SASRec/demo/finetune-seed42 --history D000003 D000090
python scripts/recommend.py runs/LSVCR/comments-demo/commrank-longformer-seed42 --users U000007 --under V00003
python scripts/recommend.py runs/SASRec/demo/finetune-seed42 --output recommendations.parquet
python scripts/recommend.py runs/SASRec/demo/finetune-seed42 --input asked.parquet --output answers --shard_users 100000
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from seqrec.basics.checks import find_device, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.files import hash_file, write_atomically

if TYPE_CHECKING:
    from seqrec.data.dataset import Histories
    from seqrec.training.recommend import Found

SHOWN_USERS = 20
"""Maximum number of users on the screen."""


@dataclass(frozen=True, slots=True)
class Config:
    """Recommend items to users."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run."""
    users: tuple[str, ...] = ()
    """Users by the ids of the source; all if not given."""
    history: tuple[str, ...] = ()
    """Instead of a user: items, the oldest first, by the ids of the source or by their whole titles."""
    input: Path | None = None
    """Instead of users of the dataset: a .parquet file with user, and history, a list of ids, the oldest first."""
    top_k: int = 10
    """Number of items per user."""
    include_seen: bool = False
    """Recommend items of the history, too."""
    block: Path | None = None
    """File of ids that are recommended to nobody: lines, or the column item of a .parquet."""
    allow: Path | None = None
    """File of ids that alone are recommended, such as what is in stock."""
    output: Path | None = None
    """A .parquet or .csv file instead of the screen; needed for many users. With --shard_users, a folder."""
    shard_users: int = 0
    """Write a .parquet file for so many users at a time; after a kill, the same command goes on. 0 writes one file."""
    machines: int = 1
    """With --shard_users, machines that write into one folder at a time, each its share of the files."""
    machine: int = 0
    """Number of this machine, from 0."""
    data_path: Path | None = None
    """Folder of the prepared dataset, if it has moved since the run."""
    catalogue: Path | None = None
    """Folder of another prepared dataset to serve; its new items are scored by their texts."""
    under: str | None = None
    """Video by the id of the source: recommend comments under it, with a run of LSVCR's CommRank."""
    memory: Path | None = None
    """Folder of compressed old events (PerSRec/compress.sh): of its users the recent events alone are read."""
    max_tokens: int = 16384
    """Events, or tokens of texts, per batch."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:N or auto (a GPU if there is one)."""

    def __post_init__(self) -> None:
        if bool(self.users) + bool(self.history) + (self.input is not None) > 1:
            raise UserError("give one of --users, --history and --input, not several")
        if self.under is not None and (self.history or self.input is not None):
            raise UserError("--under is for --users: a history of items says nothing of comments")
        require_at_least(1, self, "top_k", "max_tokens", "machines")
        require_at_least(0, self, "shard_users", "machine")
        if self.machine >= self.machines:
            raise UserError(f"--machine {self.machine} must be below --machines {self.machines}: numbers begin with 0")
        find_device(self.device)
        if self.shard_users:
            if self.output is None or self.output.suffix:
                raise UserError(
                    f"--shard_users writes a folder: give it as --output, without a suffix, got {self.output}"
                )
        elif self.machines > 1:
            raise UserError(f"--machines {self.machines} share the files of --shard_users: give that, too")
        elif self.output is not None and self.output.suffix not in (".parquet", ".csv"):
            raise UserError(f"--output must end in .parquet or .csv, got {self.output}")


def describe_files(paths: Mapping[str, Path | None]) -> dict[str, str | None]:
    """Return each file with its sha256, and a run's with that of its weights."""
    found: dict[str, str | None] = {}
    for name, path in paths.items():
        file = path if path is None or path.is_file() else path / "checkpoints" / "best.ckpt"
        found[name] = None if file is None or not file.is_file() else hash_file(file)
    return found


def main(config: Config) -> None:
    """Print the recommendations or write them."""
    device = find_device(config.device)
    from seqrec.training.recommend import recommend, tabulate, write_shards  # seconds, and not for --help
    from seqrec.training.requests import choose_histories, hide_items, read_histories
    from seqrec.training.restore import load_run

    dataset, recommender = load_run(config.run, config.data_path, config.catalogue)
    if config.memory is not None:
        recommender.module.use_memory(config.memory, dataset)
    if config.under is not None:
        dataset = recommender.module.look_under(config.under)
    if config.input is not None:
        names, histories = read_histories(config.input, dataset)
    else:
        names, histories = choose_histories(dataset, config.users, config.history)
    if config.output is None and len(names) > SHOWN_USERS:
        raise UserError(f"{len(names)} users are too many for the screen: give --output FILE, or some --users")
    hidden = hide_items(dataset, config.block, config.allow)

    def ask(asked: Histories) -> Found:
        return recommend(recommender, asked, config.top_k, config.include_seen, config.max_tokens, device, hidden)

    if config.shard_users:
        assert config.output is not None
        paths = {"run": config.run, "input": config.input, "block": config.block, "allow": config.allow}
        same = {"memory": config.memory, "top_k": config.top_k, "include_seen": config.include_seen}
        items = {"items": dataset.item_ids_sha256, "histories": dataset.sequences_sha256}
        settings = describe_files(paths) | same | items | {"under": config.under}
        share = config.machine, config.machines
        done = write_shards(config.output, dataset, names, histories, config.shard_users, settings, ask, share)
        whose = "" if config.machines == 1 else f", the share of machine {config.machine} of {config.machines}"
        print(f"recommendations for {len(names)} users: {config.output}{whose} ({done} shards were there already)")
        return
    table = tabulate(dataset, names, ask(histories))
    if config.output is not None:
        with write_atomically(config.output) as file:
            table.write_parquet(file) if config.output.suffix == ".parquet" else table.write_csv(file)
        print(f"{len(table)} recommendations for {len(names)} users: {config.output}")
        return
    for (user,), rows in table.group_by("user", maintain_order=True):
        print(user)
        for _, rank, item, score, *text in rows.iter_rows():
            print(f"  {rank:3d}  {score:9.4f}  {item}  {(text[0] if text else item)[:80]}")


if __name__ == "__main__":
    run_command(main, Config)
