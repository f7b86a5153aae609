"""Write the text vectors of a dataset's videos and comments, by an aligned language model or by one as it is.

`python LSVCR/encode.py --run runs/LSVCR/weibo/align-smollm2-seed42` writes `aligned`: the alignment's own map of the
mean of a text's states. `python LSVCR/encode.py --dataset weibo --init_type smollm2` writes the means themselves, of
the language model that --model_name_or_path names.

Texts are encoded part by part, and a part is on disk before the next begins: memory does not grow with the number of
comments, and after a kill the same command goes on. `torchrun --nproc_per_node K LSVCR/encode.py ...` shares them out.
"""

from dataclasses import dataclass
from pathlib import Path

from seqrec.basics.checks import require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.names import check_name
from seqrec.basics.paths import ROOT


@dataclass(frozen=True, slots=True)
class Config:
    """What to encode, with what, and under which name."""

    run: Path | None = None
    """Folder of a finished run of align.py; by default the language model is used as it is."""
    model_name_or_path: str = "smollm2"
    """Without --run, a decoder: smollm2, a folder, or a name on the Hugging Face hub."""
    init_type: str | None = None
    """Name of the vectors, embedding/DATASET/NAME.npy and embedding/DATASET-comments/NAME.npy: aligned, or that of the
    language model."""
    full: bool = False
    """With --run, write the language model's own vectors, too, as NAME-full; finetune.py then trains the map."""
    dataset: str | None = None
    """Name of a prepared dataset with comments; by default the run's."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere."""
    tokenized_len: int | None = None
    """Maximum number of tokens of a text; by default the run's, or 256."""
    max_tokens: int = 8192
    """Tokens per batch."""
    part_items: int = 16384
    """Texts that are encoded, and kept in memory, at a time."""
    embedding_dir: Path = ROOT / "embedding"
    """Where text vectors go."""
    overwrite: bool = False
    """Replace vectors of that name that other weights or options made."""

    def __post_init__(self) -> None:
        require_at_least(1, self, "max_tokens", "part_items", "tokenized_len")
        if self.init_type is not None:
            check_name("--init_type", self.init_type)
        if self.full and self.run is None:
            raise UserError("--full is for --run RUN: without it the vectors are the language model's own anyway")


def main(config: Config) -> None:
    """Encode all texts and write their vectors."""
    from LSVCR.encoding import encode_texts  # takes seconds, and --help needs none of it

    encode_texts(config)


if __name__ == "__main__":
    run_command(main, Config)
