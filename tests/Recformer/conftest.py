"""A tiny backbone, MiniLM's tokenizer and the tiny dataset's items as tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch

from seqrec.data.dataset import Dataset
from seqrec.text.backbones import find_backbone
from seqrec.text.tokens import ItemTokens, tokenize_items

LIMITS: dict[str, Any] = {"max_token_num": 40, "max_attr_length": 8}
LIMIT_FLAGS = [text for key, value in LIMITS.items() for text in (f"--{key}", str(value))]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """MiniLM's."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(find_backbone("minilm"))


@pytest.fixture(scope="session")
def backbone(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a BERT of random weights with MiniLM's tokenizer."""
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def items(tiny: Dataset, tokenizer: Any) -> ItemTokens:
    """The tiny dataset's."""
    return tokenize_items(tiny.item_table(), tiny.attributes, tokenizer, 3, LIMITS["max_attr_length"])
