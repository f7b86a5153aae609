"""What the frozen part of a language model makes of the items' texts: computed once, memory-mapped from then on.

The cache's name is a hash of the texts in tokens, the weights, the number of blocks and the precision, so it is never
out of date. It is made part by part, by one process or several, and a kill costs the parts that were being made.
A model that does not fit in memory is run block by block over all items.

Shapes: N items, T tokens of all of them, D width.
"""

import logging
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqrec.basics.cache import CachedArrays
from seqrec.basics.errors import UserError
from seqrec.nn.ragged import plan_batch
from seqrec.text.blocks import Architecture, Blocks
from seqrec.text.options import TextPooling
from seqrec.text.pooling import pool_texts
from seqrec.text.reading import TextReading
from seqrec.text.texts import Texts, TextTokens

log = logging.getLogger(__name__)
StatesPrecision = Literal["32", "16", "bf16"]
DTYPES = {"32": torch.float32, "16": torch.float16, "bf16": torch.bfloat16}
PART_BYTES = 1 << 26
"""States of a part, about, as float32."""
_SHARE_OF_MEMORY = 0.5
"""Of the memory that is free: weights above it are run block by block."""


@dataclass(frozen=True, slots=True)
class StatesOptions:
    """How states are computed."""

    precision: StatesPrecision = "32"
    """Of weights, products and stored states."""
    batch_size: int = 256
    """Items at a time."""
    block_by_block: bool | None = None
    """Hold one block at a time; None decides by the memory that is free."""
    devices: tuple[str, ...] = ("cpu",)
    """Where to run, one process each."""


@dataclass(frozen=True, slots=True)
class ItemStates:
    """States of the items' tokens after some blocks."""

    tokens: TextTokens
    states: NDArray[Any]
    """(T, D), memory-mapped; bfloat16 as its bits, uint16."""

    def read(self, ids: NDArray[np.int64]) -> Texts:
        """Return the states of (B,) items in 1..N, float32."""
        rows, offsets = self.tokens.places(ids)
        return Texts(_as_tensor(self.states[rows]).float(), torch.from_numpy(offsets))


