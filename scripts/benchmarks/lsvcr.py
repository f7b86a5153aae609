"""Time LSVCR's second stage beside a padded model of the same equations, and its export at two sizes of a catalogue.

    python scripts/benchmarks/lsvcr.py training --dataset comments-demo --text longformer
    python scripts/benchmarks/lsvcr.py export --texts 10000 100000

`training` runs steps on the same batches, with the same weights: a batch of the padded model is as long as its longest
history, and the texts of every place of it are looked up and adapted, as the published code does. Their losses are
compared before anything is timed. A ratio is the padded model's median time over ours; in brackets the smallest and the
largest of any pair of measurements. `export` encodes made-up texts in a process of their own and reports texts per
second and the peak of its memory, without the pages of the files that it writes; it needs Linux.
"""

import copy
import logging
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from LSVCR.cases import VideoCases
from LSVCR.data import read_texts
from LSVCR.model import PostNormBlock, SRModel
from LSVCR.module import VideoModule
from LSVCR.options import Config as ModelConfig
from LSVCR.training import open_module
from scripts.benchmarks.sides import SideTimes, print_table, processor, summarise
from seqrec.basics.checks import require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.files import write_json
from seqrec.basics.paths import ROOT
from seqrec.basics.progress import progress
from seqrec.data.batches import BatchKey
from seqrec.data.comments import load_comments
from seqrec.data.discovery import open_dataset

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Steps of training for Rec."""

    dataset: str = "comments-demo"
    """Name of a prepared dataset with comments."""
    text: str = "longformer"
    """Text vectors that are there for its videos and comments."""
    batch_size: int = 512
    """Cases of a batch."""
    steps: int = 10
    """Batches of one measurement."""
    repeats: int = 5
    """Measurements of each side, turn by turn."""
    threads: int = 1
    """Threads of each side."""
    output_dir: Path = ROOT / "runs" / "benchmark"
    """Where the JSON file goes."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "batch_size", "steps", "repeats", "threads")


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """Encoding of made-up texts."""

    texts: tuple[int, ...] = (10_000, 100_000)
    """Comments of each dataset."""
    words: int = 12
    """Words of a comment."""
    model_name_or_path: str = "smollm2"
    """A decoder, as in LSVCR/encode.py."""
    llm_num_blocks: int = 1
    """Its first blocks alone, so many of them."""
    output_dir: Path = ROOT / "runs" / "benchmark"
    """Where the JSON file goes."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "words", "llm_num_blocks", *(() if self.texts else ("texts",)))
        if not self.texts or min(self.texts) < 1:
            raise UserError(f"--texts must be numbers above 0, got {self.texts}")


class Padded(NamedTuple):
    """A batch in rectangles of B users, longest history of videos first, by the longest, L videos and M entries."""

    items: tuple[Tensor, Tensor]
    """(B, L) and (B, M), 0 where there is none."""
    masks: tuple[Tensor, Tensor]
    """(B, L) and (B, M) bool, whether there is a row; an empty history has one, of item 0."""
    hot: Tensor
    """(B, L) rows of texts."""
    taken: Tensor
    """(B, M, C) rows of texts, 0 for none."""
    texts: Tensor
    targets: Tensor


def pad(batch: Any) -> Padded:
    """Return the rectangles of a ragged batch."""
    inputs = batch.inputs

    def fill(values: Tensor, lengths: Tensor) -> Tensor:
        filled: Tensor = nn.utils.rnn.pad_sequence(list(values.split(lengths.tolist())), batch_first=True)
        return filled

    lengths = [layout.offsets.diff() for layout in inputs.layouts]
    counts = torch.bincount(inputs.owner, minlength=len(inputs.entries))
    groups = fill(inputs.taken, counts)  # (Q, C)
    videos, entries = inputs.videos, inputs.entries
    return Padded(
        items=(fill(videos, lengths[0]), fill(entries, lengths[1])),
        masks=(fill(torch.ones_like(videos), lengths[0]) > 0, fill(torch.ones_like(entries), lengths[1]) > 0),
        hot=fill(inputs.hot, lengths[0]),
        taken=fill(groups, lengths[1]),
        texts=inputs.texts,
        targets=batch.targets[inputs.order.argsort()],
    )


def attend(block: Any, asked: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
    """Return (B, L, D) attention with a mask that broadcasts to (B, heads, L, M)."""

    def heads(x: Tensor) -> Tensor:
        split: Tensor = x.unflatten(2, (block.num_heads, -1))
        return split.transpose(1, 2)

    key, value = block.key_value(seen).chunk(2, dim=2)
    rate = block.dropout_rate if block.training else 0.0
    mixed = F.scaled_dot_product_attention(heads(block.query(asked)), heads(key), heads(value), mask, dropout_p=rate)
    out: Tensor = block.attention_out(mixed.transpose(1, 2).flatten(2))
    return out


def post_norm(block: PostNormBlock, asked: Tensor, seen: Tensor, mask: Tensor) -> Tensor:
    """Return what a block makes of (B, L, D) rows."""
    x = block.attention_norm(asked + block.dropout(attend(block, asked, seen, mask)))
    out: Tensor = block.feed_forward_norm(x + block.feed_forward(x))
    return out


def padded_users(model: SRModel, batch: Padded) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return (B, D) users for Rec and what texts say of the places of each history."""
    assert model.titles is not None and model.ids is not None and model.gate is not None
    titles = model.titles
    hot = model.text(batch.texts[batch.hot]) * (batch.hot > 0)[..., None]
    there = (batch.taken > 0)[..., None]
    taken = (model.text(batch.texts[batch.taken]) * there).sum(dim=2) / there.sum(dim=2).clamp(min=1)
    states, texts = [], []
    histories = model.video_history, model.comment_history
    for items, mask, said, history in zip(batch.items, batch.masks, (hot, taken), histories, strict=True):
        text = model.merge(torch.cat([model.text(titles[items]), said], dim=2))
        x = model.gate * model.ids(items) + text
        x = torch.where((items == 0)[..., None], history.empty, x) + history.places.weight[: items.shape[1]]
        x = history.dropout(history.norm(x))
        causal = torch.ones(items.shape[1], items.shape[1], dtype=torch.bool).tril()
        for block in history.blocks:
            assert isinstance(block, PostNormBlock)
            x = post_norm(block, x, x, causal & mask[:, None, None] | torch.eye(len(causal), dtype=torch.bool))
        states.append(x)
        texts.append(text)
    mixing: Any = model.mixing["Rec"]
    x = states[0]
    for block in mixing.blocks:
        x = post_norm(block, x, states[1], batch.masks[1][:, None, None])
    x = mixing.out(torch.cat([states[0], x], dim=2))
    readout: Any = model.readout["Rec"]
    weights = readout.score(x)[..., 0].masked_fill(~batch.masks[0], -torch.inf).softmax(dim=1)
    users: Tensor = (weights[..., None] * x).sum(dim=1)
    return users, (texts[0], texts[1])


