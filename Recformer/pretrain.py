"""Pretrain Recformer on a corpus of histories from several domains: `bash Recformer/lightning_run.sh --help`.

Validation is what the model is for: the next item of the histories of a domain that it has not read, out of that whole
domain. The best weights are in `checkpoints/best.ckpt`, which finetune.py takes as --pretrain_ckpt.
"""

from Recformer.options import PRETRAIN_PUBLISHED as PUBLISHED
from Recformer.options import PretrainConfig as Config
from seqrec.basics.command import run_command


def main(config: Config) -> None:
    """Pretrain, test the best weights on the held-out domain, and write the run folder."""
    from Recformer.pretrain_module import pretrain  # takes seconds, and --help needs none of it

    pretrain(config)


if __name__ == "__main__":
    run_command(main, Config, published=PUBLISHED)
