"""From finished alignments, and language models as they are, to text vectors. Shapes: N texts, H width, W narrowed."""

import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from LSVCR.align_model import LLM, Aligned
from LSVCR.align_options import AlignConfig, EncodeConfig, LLMOptions
from LSVCR.aligned import ALIGNED, read_learned
from LSVCR.other_llm import open_llm
from seqrec.basics.precision import full_precision
from seqrec.data.comments import load_comments
from seqrec.data.dataset import Dataset
from seqrec.data.discovery import open_dataset
from seqrec.data.vectors import Producer, embedding_path, needs_saving
from seqrec.text.backbones import find_backbone, read_tokenizer
from seqrec.text.encoding import own_device, write_in_parts
from seqrec.text.texts import load_texts
from seqrec.training.restore import read_config

log = logging.getLogger(__name__)


class Source(NamedTuple):
    """What makes text vectors."""

    llm: LLM
    narrow: nn.Module | None
    """Maps (n, H) to (n, W)."""
    backbone: Path
    """The language model's folder."""
    name: str
    """Of the vectors, by default."""
    tokenized_len: int
    learned_sha256: str | None
    trusted: bool
    """Whether code that the model brings along is run."""


def open_run(run: Path) -> tuple[Source, AlignConfig]:
    """Return what a finished alignment makes text vectors with, and its flags."""
    learned = read_learned(run)
    config: AlignConfig = read_config(run, AlignConfig, "LSVCR/align.py")
    folder = find_backbone(config.llm.model_name_or_path)
    model = Aligned(open_llm(folder, config.llm), 0, config).take(learned)
    with (run / ALIGNED).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Source(
        model.llm, model.sr.text_mlp, folder, "aligned", config.tokenized_len, digest, config.llm.trust_remote_code
    ), config


def open_plain(config: EncodeConfig) -> Source:
    """Return what a language model as it is, or its first blocks, makes text vectors with."""
    name = config.model_name_or_path
    folder = find_backbone(name)
    options = LLMOptions(
        model_name_or_path=name,
        trust_remote_code=config.trust_remote_code,
        llm_num_blocks=config.llm_num_blocks,
        llm_last_n_unfreeze=0,
        lora_r=0,
    )
    called = name.strip("/").rpartition("/")[2]
    called += "" if config.llm_num_blocks is None else f"-first{config.llm_num_blocks}"
    return Source(open_llm(folder, options).eval(), None, folder, called, 256, None, config.trust_remote_code)


def encode_texts(config: EncodeConfig) -> None:
    """Write the vectors of a dataset's videos and of its comments."""
    given = config.dataset, config.data_path
    if config.run is None:
        source = open_plain(config)
    else:
        source, trained = open_run(config.run)
        given = given if any(given) else (trained.dataset, trained.data_path)
    dataset = open_dataset(*given)
    source.llm.to(own_device())
    for data in (dataset, load_comments(dataset).own):
        write_texts(source, data, config)


def write_texts(source: Source, dataset: Dataset, config: EncodeConfig) -> None:
    """Write the vectors of a dataset's items, unless they are there."""
    name, longest = config.init_type or source.name, config.tokenized_len or source.tokenized_len
    made = {
        "backbone": source.backbone.name,
        "blocks": source.llm.num_blocks,
        "weights": source.llm.files.sha256(),
        "tokenized_len": longest,
    }
    kinds = (
        {"own": name} if source.narrow is None else {"narrow": name} | ({"own": f"{name}-full"} if config.full else {})
    )
    targets = {}
    for kind, init_type in kinds.items():
        path = embedding_path(dataset, init_type, config.embedding_dir)
        producer = Producer("LSVCR/encode.py", source.learned_sha256, made | {"vectors": kind})
        if needs_saving(path, dataset, producer, config.overwrite):
            targets[kind] = (path, producer)
        else:
            log.info("text vectors `%s` of %s are in %s already", init_type, dataset.name, path)
    if not targets:
        return
    tokens = load_texts(dataset, read_tokenizer(source.backbone, source.trusted), longest)

    def encode(ids: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        with full_precision(next(source.llm.parameters()).device.type), torch.no_grad():
            own = source.llm.encode_some(tokens, ids, config.max_tokens)
            kept = {"own": own}
            if source.narrow is not None:
                kept["narrow"] = source.narrow.cpu()(own)
        return {kind: kept[kind].numpy() for kind in targets}

    write_in_parts(encode, dataset, targets, tokens.sha256(), config.part_items)
    for path, _ in targets.values():
        log.info("text vectors of %s are in %s", dataset.name, path)
