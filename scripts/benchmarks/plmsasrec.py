"""Times PLMSASRec's training steps; run by scripts/benchmarks/speed.py.

python scripts/benchmarks/plmsasrec.py SETTINGS.json

Four sides take the same steps on the same users. `cached`: a frozen language model's vectors from a cache; `live`: it
runs on a batch's distinct items. `ours`: the last blocks train, on distinct items without padding; `padded`: the same
weights in `transformers`' own model on every position of every row, padded in both directions, as published.
Prints a line that starts with "turn" after each measurement, and a line of JSON at the end.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel

from PLMSASRec.data import TrainBatch, TrainDataset
from PLMSASRec.module import PLMSASRecModule
from PLMSASRec.options import Config
from scripts.benchmarks.sides import take_turns
from seqrec.data.batches import BatchKey
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.data.splits import leave_one_out
from seqrec.items.language_model import open_language_model
from seqrec.items.options import ItemOptions, PreInferenceOptions
from seqrec.items.vectors import TextVectors
from seqrec.nn.losses import full_softmax
from seqrec.text.texts import TextTokens
from seqrec.training.text_module import make_batches


class PaddedItems(nn.Module):
    """Vectors of every position of a (users, 20) rectangle, texts padded to one length; nothing is encoded once."""

    def __init__(self, ours: TextVectors, tokens: TextTokens, length: int) -> None:
        super().__init__()
        assert ours.upper is not None and ours.pooling == "mean"
        architecture = ours.upper.architecture
        assert architecture.folder is not None
        self.model = AutoModel.from_pretrained(architecture.folder, dtype=torch.float32)
        layers = self.model.get_submodule(architecture.family.layers)
        trained = {id(p) for block in layers[ours.trained_from :] for p in block.parameters()}
        for parameter in self.model.parameters():
            parameter.requires_grad_(id(parameter) in trained)
        self.projection, self.length = ours.projection, length
        # Row 0 is an item of padding alone, one token of which is read.
        self.ids = torch.zeros(tokens.num_items + 1, length, dtype=torch.int64)
        self.mask = torch.zeros(tokens.num_items + 1, length, dtype=torch.int64)
        lengths = torch.from_numpy(np.maximum(tokens.lengths, 1))
        self.mask[torch.arange(length) < lengths[:, None]] = 1
        real = self.mask.bool().clone()
        real[0] = False
        self.ids[real] = torch.from_numpy(tokens.tokens.astype(np.int64))

    def forward(self, items: Tensor) -> Tensor:
        """Return (n, d) for (n,) items."""
        ids, mask = self.ids[items], self.mask[items]
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        mean = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        out: Tensor = self.projection(mean)
        return out


def padded_step(module: PLMSASRecModule, items: PaddedItems, batch: TrainBatch, width: int) -> Tensor:
    """Return the loss of a batch whose histories are padded to `width` positions, all of them encoded."""
    lengths = batch.layout.offsets.diff()
    rectangle = torch.zeros(len(lengths), width, dtype=torch.int64)
    is_real = torch.arange(width) < lengths[:, None]
    rectangle[is_real] = batch.items.rows[batch.items.events]
    vectors = items(rectangle.flatten()).view(len(lengths), width, -1)[is_real]
    hidden = module.model.encoder(vectors, batch.positions, batch.layout)
    return full_softmax(module.model.with_bias(hidden), module.model.class_vectors(None), batch.items.targets)


def step(module: PLMSASRecModule, batch: TrainBatch) -> Tensor:
    """Return the loss of a batch as the module trains it."""
    return module.training_step(batch)


def run(steps: list[Any], optimizer: torch.optim.Optimizer) -> None:
    """Take one optimiser step per loss."""
    for loss in steps:
        loss().backward()
        optimizer.step()
        optimizer.zero_grad()


def make_module(settings: dict[str, Any], dataset: Dataset, unfreeze: int, cached: bool) -> PLMSASRecModule:
    """Return a module in training, the same every time, with the published head."""
    items = ItemOptions(
        plm_name=settings["plm_name"],
        tokenized_len=settings["tokenized_len"],
        pooling_method="mean",
        plm_last_n_unfreeze=unfreeze,
    )
    torch.manual_seed(settings["seed"])
    config = Config(
        items=items,
        cache=PreInferenceOptions(pre_inference=cached),
        head="untied",
        batch_size=settings["batch_size"],
    )
    module = PLMSASRecModule(config, dataset).train()
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    return module


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the benchmark reports."""
    torch.set_num_threads(settings["threads"])
    dataset = load_dataset(Path(settings["data_path"]))
    frozen = ItemOptions(plm_name=settings["plm_name"], tokenized_len=settings["tokenized_len"], pooling_method="mean")
    plm = open_language_model(frozen, dataset)
    start = time.perf_counter()
    part = plm.frozen_part(PreInferenceOptions(pre_inference=True), Path(settings["cache"]))
    part.vectors("mean")
    cache_seconds = time.perf_counter() - start
    modules = {
        "cached": make_module(settings, dataset, 0, cached=True),
        "live": make_module(settings, dataset, 0, cached=False),
        "ours": make_module(settings, dataset, settings["plm_last_n_unfreeze"], cached=False),
    }
    padded_module = make_module(settings, dataset, settings["plm_last_n_unfreeze"], cached=False)
    assert isinstance(padded_module.model.items, TextVectors)
    padded = PaddedItems(padded_module.model.items, plm.tokens, settings["tokenized_len"])
    size = settings["batch_size"]
    turns, steps_per_epoch, users = {}, 0, 0
    for name, module in modules.items():
        data = make_batches(module, dataset, leave_one_out(dataset)).train
        assert isinstance(data, TrainDataset)
        rows = np.random.default_rng(settings["seed"]).permutation(len(data.lengths))
        chosen = [rows[i * size : (i + 1) * size] for i in range(settings["num_steps"])]
        batches = [data[BatchKey(part_rows, 0, i)] for i, part_rows in enumerate(chosen)]
        steps_per_epoch, users = -(-len(rows) // size), sum(map(len, chosen))
        optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], 1e-5, fused=True)
        turns[name] = partial(run, [partial(step, module, batch) for batch in batches], optimizer)
        if name == "ours":
            others = [p for n, p in padded_module.named_parameters() if ".items.upper" not in n and p.requires_grad]
            learned = [*others, *(p for p in padded.model.parameters() if p.requires_grad)]
            width = module.config.model.sasrec_seq_len
            losses = [partial(padded_step, padded_module, padded.train(), batch, width) for batch in batches]
            turns["padded"] = partial(run, losses, torch.optim.AdamW(learned, 1e-5, fused=True))
            with torch.no_grad():
                some = batches[0].items.rows[:64]
                own = module.model.items.eval()(some, module.read_texts(some.numpy()))  # type: ignore[misc]
                difference = float((own - padded.eval()(some)).abs().max())
            module.train(), padded.train()
    return {
        "seconds": take_turns("training", settings["repeats"], **turns),
        "cache_seconds": cache_seconds,
        "steps": users,
        "steps_per_epoch": steps_per_epoch,
        "difference": difference,
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))), flush=True)
