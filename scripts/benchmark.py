"""Measure the project beside its peers, turn by turn on the same machine, and print the ratios.

python scripts/benchmark.py sasrec --dataset amazon-scientific     against RecTools, from scripts/setup_peer.sh rectools
python scripts/benchmark.py recformer --dataset amazon-scientific  against transformers' Longformer on the same weights

A ratio is the peer's median time over ours; in brackets the smallest and the largest of any pair of measurements.
"""

import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from seqrec.command import run_command  # noqa: E402
from seqrec.dataset import Dataset, Histories, find_dataset, leave_one_out  # noqa: E402
from seqrec.files import write_json  # noqa: E402
from seqrec.formatting import size  # noqa: E402


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What both benchmarks ask for."""

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
        for name, value in asdict(self).items():
            if isinstance(value, int) and not isinstance(value, bool) and value < 1 and name != "seed":
                raise ValueError(f"--{name} must be at least 1, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SASRecBenchmark(Common):
    """A training epoch of SASRec with the full softmax, and ranking all users, against RecTools."""

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
    peer_allocator: Literal["system", "tuned"] = "system"
    """C allocator of the peer: as it comes, or with the settings of scripts/env.sh, which our launcher always uses."""


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


@dataclass(frozen=True, slots=True)
class Comparison:
    """Seconds that the two sides took for the same thing, each at least once."""

    name: str
    ours: Sequence[float]
    peer: Sequence[float]
    count: int | None = None
    """What was worked through in that time, if that makes a rate; its unit ends the name."""

    @property
    def ratio(self) -> tuple[float, float, float]:
        """How many times as long the peer takes: of the medians, the smallest and the largest of any pair."""
        middle = median(self.peer) / median(self.ours)
        return middle, min(self.peer) / max(self.ours), max(self.peer) / min(self.ours)

    def line(self) -> str:
        """Return the table's row."""
        middle, low, high = self.ratio
        ours, peer = (self._figure(median(side)) for side in (self.ours, self.peer))
        return f"{self.name:<34}{ours:>12}{peer:>12}{middle:>9.1f} [{low:.1f}, {high:.1f}]"

    def _figure(self, seconds: float) -> str:
        return f"{seconds:.3g} s" if self.count is None else f"{self.count / seconds:.4g}/s"


