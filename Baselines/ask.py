"""Rank candidates by a language model that nobody trains: by how likely it finds their titles, or by its answer.

python Baselines/ask.py --dataset demo --sample_size 19 --test_users 100
python Baselines/ask.py --dataset demo --way list --server http://localhost:11434/v1 --model_name_or_path mistral

What the model says is kept in the run folder: a run that was stopped goes on with --resume.
"""

from Baselines.ask_options import Config
from seqrec.basics.command import run_command


def main(config: Config) -> None:
    """Ask, measure, and write the run folder."""
    from Baselines.asking import ask_all  # seconds, and not for --help

    ask_all(config)


if __name__ == "__main__":
    run_command(main, Config)
