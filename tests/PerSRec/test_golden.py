"""The losses of the first steps of a training, as they were."""

from pathlib import Path
from typing import Any

import torch

from PerSRec.data import HistoryDataset
from PerSRec.module import HLLMModule, PerSRecModule, batches_of
from PerSRec.options import Config, HistoryOptions, ModelOptions
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset
from seqrec.data.splits import leave_one_out
from seqrec.items.options import ItemOptions
from seqrec.nn.losses import LossOptions
from tests.golden import assert_unchanged, fill, train
from tests.tiny_models import write_model

TOKENS = HistoryOptions(maxlen=7, number_of_user_tokens=3, pretrain_item_num=4, insert_method="[[2, 1], [4, 2]]")


def test_losses_are_what_they_were(texts: Dataset, tmp_path: Path) -> None:
    model, found = write_model(tmp_path / "bert", "bert"), {}
    small: dict[str, Any] = {"hidden_units": 8, "dropout_rate": 0.3}
    nce = LossOptions(loss="nce", num_negatives=9, temp=0.1)
    kinds: dict[str, dict[str, Any]] = {
        "hstu": {"model": ModelOptions(**small)},
        "hstu, tokens, nce": {"model": ModelOptions(**small), "history": TOKENS, "objective": nce, "learn_temp": True},
        "sasrec, tokens": {"model": ModelOptions(model="sasrec", **small), "history": TOKENS},
        "llama": {"model": ModelOptions(model="llama", **small)},
        "hllm, tokens": {
            "input_type": "text",
            "model": ModelOptions(model="llama", **small),
            "history": TOKENS,
            "objective": nce,
            "items": ItemOptions(plm_name=str(model), tokenized_len=8, plm_last_n_unfreeze=1),
        },
    }
    for name, changes in kinds.items():
        config = Config(**changes)
        module: PerSRecModule | HLLMModule
        if config.input_type == "text":
            module = HLLMModule(config, texts)
        else:
            module = PerSRecModule(config, texts.num_items, None)
        fill(module)
        if module.log_temp is not None:
            torch.nn.init.constant_(module.log_temp, -2.0)
        module.train()
        data = batches_of(module, texts, leave_one_out(texts)).train
        assert isinstance(data, HistoryDataset)
        keys = list(RowSampler(data.lengths, batch_size=8, shuffle=True, seed=1))[:6]
        found[name] = train(module, (data[key] for key in keys))
    assert_unchanged(Path(__file__).parent, found)