def launch(
    command: Sequence[str | Path], environment: dict[str, str], on_line: Callable[[str], object]
) -> dict[str, Any]:
    """Run a side as a process of its own and return what it prints last, if that is JSON.

    Args:
        command: Program and arguments.
        environment: Its whole environment.
        on_line: Called with each line it prints.

    Raises:
        ChildProcessError: If it fails; the message ends with its last lines.
    """
    lines: list[str] = []
    with subprocess.Popen(
        list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            on_line(line)
    if process.returncode:
        tail = "\n".join(lines[-20:])
        raise ChildProcessError(f"{' '.join(map(str, command))} ended with status {process.returncode}:\n{tail}")
    return dict(json.loads(lines[-1])) if lines and lines[-1].startswith("{") else {}


def tuned_environment(threads: int) -> dict[str, str]:
    """Return this process's environment with what scripts/env.sh sets for every launcher."""
    command = ["bash", "-c", 'source "$0" && env -0', str(ROOT / "scripts" / "env.sh")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=plain_environment(threads)).stdout
    return dict(pair.split("=", 1) for pair in output.split("\0") if "=" in pair)


def plain_environment(threads: int) -> dict[str, str]:
    """Return this process's environment without a tuned allocator."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    return environment | {"OMP_NUM_THREADS": str(threads)}


def find_peer(name: str) -> Path:
    """Return the Python of a peer's environment.

    Raises:
        FileNotFoundError: If it has not been made.
    """
    python = ROOT / ".venv-peers" / name / "bin" / "python"
    if not python.exists():
        raise FileNotFoundError(f"{python} does not exist: make it with `bash scripts/setup_peer.sh {name}`")
    return python


def run_sasrec(config: SASRecBenchmark, dataset: Dataset, on_line: Callable[[str], object]) -> dict[str, Any]:
    """Return what SASRec/finetune.sh writes of one run.

    It trains one epoch more than is measured, because the last one is validated; the test ranks all users.
    """
    with tempfile.TemporaryDirectory() as folder:
        num_epochs = config.epochs + 1
        flags: dict[str, Any] = {name: getattr(config, name) for name in SHARED}
        flags |= {"data_path": dataset.path, "num_epochs": num_epochs, "eval_every": num_epochs, "runs_dir": folder}
        flags |= {"accelerator": "cpu", "run_name": "benchmark"}
        arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        command: list[str | Path] = ["bash", ROOT / "SASRec" / "finetune.sh", "--no-progress-bar", *arguments]
        launch(command, plain_environment(config.threads), on_line)
        run = Path(folder) / "SASRec" / dataset.name / "benchmark"
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        with (run / "logs" / "metrics.csv").open(encoding="utf-8", newline="") as file:
            curve = list(csv.DictReader(file))[: config.epochs]
    return {
        "epoch_seconds": [float(row["seconds"]) for row in curve],
        "rank_seconds": metrics["cost"]["test_seconds"],
        "loss": float(curve[-1]["train/loss"]),
        "peak_memory_bytes": metrics["cost"]["peak_memory_bytes"],
        "parameters": metrics["cost"]["parameters"],
        "threads": metrics["cost"]["threads"],
    }


SHARED = ("maxlen", "hidden_units", "num_blocks", "num_heads", "dropout_rate", "batch_size", "lr", "seed")
"""Settings of SASRecBenchmark that both sides take."""


def run_rectools(config: SASRecBenchmark, dataset: Dataset, on_line: Callable[[str], object]) -> dict[str, Any]:
    """Return what the same measurement gives for RecTools, on the same training and test histories."""
    python = find_peer("rectools")
    tuned = config.peer_allocator == "tuned"
    environment = (tuned_environment if tuned else plain_environment)(config.threads)
    split = leave_one_out(dataset)
    with tempfile.TemporaryDirectory() as folder:
        interactions, settings = Path(folder) / "interactions.npz", Path(folder) / "settings.json"
        arrays: dict[str, Any] = {}
        for name, view in (("train", split.train), ("test", split.test)):
            arrays[f"{name}_users"], arrays[f"{name}_items"] = flatten(view)
        np.savez(interactions, **arrays)
        values = {name: getattr(config, name) for name in SHARED}
        write_json(settings, values | {"epochs": config.epochs, "interactions": str(interactions)})
        return launch([python, ROOT / "scripts" / "benchmark_peer_rectools.py", settings], environment, on_line)


def flatten(histories: Histories) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return (E,) users and (E,) items of some histories, in order."""
    rows = np.arange(len(histories))
    items, offsets = histories.gather(rows, int(histories.lengths.max()))
    return np.repeat(histories.users, np.diff(offsets)), items


def benchmark_sasrec(config: SASRecBenchmark, dataset: Dataset) -> dict[str, Any]:
    """Print the table and return everything measured."""
    find_peer("rectools")
    sides: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    with tqdm(total=config.rounds * (2 * config.epochs + 1), unit="epoch", leave=False) as bar:

        def advance(line: str) -> None:
            if line.startswith("epoch "):
                bar.update()

        for _ in range(config.rounds):
            bar.set_description("SASRec, ours")
            sides["ours"].append(run_sasrec(config, dataset, advance))
            bar.set_description("SASRec, RecTools")
            sides["peer"].append(run_rectools(config, dataset, advance))
    counted = slice(1 if config.epochs > 1 else 0, None)
    epochs = {side: [s for run in runs for s in run["epoch_seconds"][counted]] for side, runs in sides.items()}
    ranking = {side: [run["rank_seconds"] for run in runs] for side, runs in sides.items()}
    comparisons = [
        Comparison("training epoch", epochs["ours"], epochs["peer"]),
        Comparison("ranking all users", ranking["ours"], ranking["peer"]),
    ]
    print_table("RecTools", comparisons)
    first = {side: runs[0] for side, runs in sides.items()}
    for name, show in (("peak_memory_bytes", size), ("loss", "{:.4f}".format), ("threads", str)):
        ours, peer = (show(first[side][name]) for side in ("ours", "peer"))
        print(f"{name.replace('_', ' ').removesuffix(' bytes'):<34}{ours:>12}{peer:>12}")
    return {"comparisons": summarise(comparisons)} | sides


def benchmark_recformer(config: RecformerBenchmark, dataset: Dataset) -> dict[str, Any]:
    """Print the table and return everything measured; both sides take turns in one process."""
    with (
        tempfile.TemporaryDirectory() as folder,
        tqdm(total=7 * config.repeats, desc="Recformer", unit="turn", leave=False) as bar,
    ):
        settings = Path(folder) / "settings.json"
        write_json(settings, asdict(config) | {"data_path": str(dataset.path)})
        measured = launch(
            [sys.executable, ROOT / "scripts" / "benchmark_recformer.py", settings],
            tuned_environment(config.threads),
            lambda line: bar.update() if line.startswith("turn ") else None,
        )
    comparisons = [
        Comparison(name, measured[what]["ours"], measured[what]["peer"], measured[count])
        for name, what, count in (
            ("item encoding, items", "encoding", "items"),
            ("finetuning step, sequences", "training", "sequences"),
            ("pretraining step, sequences", "pretraining", "sequences"),
        )
    ]
    pretraining = measured["pretraining"]
    shared = Comparison("  the same in one pass", pretraining["shared"], pretraining["peer"], measured["sequences"])
    comparisons.append(shared)
    print_table("Longformer", comparisons)
    print(f"largest difference of a vector's component between the two: {measured['difference']:.1e}")
    return {"comparisons": summarise(comparisons)} | measured


def print_table(peer: str, comparisons: Sequence[Comparison]) -> None:
    """Print one line per comparison."""
    print(f"{'':<34}{'ours':>12}{peer:>12}{'ratio':>9} [min, max]")
    for comparison in comparisons:
        print(comparison.line())


def summarise(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return the comparisons with their ratios, as JSON holds them."""
    return [asdict(c) | {"ratio": dict(zip(("median", "min", "max"), c.ratio, strict=True))} for c in comparisons]


def main(config: SASRecBenchmark | RecformerBenchmark) -> None:
    """Measure, print and write the JSON file."""
    dataset = find_dataset(config.dataset, config.data_path)
    machine = {"load_average": os.getloadavg(), "processor": processor(), "platform": platform.platform()}
    if isinstance(config, SASRecBenchmark):
        kind, results = "sasrec", benchmark_sasrec(config, dataset)
    else:
        kind, results = "recformer", benchmark_recformer(config, dataset)
    path = config.output_dir / f"{kind}-{dataset.name}.json"
    date = time.strftime("%Y-%m-%d %H:%M")
    write_json(path, {"date": date, "machine": machine, "settings": asdict(config)} | results)
    print(f"JSON  {path}")


def processor() -> str:
    """Return the processor's name and its number of cores."""
    names = [part for part in _cpuinfo() if part.startswith("model name")]
    return f"{names[0].split(':')[1].strip() if names else platform.machine()}, {os.cpu_count()} cores"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


Command = (
    Annotated[SASRecBenchmark, tyro.conf.subcommand("sasrec")]
    | Annotated[RecformerBenchmark, tyro.conf.subcommand("recformer")]
)

if __name__ == "__main__":
    run_command(main, Command)
