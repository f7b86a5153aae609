"""Show how much memory a process takes at the most: it grows with positions plus items, never with their product.

python scripts/benchmarks/memory.py softmax --num_items 1000000 --positions 8192 --width 128
python scripts/benchmarks/memory.py ranking --num_items 1500000 --num_users 1000000 --measured_users 4096 --width 128
python scripts/benchmarks/memory.py blocks --gigabytes 2 --limit_gigabytes 1.9
python scripts/benchmarks/memory.py events --num_events 100000000
python scripts/benchmarks/memory.py sharded --num_items 1000000 --width 128 --strategy fsdp

`blocks` runs a language model of random weights over items under a limit of memory below the size of the weights, one
block at a time; `events` prepares a folder of Parquet files of random events; `sharded` trains SASRec on 128 users of a
large catalogue in one process, and in several that share its weights and the optimiser's state.
"""

import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from seqrec.basics.checks import list_flags, require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.formatting import duration, size
from seqrec.basics.paths import ROOT
from seqrec.basics.progress import progress
from seqrec.evaluation.ranking import rank_targets
from seqrec.nn.losses import full_softmax
from seqrec.training.record import peak_memory


@dataclass(frozen=True, slots=True)
class Common:
    """Sizes that both ask for."""

    num_items: int = 1_000_000
    """Items of the catalogue."""
    width: int = 128
    """Numbers of a vector."""
    seed: int = 0
    """Of vectors and targets."""

    def __post_init__(self) -> None:
        require_at_least(1, self, *(name for name, value in list_flags(self) if type(value) is int and name != "seed"))


@dataclass(frozen=True, slots=True)
class Softmax(Common):
    """Training steps with the exact softmax over a large catalogue."""

    positions: int = 8192
    """Targets of a batch."""
    steps: int = 2
    """Optimiser steps; the first one makes Adam's state."""


@dataclass(frozen=True, slots=True)
class RankingMemory(Common):
    """Ranking users' targets among a large catalogue, and what all users would take."""

    num_users: int = 1_000_000
    """Users to project to."""
    measured_users: int = 4096
    """Users that are ranked here."""
    batch_size: int = 1024
    """Users at one time."""


@dataclass(frozen=True, slots=True)
class BlocksMemory:
    """A Llama of random weights that runs block by block."""

    gigabytes: float = 2.0
    """Size of its weights, in 10^9 bytes."""
    limit_gigabytes: float = 1.9
    """Limit of the process's address space, as `ulimit -v` sets it."""
    num_items: int = 100
    """Items, of 16 tokens each."""
    width: int = 1024
    """Width of the model."""
    seed: int = 0
    """Of weights and texts."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "num_items", "width")


@dataclass(frozen=True, slots=True)
class EventsMemory:
    """Preparing random events with times: 40 a user, a few items in most of them."""

    num_events: int = 100_000_000
    """Events."""
    num_items: int = 1_000_000
    """Items, of which the rarest never occur."""
    parts: int = 10
    """Parquet files that hold them."""
    folder: Path | None = None
    """Where they and the dataset go for as long as it takes; by default the system's folder for temporary files."""
    seed: int = 0
    """Of the events."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "num_events", "num_items", "parts")


@dataclass(frozen=True, slots=True)
class ShardedMemory(Common):
    """An epoch of SASRec, the validation and the test of a few users, in one process and in several."""

    strategy: Literal["fsdp", "deepspeed_stage_3"] = "fsdp"
    """How weights and the optimiser's state are shared out."""
    processes: int = 2
    """Processes that share them."""


def measure_softmax(config: Softmax) -> str:
    """Return what the steps took."""
    torch.manual_seed(config.seed)
    before = peak_memory()
    items = torch.nn.Parameter(torch.randn(config.num_items + 1, config.width) * config.width**-0.5)
    optimizer = torch.optim.AdamW([items], fused=True)
    seconds = []
    for _ in progress(range(config.steps), desc="steps"):
        hidden = torch.randn(config.positions, config.width, requires_grad=True)
        targets = torch.randint(1, config.num_items + 1, (config.positions,))
        start = time.perf_counter()
        full_softmax(hidden, items, targets).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
    kept = 3 * items.numel() * items.element_size()  # weights and Adam's two averages
    most = peak_memory()
    return (
        f"softmax of {config.positions:,} positions over {config.num_items:,} items of width {config.width}: "
        f"{duration(min(seconds))} a step; at most {size(most)}, of which {size(kept)} weights and optimiser, "
        f"{size(before)} Python and PyTorch, {size(most - kept - before)} the step"
    )


