"""The losses of SASRec's first steps are what they were."""

import itertools
from pathlib import Path

import torch

from SASRec.module import SASRecModule
from SASRec.options import Config
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset
from seqrec.data.splits import leave_one_out
from seqrec.nn.losses import LossOptions
from tests.golden import assert_unchanged, fill, train

LOSSES = {
    "ce": LossOptions(loss="ce"),
    "bce": LossOptions(loss="bce"),
    "gbce": LossOptions(loss="gbce", num_negatives=8),
    "sampled_softmax, cosine": LossOptions(loss="sampled_softmax", num_negatives=8, temp=0.1),
}


def test_losses_are_what_they_were(tiny: Dataset) -> None:
    found = {}
    for name, options in LOSSES.items():
        config = Config(objective=options)
        data = SASRecModule.training_data(config, leave_one_out(tiny).train, tiny.num_items)
        torch.manual_seed(0)
        module = SASRecModule(config, tiny.num_items, None)
        fill(module)
        keys = RowSampler(data.lengths, batch_size=8, shuffle=True, seed=1)
        found[name] = train(module, (data[key] for key in itertools.islice(keys, 8)))
    assert_unchanged(Path(__file__).parent, found)
