"""Time how item texts become vectors, beside sentence-transformers' `encode`: the same MiniLM, precision and threads.

python scripts/benchmarks/encoding.py --dataset amazon-scientific
python scripts/benchmarks/encoding.py --dataset amazon-scientific --precision bf16

Both sides start from texts, so tokenising counts. Ours is what PLMSASRec, PerSRec and Recformer's frozen encoders do:
texts of one length side by side, no padding. The vectors are means of a text's tokens, in float32 equal to rounding.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from scripts.benchmarks.sides import SideTimes, print_table, take_turns
from seqrec.basics.checks import require_at_least
from seqrec.basics.command import run_command
from seqrec.data.dataset import find_dataset
from seqrec.items.words import read_texts
from seqrec.text.backbones import find_backbone, read_tokenizer
from seqrec.text.blocks import Architecture
from seqrec.text.states import DTYPES, FrozenPart, StatesOptions
from seqrec.text.texts import TextTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Time the encoding of item texts beside sentence-transformers."""

    dataset: str | None = None
    """Name of a prepared dataset in data/."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere."""
    model: str = "minilm"
    """A sentence encoder: minilm, a folder or a hub name, whose vectors are means of tokens."""
    num_items: int = 1024
    """Items, the first of the catalogue."""
    max_tokens: int = 96
    """Tokens of a text that are read."""
    precision: Literal["32", "bf16"] = "32"
    """Of weights and products."""
    batch_size: int = 32
    """Texts per batch of sentence-transformers; 32 is its default."""
    repeats: int = 3
    """Turns of each side, after one that does not count."""
    threads: int = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    """Threads; by default OMP_NUM_THREADS, else one per core."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "num_items", "max_tokens", "batch_size", "repeats", "threads")


class Sides:
    """Both ways from texts to vectors."""

    def __init__(self, config: Config, texts: list[str]) -> None:
        """Open the model on both sides."""
        self.config, self.texts = config, texts
        folder = find_backbone(config.model)
        self.architecture, self.tokenizer = Architecture.read(folder), read_tokenizer(folder)
        self.peer = SentenceTransformer(str(folder), device="cpu").to(DTYPES[config.precision])
        self.peer.max_seq_length = config.max_tokens
        self.vectors: dict[str, NDArray[np.float32]] = {}

    def encode_ours(self) -> None:
        """Encode by the project, without a cache of an earlier turn."""
        found = self.tokenizer(self.texts, truncation=True, max_length=self.config.max_tokens)["input_ids"]
        lengths = np.array([0, *map(len, found)], dtype=np.int64)
        tokens = TextTokens(np.concatenate(found).astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]))
        options = StatesOptions(precision=self.config.precision)
        with tempfile.TemporaryDirectory() as folder:
            part = FrozenPart(Path(folder), self.architecture, tokens, self.architecture.num_blocks, options)
            pooled = np.array(part.vectors("mean")[1:], dtype=np.float32)
        self.vectors["ours"] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    def encode_peer(self) -> None:
        """Encode by sentence-transformers."""
        found: Any = self.peer.encode(
            self.texts, batch_size=self.config.batch_size, convert_to_tensor=True, show_progress_bar=False
        )
        pooled = found.float().numpy()
        self.vectors["peer"] = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def main(config: Config) -> None:
    """Measure and print the table."""
    torch.set_num_threads(config.threads)
    texts = read_texts(find_dataset(config.dataset, config.data_path))[: config.num_items]
    sides = Sides(config, texts)
    seconds = take_turns("encoding", config.repeats, ours=sides.encode_ours, peer=sides.encode_peer)
    print_table("sentence-t.", [SideTimes("encoding, items", seconds["ours"], seconds["peer"], len(texts))])
    cosines = (sides.vectors["ours"] * sides.vectors["peer"]).sum(axis=1)
    print(f"least cosine of an item's two vectors: {cosines.min():.6f}")


if __name__ == "__main__":
    run_command(main, Config)
