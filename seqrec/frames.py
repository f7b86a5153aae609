"""Results as pandas DataFrames, for notebooks: runs, ranks by user, recommendations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from seqrec.basics.checks import find_device
from seqrec.basics.paths import ROOT
from seqrec.comparison.results import COST_KEYS, FinishedRun, Seen, can_read, find_run_folders, name_run, read_run
from seqrec.data.dataset import load_dataset

RUNS, DATA = ROOT / "runs", ROOT / "data"
PROTOCOL = ("split", "sample_size", "filter_seen")


def results(dataset: str, runs_dir: Path | str = RUNS, seen: Seen = "own") -> pd.DataFrame:
    """Return a row for each finished run of a dataset.

    Columns: run ("family/dataset/run name"), family, group (the run's name without its seed), seed; the protocol's
    split, sample_size and filter_seen; the test metrics; best_epoch and epochs, from 1; train_seconds, test_seconds,
    peak_memory_bytes, parameters, trainable_parameters, item_vector_bytes, device.

    Args:
        dataset: Its name.
        runs_dir: Folder of the runs.
        seen: Which of a run's tests: with what users have had kept among the candidates, left_out, or its own.

    Raises:
        MissingFileError: If no run is finished.
        UserError: If a run's files are damaged or contradict one another.
    """
    return pd.DataFrame([_describe(run) for run in _read_runs(dataset, runs_dir, seen)])


def _read_runs(dataset: str, runs_dir: Path | str, seen: Seen) -> list[FinishedRun]:
    finished, _ = find_run_folders(Path(runs_dir), dataset)
    return [read_run(folder, seen) for folder in finished if can_read(folder, seen)]


def _name(run: FinishedRun) -> dict[str, object]:
    return {"run": name_run(run.folder), "family": run.family, "group": run.group, "seed": run.seed}


def _describe(run: FinishedRun) -> dict[str, object]:
    epochs = {"best_epoch": run.best_epoch, "epochs": run.epochs}
    cost = {key: run.cost.get(key) for key in (*COST_KEYS, "device")}
    return _name(run) | {key: run.protocol[key] for key in PROTOCOL} | run.test | epochs | cost


def ranks(dataset: str, runs_dir: Path | str = RUNS, data_dir: Path | str = DATA, seen: Seen = "own") -> pd.DataFrame:
    """Return a row for each test target of each finished run of a dataset: whose it is, and where it was ranked.

    Columns: run, family, group, seed as in `results`; user, by the id of the source; rank, from 1.

    Args:
        dataset: Its name.
        runs_dir: Folder of the runs.
        data_dir: Folder of the prepared datasets.
        seen: Which of a run's tests, as for `results`.

    Raises:
        MissingFileError: If no run is finished, or the dataset is gone.
        UserError: If a run's files are damaged or contradict one another.
    """
    users = load_dataset(Path(data_dir) / dataset).user_table()["raw_id"].to_numpy()
    tables = []
    for run in _read_runs(dataset, runs_dir, seen):
        tested = np.flatnonzero(run.ranks >= 0)
        owners = tested if run.owners is None else run.owners[tested]
        tables.append(pd.DataFrame(_name(run) | {"user": users[owners], "rank": run.ranks[tested] + 1}))
    return pd.concat(tables, ignore_index=True)


def recommendations(
    run: Path | str,
    users: Sequence[str] = (),
    history: Sequence[str] = (),
    top_k: int = 10,
    include_seen: bool = False,
    data_path: Path | None = None,
    catalogue: Path | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """Return a trained run's best items for users of its dataset, or for a history of items.

    Columns: user, rank from 1, item, score, and the item's first text attribute where it has one.

    Args:
        run: Folder of a finished run.
        users: By the ids of the source; all if neither users nor a history is given.
        history: Items by the ids of the source, the oldest first.
        top_k: Items for each.
        include_seen: Recommend what the history has, too.
        data_path: Folder of the prepared dataset, where it has moved since the run.
        catalogue: Folder of another prepared dataset to serve, with items unseen in training, by their texts alone.
        device: auto (a GPU if there is one), cpu, cuda or cuda:N.

    Raises:
        MissingFileError: If there is no finished run.
        UserError: If a user or an item is unknown, or the run cannot serve the catalogue.
    """
    from seqrec.training.recommend import recommend, tabulate  # Lightning takes seconds
    from seqrec.training.requests import choose_histories
    from seqrec.training.restore import load_run

    place = find_device(device)
    dataset, recommender = load_run(Path(run), data_path, catalogue)
    names, histories = choose_histories(dataset, users, history)
    table = tabulate(dataset, names, recommend(recommender, histories, top_k, include_seen, device=place))
    return pd.DataFrame({name: table[name].to_numpy() for name in table.columns})
