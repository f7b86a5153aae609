"""Measure the project beside its peers, turn by turn on the same machine, and print the ratios.

    python scripts/benchmarks/speed.py sasrec --dataset amazon-scientific
    python scripts/benchmarks/speed.py bert4rec --dataset amazon-scientific
    python scripts/benchmarks/speed.py hstu --dataset amazon-scientific
    python scripts/benchmarks/speed.py recformer --dataset amazon-scientific
    python scripts/benchmarks/speed.py plmsasrec --dataset amazon-scientific

The first three run beside RecTools and, with --peers, RecBole, which has no HSTU; scripts/benchmarks/setup_peer.sh
installs them. `recformer` runs beside `transformers`' Longformer with the same weights; `plmsasrec` beside
`transformers`' encoding of every position of every row, and with a frozen language model's output in a cache beside
running it.

A ratio is the peer's median time over ours; in brackets the smallest and the largest of any pair of measurements.
With --quality_epochs the ID models also train on, for the time that each takes to the peer's best validation score.
"""

import csv
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
import tyro

from scripts.benchmarks.quality import draw_quality, print_quality, time_to_best
from scripts.benchmarks.sides import (
    SideTimes,
    find_peer,
    flatten,
    launch,
    plain_environment,
    print_table,
    processor,
    summarise,
    tuned_environment,
)
from seqrec.basics.checks import list_flags, require_above, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_atomically, write_json
from seqrec.basics.formatting import size
from seqrec.basics.paths import ROOT
from seqrec.basics.progress import progress
from seqrec.data.dataset import Dataset, find_dataset
from seqrec.data.splits import leave_one_out
from seqrec.nn.blocks import check_sizes