def padded_loss(module: VideoModule, batch: Padded) -> Tensor:
    """Return the loss of `VideoModule.training_step`, from rectangles."""
    config = module.config
    users, texts = padded_users(module.model, batch)
    logits = F.normalize(users, dim=1) @ module.item_vectors().T / config.temperature
    loss = F.cross_entropy(logits[:, 1:], batch.targets - 1)
    rows = tuple(items[mask] for items, mask in zip(batch.items, batch.masks, strict=True))
    said = tuple(text[mask] for text, mask in zip(texts, batch.masks, strict=True))
    alike = module.model.id_text_loss(
        (rows[0], rows[1]), (said[0], said[1]), config.contrast_neg_num, config.temperature
    )
    total: Tensor = loss + config.id_text_loss_weight * alike
    return total


def open_on(flags: ModelConfig, config: Training) -> tuple[VideoModule, list[Any]]:
    """Return a module by the flags of LSVCR/finetune.py, and some batches of training."""
    dataset = open_dataset(flags.dataset, flags.data_path)
    comments = load_comments(dataset)
    texts = read_texts(comments, flags)
    if texts is None:
        raise UserError("--text none leaves no texts to pad: give --text NAME")
    torch.manual_seed(0)
    module, _ = open_module(flags, comments, texts)
    assert isinstance(module, VideoModule)
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    cases = VideoCases(module.streams, flags.protocol.hold_out(dataset).train, seed=0)
    rows = np.random.default_rng(0).permutation(len(cases.at))
    if len(rows) < config.steps * config.batch_size:
        raise UserError(f"{dataset.path} has {len(rows):,} cases, less than --steps {config.steps} x --batch_size")
    keys = rows[: config.steps * config.batch_size].reshape(config.steps, -1)
    return module, [cases[BatchKey(key, 0, 0)] for key in keys]