def measure_ranking(config: RankingMemory) -> str:
    """Return what ranking took, and would take for all users."""
    torch.manual_seed(config.seed)
    before = peak_memory()
    items = torch.randn(config.num_items + 1, config.width)
    batches = range(0, config.measured_users, config.batch_size)
    after_first, start = 0, time.perf_counter()
    for first in progress(batches, desc="ranking", unit="batch"):
        users = torch.randn(min(config.batch_size, config.measured_users - first), config.width)
        rank_targets(users, items, torch.randint(1, config.num_items + 1, (len(users),)))
        after_first = after_first or peak_memory()
    seconds = time.perf_counter() - start
    held, whole = items.numel() * items.element_size(), seconds * config.num_users / config.measured_users
    return (
        f"{config.measured_users:,} users ranked among {config.num_items:,} items of width {config.width} in "
        f"{duration(seconds)}, so {config.num_users:,} in {duration(whole)}; "
        f"at most {size(after_first)} after the first {config.batch_size:,} users and {size(peak_memory())} after all, "
        f"of which {size(held)} item vectors and {size(before)} Python and PyTorch"
    )


def write_llama(folder: Path, config: BlocksMemory) -> None:
    """Write a Llama in shards of one block."""
    import safetensors.torch

    width, inner, heads = config.width, config.width * 8 // 3, max(1, config.width // 128)
    shapes = {
        **{f"self_attn.{name}_proj": (width, width) for name in "qkvo"},
        **{f"mlp.{name}_proj": (inner, width) for name in ("gate", "up")},
        "mlp.down_proj": (width, inner),
        **{f"{name}_layernorm": (width,) for name in ("input", "post_attention")},
    }
    block_bytes = 4 * sum(torch.Size(shape).numel() for shape in shapes.values())
    count = max(1, round(config.gigabytes * 1e9 / block_bytes))
    places: dict[str, str] = {}

    def write(shard: str, tensors: dict[str, torch.Tensor]) -> None:
        safetensors.torch.save_file(tensors, folder / shard)
        places.update(dict.fromkeys(tensors, shard))

    torch.manual_seed(config.seed)
    write("words.safetensors", {"embed_tokens.weight": torch.randn(1000, width), "norm.weight": torch.ones(width)})
    for block in progress(range(count), desc="writing blocks"):
        tensors = {
            f"layers.{block}.{name}.weight": torch.randn(shape) * 0.02 if len(shape) == 2 else torch.ones(shape)
            for name, shape in shapes.items()
        }
        write(f"block-{block}.safetensors", tensors)
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": heads, "num_hidden_layers": count}
    model = {"model_type": "llama", "vocab_size": 1000, "num_key_value_heads": heads} | sizes
    (folder / "config.json").write_text(json.dumps(model), encoding="utf-8")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")


def measure_blocks(config: BlocksMemory) -> str:
    """Return what running the model took."""
    import numpy as np

    from seqrec.text.blocks import Architecture
    from seqrec.text.states import FrozenPart, StatesOptions
    from seqrec.text.texts import TextTokens

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        # In a process of its own: what it has held would count as this one's.
        writer = multiprocessing.get_context("spawn").Process(target=write_llama, args=(folder, config))
        writer.start()
        writer.join()
        weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        limit = int(config.limit_gigabytes * 1e9)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        tokens = np.random.default_rng(config.seed).integers(0, 1000, 16 * config.num_items).astype(np.int32)
        texts = TextTokens(tokens, np.concatenate(([0], np.arange(config.num_items + 1) * 16)))
        options = StatesOptions(block_by_block=True)
        architecture, start = Architecture.read(folder), time.perf_counter()
        count = architecture.num_blocks
        vectors = FrozenPart(Path(scratch) / "cache", architecture, texts, count, options).vectors("mean")
        seconds = time.perf_counter() - start
    return (
        f"{len(vectors) - 1:,} items through {count} blocks, {size(weights)} of weights, in {duration(seconds)}; the "
        f"address space was limited to {size(limit)}, and at most {size(peak_memory())} were resident"
    )


