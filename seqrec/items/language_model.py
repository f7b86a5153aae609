"""From the flags to the parts that turn items into vectors, with the weights of a language model."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from seqrec.basics.errors import UserError
from seqrec.basics.paths import user_cache
from seqrec.data.dataset import Dataset
from seqrec.items.options import ItemOptions, PreInferenceOptions, PromptOptions
from seqrec.items.prompts import Prompts
from seqrec.items.vectors import ItemVectors, PooledVectors, Projection, TextVectors
from seqrec.text.backbones import find_backbone, read_tokenizer, was_trained_on_means
from seqrec.text.blocks import Architecture, Blocks
from seqrec.text.lora import add_lora
from seqrec.text.options import TextPooling
from seqrec.text.states import FrozenPart, StatesOptions
from seqrec.text.texts import Texts, TextTokens, load_texts
from seqrec.text.tokens import beside_dataset

log = logging.getLogger(__name__)
ReadTexts = Callable[[NDArray[np.int64]], Texts]
"""Maps (R,) items to their texts, or the cached states of these."""


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A model's files, a catalogue as it reads it, and which part of it is frozen."""

    architecture: Architecture
    tokens: TextTokens
    pooling: TextPooling
    frozen: int
    """Blocks that are frozen: -1 trains the embeddings, too."""
    cache_folder: Path

    def frozen_part(self, options: PreInferenceOptions, cache_folder: Path | None = None) -> FrozenPart:
        """Return the frozen blocks over the catalogue, with caches beside the dataset or in another folder."""
        return FrozenPart(
            cache_folder or self.cache_folder, self.architecture, self.tokens, self.frozen, states_options(options)
        )


def open_language_model(options: ItemOptions, dataset: Dataset) -> LanguageModel:
    """Find a model, check that the flags fit it, and read the items' texts in its tokens.

    Raises:
        MissingFileError: If the model is nowhere to be found.
        UserError: If a flag does not fit it, or the dataset has no text.
    """
    folder = find_backbone(options.plm_name)
    architecture = Architecture.read(folder)
    N, n = architecture.num_blocks, options.plm_last_n_unfreeze
    if n >= N:
        raise UserError(
            f"--plm_last_n_unfreeze {n}: {options.plm_name} has {N} blocks; use -1 to train all of them, and the "
            "embeddings"
        )
    if architecture.longest is not None and options.tokenized_len > architecture.longest:
        raise UserError(
            f"--tokenized_len {options.tokenized_len}: {options.plm_name} reads {architecture.longest} tokens"
        )
    tokenizer = read_tokenizer(folder)
    pooling = options.pooling_method or _own_pooling(folder, architecture)
    if pooling == "pooler" and "pooler.dense.weight" not in architecture.weight_files():
        raise UserError(f"--pooling_method pooler is for a BERT with a pooler, which {options.plm_name} has not")
    if pooling == "cls" and architecture.is_causal:
        raise UserError(
            "--pooling_method cls reads the first token, which in a decoder sees no other: give mean or last"
        )
    tokens = load_texts(dataset, tokenizer, options.tokenized_len, options.item_prompt, options.name_attributes)
    return LanguageModel(architecture, tokens, pooling, -1 if n == -1 else N - n, _states_folder(dataset))


def _own_pooling(folder: Path, architecture: Architecture) -> TextPooling:
    """Return the pooling that a model was trained for."""
    return "mean" if architecture.is_causal or was_trained_on_means(folder) else "cls"


def _states_folder(dataset: Dataset) -> Path:
    """Return the folder of the cached states of a dataset's items."""
    return beside_dataset(dataset, ".states") or user_cache() / "states"


def states_options(options: PreInferenceOptions) -> StatesOptions:
    """Return how frozen blocks are run."""
    numbered, on_gpu = options.pre_inference_devices or (0,), torch.cuda.is_available()
    cores = os.cpu_count() or 1
    if not on_gpu and len(numbered) > cores:
        log.info("--pre_inference_devices: no GPU here, so %d processes, one per core", cores)
        numbered = numbered[:cores]
    if on_gpu and max(numbered) >= torch.cuda.device_count():
        raise UserError(f"--pre_inference_devices {max(numbered)}: this machine has {torch.cuda.device_count()} GPUs")
    block_by_block = {"auto": None, "True": True, "False": False}[options.pre_inference_layer_wise]
    return StatesOptions(
        options.pre_inference_precision,
        options.pre_inference_batch_size,
        block_by_block,
        tuple(f"cuda:{number}" if on_gpu else "cpu" for number in numbered),
    )


def build_items(
    options: ItemOptions, prompt: PromptOptions, cache: PreInferenceOptions, dataset: Dataset, width: int
) -> tuple[ItemVectors, ReadTexts | None]:
    """Return what makes the items' vectors of a width, and what reads the texts for it, if it reads any."""
    plm = open_language_model(options, dataset)
    architecture = plm.architecture
    projection = Projection(plm.pooling, architecture.width, width, options)
    frozen, N = plm.frozen, architecture.num_blocks
    if cache.pre_inference and frozen == N:
        vectors = plm.frozen_part(cache).vectors(plm.pooling)
        return PooledVectors(torch.from_numpy(vectors), projection), None
    prompts, longest = None, options.tokenized_len
    split = max(frozen, 0) if not prompt.use_prompt or (prompt.is_queries and frozen < N) else 0
    if prompt.use_prompt:
        prompt = prompt.resolve(plm.pooling, architecture.is_causal)
        prompts = Prompts(architecture, prompt, split)
        longest += prompt.lengths[0] + prompt.lengths[2]
    if architecture.longest is not None and longest > architecture.longest:
        raise UserError(
            f"--tokenized_len and the prompt make {longest} tokens: the language model reads {architecture.longest}"
        )
    weights, has_pooler = architecture.weight_files(), plm.pooling == "pooler"
    lower = upper = None
    read_texts: ReadTexts = plm.tokens.read
    if split < N:
        upper = Blocks(architecture, split, N, has_pooler).load(weights)
        if options.plm_gradient_checkpointing:
            upper.recompute()
    if cache.pre_inference:
        read_texts = plm.frozen_part(cache).states().read
    elif split > 0:
        lower = Blocks(architecture, 0, split, has_pooler).load(weights)
    items = TextVectors(dataset.num_items, lower, upper, frozen, prompts, plm.pooling, projection)
    if options.lora_r:
        _add_lora(items, options)
    return items, read_texts


def _add_lora(items: TextVectors, options: ItemOptions) -> None:
    """Give the trained blocks low-rank updates in place of training their weights."""
    assert items.upper is not None
    trained = torch.nn.ModuleList(block for number, block in items.upper.layers if number >= items.trained_from)
    for parameter in items.upper.parameters():
        parameter.requires_grad_(False)
    add_lora(items, trained, options)