def time_training(config: Training, module: VideoModule, batches: list[Any]) -> SideTimes:
    """Return the seconds of `steps` batches on each side."""
    padded = [pad(batch) for batch in batches]
    other = copy.deepcopy(module)
    for side in (module, other):
        side.eval()
    for draw, (batch, rectangle) in enumerate(zip(batches, padded, strict=True)):
        torch.manual_seed(draw)  # the negatives of ids and texts
        mine = module.training_step(batch)
        torch.manual_seed(draw)
        torch.testing.assert_close(padded_loss(other, rectangle), mine, atol=1e-3, rtol=1e-3)
    for side in (module, other):
        side.train()
    ours, peer = torch.optim.AdamW(module.parameters()), torch.optim.AdamW(other.parameters())

    def run(optimizer: torch.optim.Optimizer, losses: Any) -> float:
        start = time.perf_counter()
        for step in losses:
            optimizer.zero_grad()
            step().backward()
            optimizer.step()
        return time.perf_counter() - start

    found: tuple[list[float], list[float]] = ([], [])
    for repeat in progress(range(config.repeats + 1), desc="measuring"):
        times = (
            run(ours, (lambda batch=batch: module.training_step(batch) for batch in batches)),
            run(peer, (lambda batch=batch: padded_loss(other, batch) for batch in padded)),
        )
        if repeat:  # the first one warms up
            for kept, seconds in zip(found, times, strict=True):
                kept.append(seconds)
    return SideTimes("training cases", *found, count=config.steps * config.batch_size)


def measure_training(config: Training) -> None:
    """Time both sides and print the ratio."""
    torch.set_num_threads(config.threads)
    module, batches = open_on(ModelConfig(dataset=config.dataset, text=config.text), config)
    times = time_training(config, module, batches)
    lengths = np.concatenate([batch.inputs.layouts[0].offsets.diff().numpy() for batch in batches])
    log.info("%s, torch %s, %d threads", processor(), torch.__version__, config.threads)
    log.info("videos of a history: %.1f on average, %d at most", lengths.mean(), lengths.max())
    print_table("padded", [times])
    write_json(config.output_dir / "lsvcr-training.json", {"times": summarise([times]), "on": platform.processor()})


ENCODE = """
import sys, threading, time
from pathlib import Path
from LSVCR.align_options import EncodeConfig
from LSVCR.encoding import encode_texts

peak, done = 0, threading.Event()

def watch():
    global peak
    while not done.wait(0.05):
        own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
        peak = max(peak, int(own.split()[1]))

watcher = threading.Thread(target=watch)
watcher.start()
encode_texts(EncodeConfig(data_path=Path(sys.argv[1]), embedding_dir=Path(sys.argv[2]), tokenized_len=32,
                          model_name_or_path=sys.argv[3], llm_num_blocks=int(sys.argv[4])))
done.set()
watcher.join()
print(peak)
"""
"""What a process of its own runs; of its memory it counts what is not a file's, as the vectors are one."""


def make_texts(folder: Path, count: int, words: int) -> Path:
    """Write a prepared dataset of one hundred videos with so many different comments."""
    from seqrec.data.preparation import prepare
    from seqrec.data.sources.comments import CommentTables

    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 5000, (count, words))
    tables: dict[str, dict[str, Any]] = {
        "videos": {"video_id": [f"V{i}" for i in range(100)], "title": [f"video {i}" for i in range(100)]},
        "comments": {
            "comment_id": [f"C{i}" for i in range(count)],
            "video_id": [f"V{i}" for i in rng.integers(0, 100, count)],
            "content": [" ".join(f"word{number}" for number in row) for row in drawn.tolist()],
        },
        "video_events": {"user_id": ["u"] * 100, "video_id": [f"V{i}" for i in range(100)], "timestamp": range(100)},
        "comment_events": {"user_id": ["u"], "comment_id": ["C0"], "timestamp": [1]},
    }
    paths = {name: folder / f"{name}.parquet" for name in tables}
    for name, columns in tables.items():
        pl.DataFrame(columns).write_parquet(paths[name])
    return prepare(CommentTables(name=f"texts-{count}", data_dir=folder / "data", **paths))  # type: ignore[arg-type]


def measure_export(config: Export) -> None:
    """Encode catalogues of several sizes and print texts per second and memory."""
    rows = []
    for count in config.texts:
        with tempfile.TemporaryDirectory() as place:
            data = make_texts(Path(place), count, config.words)
            start = time.perf_counter()
            flags = (str(data), f"{place}/embedding", config.model_name_or_path, str(config.llm_num_blocks))
            done = subprocess.run(
                [sys.executable, "-c", ENCODE, *flags], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
            )
            seconds, peak = time.perf_counter() - start, int(done.stdout.split()[-1]) / 1024
        rows.append({"texts": count, "seconds": seconds, "peak_MiB": peak})
        log.info("%9s texts: %7.1f s, %6.0f a second, %6.0f MiB", f"{count:,}", seconds, count / seconds, peak)
    write_json(config.output_dir / "lsvcr-export.json", {"rows": rows, "on": processor()})


Config = Annotated[Training, tyro.conf.subcommand("training")] | Annotated[Export, tyro.conf.subcommand("export")]


def main(config: Config) -> None:
    """Measure what is asked for."""
    if isinstance(config, Training):
        measure_training(config)
    else:
        measure_export(config)


if __name__ == "__main__":
    run_command(main, Config)
