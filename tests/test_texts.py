"""Items as one text each: attributes, their names, prompts, and caches that do not mistake one for the other."""

from pathlib import Path

import polars as pl
import pytest

from seqrec.data.dataset import load_dataset
from seqrec.text.backbones import MINILM, find_backbone, load_tokenizer
from seqrec.text.texts import load_texts
from tests.conftest import write_dataset


def test_prompts_and_names_stand_before_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_dataset(tmp_path / "data", [[1, 2, 3]], 3)
    table = pl.read_parquet(folder / "items.parquet")
    assert "title" in table.columns
    names = [name for name in table.columns if name not in ("item", "raw_id")]
    table = table.with_columns(title=pl.Series(["red chair", "", "lamp"]))
    table.write_parquet(folder / "items.parquet")
    dataset, tokenizer = load_dataset(folder), load_tokenizer(find_backbone(MINILM))
    assert names == list(dataset.attributes)

    def read(**options: object) -> list[str]:
        texts = load_texts(dataset, tokenizer, 20, **options)  # type: ignore[arg-type]
        return [tokenizer.decode(texts.read([item]).values, skip_special_tokens=True) for item in (1, 2, 3)]  # type: ignore[arg-type]

    plain = read()
    assert plain[0].startswith("red chair") and plain[2].startswith("lamp")
    named = read(name_attributes=True)
    assert named[0].startswith("title : red chair") and "title" not in named[1]
    prompted = read(prompt="Compress: ", name_attributes=True)
    assert prompted[0].startswith("compress : title : red chair") and prompted[1].startswith("compress :")
    assert read() == plain and read(prompt="Compress: ")[0].startswith("compress : red chair")