Peer = Literal["rectools", "rectools-lean", "recbole"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What all benchmarks ask for."""

    dataset: str | None = None
    """Name of a prepared dataset in data/."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere."""
    threads: int = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    """Threads that each side computes with; by default OMP_NUM_THREADS, else one per core."""
    seed: int = 42
    """Of weights, batches and samples."""
    output_dir: Path = ROOT / "runs" / "benchmark"
    """Where the JSON file goes."""

    def __post_init__(self) -> None:
        counts = [name for name, value in list_flags(self) if type(value) is int and name != "seed"]
        require_at_least(1, self, *counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdBenchmark(Common):
    """Preparing the dataset, a training epoch with the full softmax, and ranking all users."""

    peers: tuple[Peer, ...] = ("rectools",)
    """Libraries to stand beside; each needs `bash scripts/benchmarks/setup_peer.sh PEER` once. rectools-lean is the
    FlatSASRecNet of rectools."""
    maxlen: int = 50
    """Events of a history that the model reads."""
    hidden_units: int = 64
    """Width of the model."""
    num_blocks: int = 2
    """Transformer blocks."""
    num_heads: int = 1
    """Attention heads."""
    dropout_rate: float = 0.2
    """Share dropped."""
    batch_size: int = 128
    """Users per batch."""
    lr: float = 1e-3
    """Learning rate."""
    epochs: int = 3
    """Epochs per turn; the first, which warms up, does not count unless it is the only one."""
    rounds: int = 2
    """Turns of each side."""
    quality_epochs: int | None = None
    """Then train every side for `epochs` epochs, validating after each, and draw NDCG@10 over time."""
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Of the training on both sides."""
    peer_allocator: Literal["system", "tuned"] = "system"
    """C allocator of the peer: as it comes, or with the settings of scripts/env.sh, which our launcher always uses."""

    def __post_init__(self) -> None:
        Common.__post_init__(self)
        check_sizes(self, least_length=1)
        require_above(0, self, "lr")
        if self.precision != "32-true" and "recbole" in self.peers:
            raise UserError(f"--peers recbole trains in float32: leave it or --precision {self.precision} out")
        if self.family != "SASRec" and "rectools-lean" in self.peers:
            raise UserError("--peers rectools-lean has SASRec alone: leave it out")

    family: ClassVar[str]
    """Folder of ours."""

    names: ClassVar[tuple[str, ...]] = (
        *("maxlen", "hidden_units", "num_blocks", "num_heads", "dropout_rate", "batch_size", "lr", "seed", "precision"),
    )
    """Settings that every side takes."""

    @property
    def shared(self) -> dict[str, Any]:
        """Settings that every side takes, with their values."""
        return {name: getattr(self, name) for name in self.names}

    @property
    def flags(self) -> dict[str, Any]:
        """Flags of our side."""
        return self.shared


@dataclass(frozen=True, slots=True, kw_only=True)
class SASRecBenchmark(IdBenchmark):
    """Preparing, a training epoch of SASRec with the full softmax, and ranking, against other libraries' SASRec."""

    family = "SASRec"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bert4RecBenchmark(IdBenchmark):
    """Preparing, a training epoch of BERT4Rec with the full softmax, and ranking, against other libraries' BERT4Rec."""

    num_heads: int = 2
    """Attention heads."""
    mask_prob: float = 0.2
    """Share of a history's events that is hidden."""

    family = "Bert4Rec"
    names = (*IdBenchmark.names, "mask_prob")


@dataclass(frozen=True, slots=True, kw_only=True)
class HSTUBenchmark(IdBenchmark):
    """Preparing, an epoch of HSTU with the full softmax and a bias by place, and ranking, against RecTools' HSTU."""

    family = "PerSRec"

    def __post_init__(self) -> None:
        super(HSTUBenchmark, self).__post_init__()
        if "recbole" in self.peers:
            raise UserError("--peers recbole has no HSTU: leave it out")

    @property
    def flags(self) -> dict[str, Any]:
        """Flags of our side; scores are dot products, as the peer's are."""
        renamed = {"num_blocks": "n_layers", "num_heads": "n_heads"}
        return {renamed.get(name, name): value for name, value in self.shared.items()} | {
            "model": "hstu",
            "temp": "None",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RecformerBenchmark(Common):
    """Encoding items and a finetuning step of Recformer, against transformers' Longformer with the same weights."""

    model_name_or_path: str = "minilm"
    """Backbone, as in Recformer/finetune.py."""
    num_items: int = 512
    """Items to encode, drawn from the catalogue."""
    num_users: int = 64
    """Users whose histories are trained on, drawn from the training users."""
    batch_size: int = 16
    """Users per step on both sides, and the peer's items per batch."""
    max_token_num: int = 512
    """Tokens of a history that are read."""
    pooler_type: Literal["cls", "mean"] = "cls"
    """What stands for a text: its first token, as published, or the mean of its tokens."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of both sides; bfloat16 is autocast."""
    repeats: int = 5
    """Turns of each side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlmBenchmark(Common):
    """Training steps of PLMSASRec: cached against live, and live against encoding every position of every row."""

    plm_name: str = "minilm"
    """Language model, as in PLMSASRec/finetune.py."""
    plm_last_n_unfreeze: int = 1
    """Last blocks to train, in the second comparison."""
    tokenized_len: int = 30
    """Tokens of an item's text."""
    batch_size: int = 64
    """Users per step."""
    num_steps: int = 4
    """Steps per turn."""
    repeats: int = 3
    """Turns of each side."""


def write_events(dataset: Dataset, folder: Path) -> None:
    """Write all events as one atomic file, from which every side prepares its data."""
    users, items = flatten(dataset.whole_histories())
    moments = np.arange(len(users))
    columns = {"user_id:token": users, "item_id:token": items, "timestamp:float": moments}
    folder.mkdir()
    pl.DataFrame(columns).write_csv(folder / "events.inter", separator="\t")


def time_preparation(dataset: Dataset, threads: int) -> float:
    """Return the seconds that our preparation of those events takes."""
    with tempfile.TemporaryDirectory() as folder:
        write_events(dataset, Path(folder) / "events")
        environment = plain_environment(threads) | {"POLARS_MAX_THREADS": str(threads)}
        command: list[str | Path] = [sys.executable, ROOT / "scripts" / "benchmarks" / "preparation.py", folder]
        return float(launch(command, environment, lambda line: None)["prepare_seconds"])


def run_ours(
    config: IdBenchmark, dataset: Dataset, on_line: Callable[[str], object], validate: int | None = None
) -> dict[str, Any]:
    """Return what the family's finetune.sh writes of one run.

    It trains one epoch more than is measured, because the last one is validated; the test ranks all users. With
    `validate`, it trains that number of epochs, and the seconds include a validation after each.
    """
    with tempfile.TemporaryDirectory() as folder:
        num_epochs, eval_every = (validate, 1) if validate else (config.epochs + 1, config.epochs + 1)
        flags = config.flags | {"data_path": dataset.path, "runs_dir": folder, "run_name": "benchmark"}
        flags |= {"num_epochs": num_epochs, "eval_every": eval_every, "patience": num_epochs, "accelerator": "cpu"}
        arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        command: list[str | Path] = ["bash", ROOT / config.family / "finetune.sh", "--no-progress-bar", *arguments]
        launch(command, plain_environment(config.threads), on_line)
        run = Path(folder) / config.family / dataset.name / "benchmark"
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        with (run / "logs" / "metrics.csv").open(encoding="utf-8", newline="") as file:
            curve = list(csv.DictReader(file))[: validate or config.epochs]
    return {
        "valid": [float(row["valid/NDCG@10"]) for row in curve] if validate else [],
        "epoch_seconds": [float(row["seconds"]) for row in curve],
        "rank_seconds": metrics["cost"]["test_seconds"],
        "loss": float(curve[-1]["train/loss"]),
        "peak_memory_bytes": metrics["cost"]["peak_memory_bytes"],
        "parameters": metrics["cost"]["parameters"],
        "threads": metrics["cost"]["threads"],
    }


def run_peer(
    config: IdBenchmark,
    peer: Peer,
    dataset: Dataset,
    on_line: Callable[[str], object],
    validate: int | None = None,
) -> dict[str, Any]:
    """Return what the same measurement gives for a peer, on the same training histories and targets."""
    library, _, lean = peer.partition("-")
    python = find_peer(library)
    tuned = config.peer_allocator == "tuned"
    environment = (tuned_environment if tuned else plain_environment)(config.threads)
    split = leave_one_out(dataset)
    with tempfile.TemporaryDirectory() as folder:
        interactions, settings = Path(folder) / "interactions.npz", Path(folder) / "settings.json"
        arrays: dict[str, Any] = {}
        for name, view in (("train", split.train), ("valid", split.valid), ("test", split.test)):
            arrays[f"{name}_users"], arrays[f"{name}_items"] = flatten(view)
        np.savez(interactions, valid_targets=split.valid.targets, **arrays)
        write_events(dataset, Path(folder) / "events")
        values = config.shared | {"model": config.family, "epochs": validate or config.epochs, "folder": folder}
        values |= {"validate": bool(validate), "lean": bool(lean)}
        write_json(settings, values | {"interactions": str(interactions)})
        return launch([python, ROOT / "scripts" / "benchmarks" / f"peer_{library}.py", settings], environment, on_line)


def benchmark_id_model(config: IdBenchmark, dataset: Dataset) -> dict[str, Any]:
    """Print the tables and return everything measured."""
    for peer in config.peers:
        find_peer(peer.partition("-")[0])
    sides: dict[str, list[dict[str, Any]]] = {name: [] for name in ("ours", *config.peers)}
    epochs_per_round = config.epochs * len(sides) + 1
    further = (config.quality_epochs or 0) * len(sides)
    with progress(total=config.rounds * epochs_per_round + further, unit="epoch") as bar:

        def advance(line: str) -> None:
            if line.startswith("epoch "):
                bar.update()

        for _ in range(config.rounds):
            bar.set_description(f"{config.family}, ours")
            preparation = {"prepare_seconds": time_preparation(dataset, config.threads)}
            sides["ours"].append(preparation | run_ours(config, dataset, advance))
            for peer in config.peers:
                bar.set_description(f"{config.family}, {peer}")
                sides[peer].append(run_peer(config, peer, dataset, advance))
        validated: dict[str, dict[str, Any]] = {}
        if number := config.quality_epochs:
            bar.set_description(f"{config.family}, validated")
            validated["ours"] = run_ours(config, dataset, advance, number)
            validated |= {peer: run_peer(config, peer, dataset, advance, number) for peer in config.peers}
    counted = slice(1 if config.epochs > 1 else 0, None)
    epochs = {side: [s for run in runs for s in run["epoch_seconds"][counted]] for side, runs in sides.items()}
    preparing = {side: [run["prepare_seconds"] for run in runs] for side, runs in sides.items()}
    ranking = {side: [run["rank_seconds"] for run in runs] for side, runs in sides.items()}
    first = {side: runs[0] for side, runs in sides.items()}
    summary = {}
    for peer in config.peers:
        comparisons = [
            SideTimes("preparing the dataset", preparing["ours"], preparing[peer]),
            SideTimes("training epoch", epochs["ours"], epochs[peer]),
            SideTimes("ranking all users", ranking["ours"], ranking[peer]),
        ]
        print_table(peer, comparisons)
        for name, show in (("peak_memory_bytes", size), ("loss", "{:.4f}".format), ("threads", str)):
            ours, theirs = (show(first[side][name]) for side in ("ours", peer))
            print(f"{name.replace('_', ' ').removesuffix(' bytes'):<34}{ours:>12}{theirs:>12}")
        summary[peer] = summarise(comparisons)
    if not validated:
        return {"comparisons": summary, "sides": sides}
    reached: dict[str, dict[str, Any]] = {
        peer: time_to_best(validated["ours"], validated[peer]) for peer in config.peers
    }
    print_quality(reached)
    with write_atomically(config.output_dir / f"{config.family.lower()}-{dataset.name}.png") as file:
        file.write(draw_quality(validated, f"{config.family} on {dataset.name}"))
    return {"comparisons": summary, "sides": sides, "validated": validated, "reached": reached}


def benchmark_recformer(config: RecformerBenchmark, dataset: Dataset) -> dict[str, Any]:
    """Print the table and return everything measured; both sides take turns in one process."""
    with (
        tempfile.TemporaryDirectory() as folder,
        progress(total=7 * config.repeats, desc="Recformer", unit="turn") as bar,
    ):
        settings = Path(folder) / "settings.json"
        write_json(settings, asdict(config) | {"data_path": str(dataset.path)})
        measured = launch(
            [sys.executable, ROOT / "scripts" / "benchmarks" / "recformer.py", settings],
            tuned_environment(config.threads),
            lambda line: bar.update() if line.startswith("turn ") else None,
        )
    comparisons = [
        SideTimes(name, measured[what]["ours"], measured[what]["peer"], measured[count])
        for name, what, count in (
            ("item encoding, items", "encoding", "items"),
            ("finetuning step, sequences", "training", "sequences"),
            ("pretraining step, sequences", "pretraining", "sequences"),
        )
    ]
    pretraining = measured["pretraining"]
    shared = SideTimes("  the same in one pass", pretraining["shared"], pretraining["peer"], measured["sequences"])
    comparisons.append(shared)
    print_table("Longformer", comparisons)
    print(f"largest difference of a vector's component between the two: {measured['difference']:.1e}")
    return {"comparisons": summarise(comparisons)} | measured


def benchmark_plmsasrec(config: PlmBenchmark, dataset: Dataset) -> dict[str, Any]:
    """Print the table and return everything measured; all sides take turns in one process."""
    with (
        tempfile.TemporaryDirectory() as folder,
        progress(total=4 * config.repeats, desc="PLMSASRec", unit="turn") as bar,
    ):
        settings = Path(folder) / "settings.json"
        write_json(settings, asdict(config) | {"data_path": str(dataset.path), "cache": folder})
        measured = launch(
            [sys.executable, ROOT / "scripts" / "benchmarks" / "plmsasrec.py", settings],
            tuned_environment(config.threads),
            lambda line: bar.update() if line.startswith("turn ") else None,
        )
    steps, live = measured["steps"], measured["seconds"]["live"]
    per_epoch = measured["steps_per_epoch"] / config.num_steps
    first = [cached * per_epoch + measured["cache_seconds"] for cached in measured["seconds"]["cached"]]
    comparisons = [
        SideTimes("a step, frozen: cached / live", measured["seconds"]["cached"], live, steps),
        SideTimes("a first epoch: cached / live", first, [seconds * per_epoch for seconds in live]),
        SideTimes("a step, trained: ours / padded", measured["seconds"]["ours"], measured["seconds"]["padded"], steps),
    ]
    print_table("beside", comparisons)
    print(f"largest difference of a vector's component between ours and padded: {measured['difference']:.1e}")
    return {"comparisons": summarise(comparisons)} | measured


def main(config: IdBenchmark | RecformerBenchmark | PlmBenchmark) -> None:
    """Measure, print and write the JSON file."""
    dataset = find_dataset(config.dataset, config.data_path)
    machine = {"load_average": os.getloadavg(), "processor": processor(), "platform": platform.platform()}
    if isinstance(config, IdBenchmark):
        kind, results = config.family.lower(), benchmark_id_model(config, dataset)
    elif isinstance(config, PlmBenchmark):
        kind, results = "plmsasrec", benchmark_plmsasrec(config, dataset)
    else:
        kind, results = "recformer", benchmark_recformer(config, dataset)
    path = config.output_dir / f"{kind}-{dataset.name}.json"
    date = time.strftime("%Y-%m-%d %H:%M")
    write_json(path, {"date": date, "machine": machine, "settings": asdict(config)} | results)
    print(f"JSON  {path}")


Command = (
    Annotated[SASRecBenchmark, tyro.conf.subcommand("sasrec")]
    | Annotated[Bert4RecBenchmark, tyro.conf.subcommand("bert4rec")]
    | Annotated[HSTUBenchmark, tyro.conf.subcommand("hstu")]
    | Annotated[RecformerBenchmark, tyro.conf.subcommand("recformer")]
    | Annotated[PlmBenchmark, tyro.conf.subcommand("plmsasrec")]
)

if __name__ == "__main__":
    run_command(main, Command)
