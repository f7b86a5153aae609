"""The corpus from a folder of domains, by its one command, in a copy of the project."""

import os
import subprocess
from pathlib import Path

import numpy as np
import polars as pl

from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.table import TableFile
from tests.clones import copy_project, shrink


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


def test_a_dataset_gets_vectors_pretrained_on_other_domains(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    shrink(project)
    (project / "data").mkdir()
    domains = ("health", "clothing", "books", "electronics", "food-kitchen", "sports", "arts")
    for name in (*(f"pretraining-{domain}" for domain in domains), "target"):
        raw = tmp_path / "raw" / name
        write_domain(raw, [f"{name} number {n}" for n in range(9)], timed=False)
        events, items = raw / "interactions.parquet", raw / "items.parquet"
        prepare(TableFile(name=name, data_dir=project / "data", input=events, items=items, attributes="title"))
    script = project / "Recformer" / "pretrain_for.sh"
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*given: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(script), *given, "--runs_dir", "made"]
        return subprocess.run(command, cwd=project, env=plain, capture_output=True, text=True)

    done = run("--data_path", "data/target", "--users", "40")
    assert done.returncode == 0, done.stderr
    rows = load_dataset(project / "data" / "target").num_items + 1
    assert np.load(project / "embedding" / "target" / "pretrain.npy").shape == (rows, 16)
    titles = " ".join(load_dataset(project / "data" / "pretraining-for-target-40").item_table()["title"])
    assert "books" in titles and "arts" not in titles and "target" not in titles
    assert (project / "made" / "Recformer" / "pretraining-arts" / "for-target-40" / "metrics.json").is_file()
    refused = run()
    assert refused.returncode != 0 and "usage: " in refused.stderr