class FrozenPart:
    """The first blocks of a language model over a catalogue, and the caches of their output."""

    def __init__(
        self, folder: Path, architecture: Architecture, tokens: TextTokens, blocks: int, options: StatesOptions
    ) -> None:
        """Name the caches.

        Args:
            folder: Of the caches.
            architecture: Of the model.
            tokens: The catalogue.
            blocks: Number of frozen blocks, from the first; 0 is the embeddings alone.
            options: How to compute.
        """
        self.folder, self.architecture, self.tokens, self.blocks = folder, architecture, tokens, blocks
        self.options = options
        self.weights = architecture.weight_files()
        per_part = max(1, PART_BYTES // (4 * architecture.width))
        content = {"weights": self.weights.sha256(), "tokens": tokens.sha256(), "precision": options.precision}
        self._content = content | {"part": per_part}
        # Parts are ranges of items of about equally many tokens.
        total = int(tokens.offsets[-1])
        cuts = np.searchsorted(tokens.offsets, np.arange(0, total, per_part))
        self.bounds = np.unique(np.concatenate((cuts[1:], [1, tokens.num_items + 1])).clip(1))

    def states(self) -> ItemStates:
        """Return the states after the frozen blocks; compute them if they are missing."""
        array = self._load(self._cache(self.blocks), "states", None)
        if array.shape != (len(self.tokens.tokens), self.architecture.width):
            raise UserError(f"{self._cache(self.blocks).folder} is damaged: delete it")
        return ItemStates(self.tokens, array)

    def vectors(self, pooling: TextPooling) -> NDArray[Any]:
        """Return (N + 1, D) float32 pooled states, (N + 1, 2 D) for `mean_last`, of a model that is frozen throughout.

        Compute them if they are missing; the states themselves are not kept.
        """
        cache = self._cache(self.blocks, pooling)
        array = self._load(cache, "vectors", pooling)
        if len(array) != self.tokens.num_items:
            raise UserError(f"{cache.folder} is damaged: delete it")
        return np.pad(array, ((1, 0), (0, 0)))  # row 0 is padding

    def _cache(self, level: int, pooling: str | None = None) -> CachedArrays:
        key = self._content | {"blocks": level, "pooling": pooling, "format": 1}
        return CachedArrays(self.folder, key, len(self.bounds) - 1)

    def _load(self, cache: CachedArrays, name: str, pooling: TextPooling | None) -> NDArray[Any]:
        with cache.lock():
            if not cache.folder.is_dir():
                self._make(cache, pooling)
            return _read(cache, name)

    def _make(self, cache: CachedArrays, pooling: TextPooling | None) -> None:
        """Run the frozen blocks over all items, all at a time or one after another."""
        highest = self.blocks - (pooling == "pooler")  # a pooler comes with the last block
        start = next((k for k in range(highest, -1, -1) if self._cache(k).folder.is_dir()), None)
        levels = [self.blocks]
        if self._runs_block_by_block():
            levels = list(range(1 if start is None else start + 1, self.blocks + 1)) or [self.blocks]
        before = start
        for level in levels:
            is_last = level == self.blocks
            target = cache if is_last else self._cache(level)
            self._run(before, level, target, pooling if is_last else None)
            if before not in (None, start):
                self._cache(before).remove()  # this run's own; one that was there before stays
            if not is_last:
                target.join()
            before = level

    def _run(self, before: int | None, level: int, target: CachedArrays, pooling: TextPooling | None) -> None:
        """Make the parts of one cache, in as many processes as there are devices."""
        devices = self.options.devices
        told = f"blocks 1 to {level} of {self.architecture.num_blocks}" if before is None else f"block {level}"
        if len(devices) == 1:
            self._run_share(before, level, target, pooling, told, 0)
            return
        context = multiprocessing.get_context("spawn")
        arguments = (before, level, target, pooling, told)
        processes = [
            context.Process(target=self._run_share, args=(*arguments, rank), daemon=True)
            for rank in range(len(devices))
        ]
        for process in processes:
            process.start()
        try:
            for process in processes:
                process.join()
        finally:
            for process in processes:
                process.terminate()
        if failed := [process.exitcode for process in processes if process.exitcode]:
            raise UserError(
                f"{len(failed)} of {len(processes)} processes failed, see above; what the others made is kept, and the "
                "same command goes on from there"
            )

    def _run_share(
        self,
        before: int | None,
        level: int,
        target: CachedArrays,
        pooling: TextPooling | None,
        told: str,
        rank: int,
    ) -> None:
        """Make every n-th part of a cache."""
        devices = self.options.devices
        device, dtype = torch.device(devices[rank]), DTYPES[self.options.precision]
        if len(devices) > 1 and device.type == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // len(devices)))
        source: TextTokens | ItemStates = self.tokens
        if before is not None:
            source = ItemStates(self.tokens, _read(self._cache(before), "states"))
        blocks: Blocks | None = None
        if before is None or level > before:
            is_whole = level == self.architecture.num_blocks
            pooler = pooling == "pooler" and is_whole
            blocks = Blocks(self.architecture, before or 0, level, pooler, embeddings=before is None)
            blocks.load(self.weights, dtype).to(device)

        def make_part(part: int) -> dict[str, NDArray[Any]]:
            ids = np.arange(self.bounds[part], self.bounds[part + 1])
            return self._run_part(blocks, source, ids, pooling, device, dtype)

        target.make(make_part, f"pre-inference, {told}", rank, len(devices))

    @torch.no_grad()
    def _run_part(
        self,
        blocks: Blocks | None,
        source: TextTokens | ItemStates,
        ids: NDArray[np.int64],
        pooling: TextPooling | None,
        device: torch.device,
        dtype: torch.dtype,
    ) -> dict[str, NDArray[Any]]:
        """Return the states of some items, or their pooled vectors."""
        parts = []
        for first in range(0, len(ids), self.options.batch_size):
            texts = source.read(ids[first : first + self.options.batch_size]).to(device)
            plan = plan_batch(texts.offsets.diff(), device)
            values = texts.values[plan.token_order]
            if values.is_floating_point():
                values = values.to(dtype)
            states = values if blocks is None else blocks(values, TextReading(plan))
            if pooling is None:
                parts.append(states[plan.token_order.argsort()].cpu())
            else:
                pooled = pool_texts(states.float(), plan, pooling, None if blocks is None else blocks.pool_first)
                parts.append(pooled[plan.order.argsort()].cpu())
        out = torch.cat(parts)
        return {"states" if pooling is None else "vectors": _as_array(out)}

    def _runs_block_by_block(self) -> bool:
        if self.options.block_by_block is not None:
            return self.options.block_by_block
        size = sum(file.stat().st_size for file in self.weights.files)
        device = torch.device(self.options.devices[0])
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
        else:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return size > free * _SHARE_OF_MEMORY


def _read(cache: CachedArrays, name: str) -> NDArray[Any]:
    """Return an array of a cache whose parts are all made."""
    try:
        return cache.join()[name]
    except (ValueError, KeyError, EOFError) as error:
        raise UserError(f"{cache.folder} is damaged ({error}): delete it") from error


def _as_array(states: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = (states.view(torch.uint16) if states.dtype == torch.bfloat16 else states).numpy()
    return array


def _as_tensor(array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.uint16 else tensor
