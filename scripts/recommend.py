"""Recommend with a trained run: for users of its dataset, or for a history given on the command line.

python scripts/recommend.py runs/SASRec/demo/finetune-seed42 --users U000007 U000012
python scripts/recommend.py runs/SASRec/demo/finetune-seed42 --history D000003 D000090
python scripts/recommend.py runs/LSVCR/comments-demo/commrank-longformer-seed42 --users U000007 --under V00003
python scripts/recommend.py runs/SASRec/demo/finetune-seed42 --output recommendations.parquet
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from seqrec.basics.checks import find_device, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically

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
    """Instead of a user: items by the ids of the source, the oldest first."""
    top_k: int = 10
    """Number of items per user."""
    include_seen: bool = False
    """Recommend items of the history, too."""
    output: Path | None = None
    """A .parquet or .csv file instead of the screen; needed for many users."""
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
        if self.users and self.history:
            raise UserError("give --users or a --history, not both")
        if self.under is not None and self.history:
            raise UserError("--under is for --users: a --history says nothing of comments")
        require_at_least(1, self, "top_k", "max_tokens")
        find_device(self.device)
        if self.output is not None and self.output.suffix not in (".parquet", ".csv"):
            raise UserError(f"--output must end in .parquet or .csv, got {self.output}")


def main(config: Config) -> None:
    """Print the recommendations or write them."""
    device = find_device(config.device)
    from seqrec.training.recommend import choose_histories, recommend, tabulate  # seconds, and not for --help
    from seqrec.training.restore import load_run

    dataset, recommender = load_run(config.run, config.data_path, config.catalogue)
    if config.memory is not None:
        recommender.module.use_memory(config.memory, dataset)
    if config.under is not None:
        dataset = recommender.module.look_under(config.under)
    names, histories = choose_histories(dataset, config.users, config.history)
    if config.output is None and len(names) > SHOWN_USERS:
        raise UserError(f"{len(names)} users are too many for the screen: give --output FILE, or some --users")
    found = recommend(recommender, histories, config.top_k, config.include_seen, config.max_tokens, device)
    table = tabulate(dataset, names, found)
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
