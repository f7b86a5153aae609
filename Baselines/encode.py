"""Write a dataset's item vectors without a language model: TF-IDF of their texts, in a few hundred dimensions.

`python Baselines/encode.py --dataset demo`; of a dataset with comments those of the comments, too, in the same
dimensions. Models take them as any others, by `tfidf`.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from seqrec.basics.checks import require_at_least
from seqrec.basics.command import run_command
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
    init_type: str = "tfidf"
    """Name of the vectors: they go to embedding/DATASET/INIT_TYPE.npy, and for comments to
    embedding/DATASET-comments/INIT_TYPE.npy."""
    width: int = 256
    """Dimensions of the vectors."""
    embedding_dir: Path = ROOT / "embedding"
    """Where item vectors go."""
    overwrite: bool = False
    """Replace vectors of that name that other options made."""

    def __post_init__(self) -> None:
        check_name("--init_type", self.init_type)
        require_at_least(1, self, "width")


def main(config: Config) -> None:
    """Encode all items, and comments, and write their vectors."""
    import numpy as np  # what encodes takes seconds to import, and --help needs none of it

    from seqrec.data.comments import COMMENTS, load_comments
    from seqrec.data.discovery import open_dataset
    from seqrec.data.vectors import Producer, embedding_path, needs_saving, save_embeddings
    from seqrec.items.words import OPTIONS, count_words, project, read_texts

    dataset = open_dataset(config.dataset, config.data_path)
    has_comments = (dataset.path / COMMENTS).is_dir()
    datasets = [dataset, load_comments(dataset).own] if has_comments else [dataset]
    options = OPTIONS | {"width": config.width, "with_comments": has_comments}
    producer = Producer("Baselines/encode.py", None, options)
    paths = [embedding_path(data, config.init_type, config.embedding_dir) for data in datasets]
    needed = [needs_saving(path, data, producer, config.overwrite) for path, data in zip(paths, datasets, strict=True)]
    if not any(needed):
        log.info("item vectors `%s` of %s are there already", config.init_type, dataset.name)
        return
    tables, words = count_words([read_texts(data) for data in datasets])
    log.info("%s words and pairs of words in %s texts", f"{len(words):,}", f"{sum(t.shape[0] for t in tables):,}")
    for path, data, vectors in zip(paths, datasets, project(tables, config.width), strict=True):
        save_embeddings(path, np.pad(vectors, ((1, 0), (0, 0))), data, producer)
        log.info("item vectors of %s are in %s", data.name, path)


if __name__ == "__main__":
    run_command(main, Config)
