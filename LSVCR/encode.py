"""Write the text vectors of a dataset's videos and comments, by an aligned language model or by one as it is.

`python LSVCR/encode.py --run runs/LSVCR/weibo/align-smollm2-seed42` writes `aligned`: the alignment's own map of the
mean of a text's states. `python LSVCR/encode.py --dataset weibo --init_type smollm2` writes the means themselves, of
the language model that --model_name_or_path names.

Texts are encoded part by part, and a part is on disk before the next begins: memory does not grow with the number of
comments, and after a kill the same command goes on. `torchrun --nproc_per_node K LSVCR/encode.py ...` shares them out.
"""

from LSVCR.align_options import EncodeConfig as Config
from seqrec.basics.command import run_command


def main(config: Config) -> None:
    """Encode all texts and write their vectors."""
    from LSVCR.encoding import encode_texts  # takes seconds, and --help needs none of it

    encode_texts(config)


if __name__ == "__main__":
    run_command(main, Config)
