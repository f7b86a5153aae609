"""The corpus from a folder of domains, by its one command, in a copy of the project."""

import os
import subprocess
from pathlib import Path

import numpy as np
import polars as pl

from seqrec.data.dataset import load_dataset
from tests.clones import copy_project


def write_domain(folder: Path, titles: list[str], timed: bool) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(titles))
    users = np.repeat(np.arange(12), 5)
    items = rng.integers(0, len(titles), len(users))
    events = pl.DataFrame({"user_id": [f"u{user}" for user in users], "item_id": [f"{folder.name}-{i}" for i in items]})
    if timed:
        events = events.with_columns(timestamp=pl.int_range(pl.len()) * 86_400)
    events.write_parquet(folder / "interactions.parquet")
    names = [f"{folder.name}-{number}" for number in range(len(titles))]
    pl.DataFrame({"item_id": names, "title": titles}).write_parquet(folder / "items.parquet")


def test_a_folder_of_domains_becomes_a_corpus(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    write_domain(tmp_path / "raw" / "tools", [f"tool number {n}" for n in range(8)], timed=True)
    write_domain(tmp_path / "raw" / "games", ["TOOL number 3!", *(f"game number {n}" for n in range(6))], timed=False)
    write_domain(tmp_path / "test" / "tools", ["tool number 3", *(f"saw number {n}" for n in range(6))], timed=False)

    def corpus(*given: str) -> subprocess.CompletedProcess[str]:
        script = project / "Recformer" / "pretraining_corpus.sh"
        plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(["bash", str(script), *given], cwd=tmp_path, env=plain, capture_output=True, text=True)

    (project / "data").mkdir()
    tested = corpus(str(tmp_path / "test"))
    assert tested.returncode == 0 and "signal" in tested.stdout, tested.stderr
    (project / "data" / "pretraining").rename(project / "data" / "of one domain")
    (project / "data" / "pretraining-tools").rename(project / "data" / "target")
    done = corpus("raw", "target")
    assert done.returncode == 0, done.stderr
    found = load_dataset(project / "data" / "pretraining")
    assert "tool number 3" not in " ".join(found.item_table()["title"].str.to_lowercase())
    assert {name.partition("@")[2] for name in found.user_table()["raw_id"]} == {
        "pretraining-tools",
        "pretraining-games",
    }
    assert load_dataset(project / "data" / "pretraining-tools").timestamps is not None
    (project / "data" / "pretraining").rename(project / "data" / "of both")
    held_out = corpus("raw", "--hold_out", "games", "target")
    assert held_out.returncode == 0, held_out.stderr
    found = load_dataset(project / "data" / "pretraining")
    assert not any("game" in title.lower() for title in found.item_table()["title"])
    for given, said in (
        ((), "usage: "),
        ((str(tmp_path / "nowhere"),), "holds no domain with interactions.parquet"),
        (("raw", "--hold_out", "saws"), "--hold_out saws: raw holds no such domain"),
    ):
        refused = corpus(*given)
        assert refused.returncode != 0 and said in refused.stderr and "Traceback" not in refused.stderr
