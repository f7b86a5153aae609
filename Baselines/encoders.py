"""Text encoders that nobody trains: sentence encoders as their cards say, and language models by their tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from Baselines.options import ENCODE, Pool
from seqrec.basics.errors import UserError
from seqrec.basics.opening import read_json_object
from seqrec.basics.progress import shows_progress
from seqrec.text.backbones import find_backbone
from seqrec.text.encoding import weights_sha256

MODES = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
"""Names of poolings in sentence-transformers."""


def open_encoder(name: str, pooling: Pool, max_length: int | None) -> SentenceTransformer:
    """Return an encoder.

    Args:
        name: minilm, smollm2, a folder, or a name on the Hugging Face hub.
        pooling: card, as the model's own files say; or the mean of a text's tokens, its first one, or its last one.
        max_length: Greatest number of a text's tokens; None leaves the model's own.

    Raises:
        UserError: If the model's files say nothing of pooling, and no other one is asked for.
    """
    folder = find_backbone(name)
    if pooling == "card":
        if not (folder / "modules.json").is_file():
            raise UserError(f"{name} has no modules.json that says how tokens become a vector: give --pooling")
        encoder = SentenceTransformer(str(folder), device="cpu")
    else:
        reader: Any = Transformer(str(folder), model_kwargs={"dtype": "float32"})
        encoder = SentenceTransformer(
            modules=[reader, Pooling(reader.get_embedding_dimension(), MODES[pooling])], device="cpu"
        )
    tokenizer = encoder.tokenizer
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if max_length is not None:
        encoder.max_seq_length = max_length
    return encoder


def encode_texts(
    encoder: SentenceTransformer, texts: list[str], prompt: str | None, batch_size: int
) -> NDArray[np.float32]:
    """Return the (n, D) vectors of texts, each after a prompt, if there is one; the longest texts share a batch."""
    found = encoder.encode(texts, prompt=prompt, batch_size=batch_size, show_progress_bar=shows_progress())
    return np.asarray(found, dtype=np.float32)


class TextReader:
    """Reads several items' texts as one, by the encoder that made their vectors."""

    def __init__(self, vectors: Path, texts: list[str]) -> None:
        """Open the encoder.

        Args:
            vectors: The file of the items' vectors.
            texts: (N,) of the items.

        Raises:
            UserError: If no encoder of `encode.py` made the vectors, or it is another one now.
        """
        file = vectors.with_suffix(".json")
        repair = f"make them by python {ENCODE} --encoder NAME"
        made = read_json_object(file, repair) if vectors.suffix == ".npy" and file.is_file() else {}
        options = made.get("options")
        if made.get("producer") != ENCODE or not isinstance(options, dict) or "encoder" not in options:
            raise UserError(f"--user_as text: nothing says which encoder made {vectors}: {repair}")
        if "beside_sha256" in options:
            raise UserError(f"--user_as text: {vectors} holds two encoders' vectors side by side: {repair}")
        self.encoder = open_encoder(options["encoder"], options["pooling"], options["max_length"])
        self.prompt, self.texts = options["prompt"], texts
        if weights_sha256(self.encoder) != made.get("checkpoint_sha256"):
            raise UserError(f"--user_as text: {options['encoder']} is not what made {vectors}: {repair}")

    def __call__(self, histories: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the (B, D) vectors of histories of items, the latest read first."""
        joined = ["\n".join(self.texts[item - 1] for item in reversed(items)) for items in histories]
        found = self.encoder.encode(joined, prompt=self.prompt, batch_size=len(joined), show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)


def prompt_of(name_of_model: str, encoder: SentenceTransformer, prompt: str | None, name: str | None) -> str | None:
    """Return what stands before each text: a prompt, or the one that the model's card has under a name.

    Raises:
        UserError: If the card has none of that name.
    """
    if name is None:
        return prompt
    if name not in encoder.prompts:
        known = ", ".join(encoder.prompts) or "none"
        raise UserError(f"{name_of_model} has no prompt {name!r}; its prompts are: {known}")
    return str(encoder.prompts[name])
