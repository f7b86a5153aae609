"""The losses of Recformer's first steps, in finetuning and in pretraining, are what they were."""

import itertools
from pathlib import Path
from typing import Any

from Recformer.backbone import load_backbone, load_pretraining
from Recformer.data import TrainDataset
from Recformer.module import RecformerModule
from Recformer.options import FinetuneConfig, PretrainConfig
from Recformer.pretrain_module import PretrainModule
from Recformer.pretraining import PretrainDataset
from seqrec.data.batches import RowSampler
from seqrec.data.dataset import Dataset
from seqrec.data.splits import leave_one_out
from seqrec.text.masking import WordMasker
from seqrec.text.options import EncoderOptions
from seqrec.text.tokens import ItemTokens
from tests.golden import assert_unchanged, fill, train
from tests.Recformer.conftest import LIMITS

STEPS = 6


def finetune(tiny: Dataset, items: ItemTokens, encoder: EncoderOptions, negatives: int, train_items: bool) -> Any:
    model, _ = load_backbone(*encoder.source, **encoder.changes)
    fill(model)
    module = RecformerModule(model, items, FinetuneConfig(train_items=train_items, encoder=encoder))
    module.encode()
    module.train_items = train_items
    data = TrainDataset(leave_one_out(tiny).train, items, LIMITS["max_token_num"], negatives, 1, train_items)
    keys = RowSampler(data.sequences.lengths, batch_size=8, shuffle=True, seed=1)
    return train(module, (data[key] for key in itertools.islice(keys, STEPS)))


def pretrain(tiny: Dataset, items: ItemTokens, backbone: Path, tokenizer: Any, mlm_pass: Any) -> Any:
    model, _ = load_pretraining(str(backbone), None, mlm_pass, False, attention_window=64, **LIMITS)
    fill(model)
    module = PretrainModule(model, items, PretrainConfig(valid_dataset="other", mlm_pass=mlm_pass))
    module.all_gather = lambda value, **_: value  # type: ignore[method-assign]
    data = PretrainDataset(
        tiny.whole_histories(), items, LIMITS["max_token_num"], WordMasker.of(tokenizer), 0.15, 8, seed=1
    )
    keys = RowSampler(data.sequences.lengths, batch_size=8, shuffle=True, seed=1)
    return train(module, (data[key] for key in itertools.islice(keys, STEPS)))


def test_losses_are_what_they_were(tiny: Dataset, items: ItemTokens, backbone: Path, tokenizer: Any) -> None:
    encoder = EncoderOptions(str(backbone), **LIMITS)
    found = {
        f"finetuning, {negatives} negatives{', trained items' if train_items else ''}": finetune(
            tiny, items, encoder, negatives, train_items
        )
        for negatives, train_items in ((-1, False), (4, False), (4, True))
    }
    found |= {f"pretraining, {way}": pretrain(tiny, items, backbone, tokenizer, way) for way in ("shared", "separate")}
    assert_unchanged(Path(__file__).parent, found)
