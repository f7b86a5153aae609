"""Align the sequential recommender with a large language model: `bash LSVCR/run_lora.sh --help`.

The run folder gets `aligned.safetensors`: the small model, the map of texts and the low-rank updates. `encode.py` makes
text vectors with it, and `finetune.py --start_from` goes on from it.
"""

from LSVCR.align_options import AlignConfig as Config
from seqrec.basics.command import run_command


def main(config: Config) -> None:
    """Align, and write what was learned into the run folder."""
    from LSVCR.align_module import align  # takes seconds, and --help needs none of it

    align(config)


if __name__ == "__main__":
    run_command(main, Config)
