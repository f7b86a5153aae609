"""Write a dataset's item vectors by a text encoder as it comes, or, without one, by TF-IDF in a few hundred dimensions.

`python Baselines/encode.py --dataset demo --encoder minilm`; of a dataset with comments those of the comments, too.
Models take them as any others, by their name; `--baseline vectors` ranks by them.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

from Baselines.options import ENCODE, Pool
from seqrec.basics.checks import require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.names import check_name
from seqrec.basics.paths import ROOT

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Config:
    """What to encode, and under which name."""

    dataset: str | None = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl, train.json, *.inter): prepared once."""
    encoder: str | None = None
    """Model: minilm, smollm2, a folder, a .gguf file, or a name on the Hugging Face hub, such as
    mixedbread-ai/mxbai-embed-large-v1; without one, TF-IDF."""
    pooling: Pool = "card"
    """With --encoder, how a text's tokens become a vector: card (as the model's own files say), mean, cls or last."""
    prompt: str | None = None
    """With --encoder, what stands before each text."""
    prompt_name: str | None = None
    """With --encoder, the name of one of the model's own prompts to stand there."""
    max_length: int | None = None
    """With --encoder, greatest number of a text's tokens; by default the model's own."""
    batch_size: int = 64
    """With --encoder, texts per batch."""
    beside: str | None = None
    """Name of item vectors that stand behind these in one file, whitened; both parts have unit length."""
    init_type: str | None = None
    """Name of the vectors: they go to embedding/DATASET/INIT_TYPE.npy, and for comments to
    embedding/DATASET-comments/INIT_TYPE.npy; by default tfidf, or the model and its pooling, and --beside."""
    width: int = 256
    """Without --encoder, dimensions of the vectors."""
    embedding_dir: Path = ROOT / "embedding"
    """Where item vectors go."""
    overwrite: bool = False
    """Replace vectors of that name that other options made."""

    def __post_init__(self) -> None:
        of_encoder = self.pooling, self.prompt, self.prompt_name, self.max_length
        if self.encoder is None and of_encoder != ("card", None, None, None):
            raise UserError("--pooling, --prompt, --prompt_name and --max_length are for an --encoder")
        if self.prompt is not None and self.prompt_name is not None:
            raise UserError("give one of --prompt and --prompt_name")
        if self.beside is not None:
            check_name("--beside", self.beside)
        check_name("--init_type", self.name)
        require_at_least(1, self, "width", "batch_size")
        if self.max_length is not None:
            require_at_least(1, self, "max_length")

    @property
    def name(self) -> str:
        """The name of the vectors."""
        if self.init_type is not None:
            return self.init_type
        name = "tfidf"
        if self.encoder is not None:
            name = self.encoder.strip("/").rpartition("/")[2]
            name = name if self.pooling == "card" else f"{name}-{self.pooling}"
        return name if self.beside is None else f"{name}-{self.beside}"


def main(config: Config) -> None:
    """Encode all items, and comments, and write their vectors."""
    import numpy as np  # what encodes takes seconds to import, and --help needs none of it

    from seqrec.data.comments import COMMENTS, load_comments
    from seqrec.data.discovery import open_dataset
    from seqrec.data.vectors import (
        Producer,
        embedding_path,
        load_embeddings,
        needs_saving,
        save_embeddings,
        vectors_sha256,
    )
    from seqrec.items.words import OPTIONS, count_words, project, read_texts
    from seqrec.nn.geometry import side_by_side

    dataset = open_dataset(config.dataset, config.data_path)
    has_comments = (dataset.path / COMMENTS).is_dir()
    datasets = [dataset, load_comments(dataset).own] if has_comments else [dataset]
    others, encoder = None, None
    if config.beside is not None:
        others = [load_embeddings(config.beside, data, config.embedding_dir) for data in datasets]
    if config.encoder is None:
        producer = Producer(ENCODE, None, OPTIONS | {"width": config.width, "with_comments": has_comments})
    else:
        from Baselines.encoders import encode_texts, open_encoder, prompt_of
        from seqrec.text.encoding import weights_sha256

        encoder = open_encoder(config.encoder, config.pooling, config.max_length)
        prompt = prompt_of(config.encoder, encoder, config.prompt, config.prompt_name)
        options = {"encoder": config.encoder, "pooling": config.pooling, "prompt": prompt}
        producer = Producer(ENCODE, weights_sha256(encoder), options | {"max_length": encoder.max_seq_length})
    if others is not None:
        hashes = {"beside_sha256": ",".join(map(vectors_sha256, others))}
        producer = replace(producer, options=producer.options | hashes)
    paths = [embedding_path(data, config.name, config.embedding_dir) for data in datasets]
    needed = [needs_saving(path, data, producer, config.overwrite) for path, data in zip(paths, datasets, strict=True)]
    if not any(needed):
        log.info("item vectors `%s` of %s are there already", config.name, dataset.name)
        return
    texts = [read_texts(data) for data in datasets]
    if encoder is None:
        counts, words = count_words(texts)
        log.info("%s words and pairs of words in %s texts", f"{len(words):,}", f"{sum(map(len, texts)):,}")
        found = project(counts, config.width)
    else:
        found = [encode_texts(encoder, some, prompt, config.batch_size) for some in texts]
    tables = [np.pad(vectors, ((1, 0), (0, 0))) for vectors in found]
    if others is not None:
        tables = [side_by_side(*parts) for parts in zip(tables, others, strict=True)]
    for path, data, table in zip(paths, datasets, tables, strict=True):
        save_embeddings(path, table, data, producer)
        log.info("item vectors of %s are in %s", data.name, path)


if __name__ == "__main__":
    run_command(main, Config)