def write_events(folder: Path, config: EventsMemory) -> None:
    """Write the parts of a table."""
    import numpy as np
    import polars as pl

    draw, most = np.random.default_rng(config.seed), max(config.num_events // 40, 1)
    parts = np.array_split(np.arange(config.num_events), config.parts)
    for number, part in enumerate(progress(parts, desc="writing events", unit="file")):
        columns = {
            "user_id": draw.integers(0, most, len(part)),
            "item_id": draw.zipf(1.2, len(part)) % config.num_items,
            "time": draw.integers(1_600_000_000, 1_700_000_000, len(part)),
        }
        pl.DataFrame(columns).write_parquet(folder / f"part-{number:05d}.parquet")


def prepare_events(config: EventsMemory) -> tuple[str, float]:
    """Prepare them; return what they are, and the seconds that this took, their card included."""
    from seqrec.data.dataset import load_dataset
    from seqrec.data.preparation import prepare
    from seqrec.data.sources.table import TableFile
    from seqrec.evaluation.signal import describe_fully

    with tempfile.TemporaryDirectory(dir=config.folder) as scratch:
        folder = Path(scratch) / "events"
        folder.mkdir()
        # In a process of its own: what it has held would count as this one's.
        writer = multiprocessing.get_context("spawn").Process(target=write_events, args=(folder, config))
        writer.start()
        writer.join()
        source = TableFile(input=folder, timestamp_column="time", name="prepared", data_dir=Path(scratch))
        start = time.perf_counter()
        dataset = load_dataset(prepare(source))
        describe_fully(dataset)
        seconds = time.perf_counter() - start
        found = f"{len(dataset.items):,} events of {dataset.num_users:,} users and {dataset.num_items:,} items"
    return found, seconds


def measure_events(config: EventsMemory) -> str:
    """Return what preparing them took."""
    before = peak_memory()
    found, seconds = prepare_events(config)
    return (
        f"{found} prepared in {duration(seconds)}, {duration(seconds * 1e6 / config.num_events)} a million; "
        f"at most {size(peak_memory())}, of which {size(before)} Python and PyTorch"
    )


def prepare_catalogue(folder: Path, num_items: int) -> None:
    """Prepare a dataset of random histories of 40 events, in which every item occurs once."""
    import numpy as np
    import polars as pl

    from seqrec.data.preparation import prepare
    from seqrec.data.sources.table import TableFile

    items = np.random.default_rng(0).permutation(num_items)
    events = folder / "events.parquet"
    pl.DataFrame({"user_id": np.arange(num_items) // 40, "item_id": items}).write_parquet(events)
    prepare(TableFile(input=events, name="prepared", data_dir=folder))


def peaks_of(command: list[str]) -> list[int]:
    """Run a command; return what each Python process of it held at the most, in bytes, in ascending order.

    Raises:
        ChildProcessError: If it fails; the message ends with its last lines.
    """
    peaks: dict[int, int] = {}
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        while process.poll() is None:
            peaks |= _peaks_of_family(process.pid)
            time.sleep(0.1)
        if process.returncode:
            said.seek(0)
            raise ChildProcessError(f"{' '.join(command)} ended with {process.returncode}:\n{said.read()[-2000:]}")
    return sorted(peaks.values())


def _peaks_of_family(first: int) -> dict[int, int]:
    parents, peaks = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        except OSError:  # it has ended
            continue
        parents[int(folder.name)] = int(lines["PPid"])
        # PyTorch renames its processes.
        if lines["Name"].strip().startswith(("python", "pt_")) and "VmHWM" in lines:
            peaks[int(folder.name)] = int(lines["VmHWM"].split()[0]) * 1024
    family = {first}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return {process: peaks[process] for process in family & peaks.keys()}


def measure_sharded(config: ShardedMemory) -> str:
    """Return what the processes of both held."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        # In a process of its own: what it has held would count as this one's.
        writer = multiprocessing.get_context("spawn").Process(target=prepare_catalogue, args=(folder, config.num_items))
        writer.start()
        writer.join()
        flags = ["--data_path", folder / "prepared", "--runs_dir", folder / "runs", "--hidden_units", config.width]
        flags += ["--num_epochs", 1, "--train_users", 128, "--valid_users", 128, "--batch_size", 64]
        flags += ["--split", "users", "--accelerator", "cpu", "--seed", config.seed, "--no-progress_bar"]
        command = [sys.executable, ROOT / "SASRec" / "finetune.py", *flags]
        alone = peaks_of([*map(str, command), "--run_name", "alone"])
        shared = ["--devices", config.processes, "--strategy", config.strategy, "--run_name", "shared"]
        several = peaks_of([*map(str, command), *map(str, shared)])[-config.processes :]
    table = (config.num_items + 1) * config.width * 4
    return (
        f"SASRec over {config.num_items:,} items of width {config.width}, a table of {size(table)}: one process holds "
        f"{size(alone[-1])} at most, of {config.processes} under {config.strategy} each at most {size(several[-1])}"
    )


def main(config: Softmax | RankingMemory | BlocksMemory | EventsMemory | ShardedMemory) -> None:
    """Measure and print a sentence."""
    if isinstance(config, Softmax):
        print(measure_softmax(config))
    elif isinstance(config, RankingMemory):
        print(measure_ranking(config))
    elif isinstance(config, ShardedMemory):
        print(measure_sharded(config))
    else:
        print(measure_blocks(config) if isinstance(config, BlocksMemory) else measure_events(config))


Command = (
    Annotated[Softmax, tyro.conf.subcommand("softmax")]
    | Annotated[RankingMemory, tyro.conf.subcommand("ranking")]
    | Annotated[BlocksMemory, tyro.conf.subcommand("blocks")]
    | Annotated[EventsMemory, tyro.conf.subcommand("events")]
    | Annotated[ShardedMemory, tyro.conf.subcommand("sharded")]
)

if __name__ == "__main__":
    run_command(main, Command)
