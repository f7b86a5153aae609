"""Prepare MIND_small from data/old_data/MIND_small: `python MIND_small.py --help`."""

from PLMSASRec.setup_data import set_up
from seqrec.data.sources.mind import Mind

if __name__ == "__main__":
    set_up(Mind, "MIND_small")
