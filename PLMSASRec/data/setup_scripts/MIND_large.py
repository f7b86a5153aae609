"""Prepare MIND_large from data/old_data/MIND_large: `python MIND_large.py --help`."""

from PLMSASRec.setup_data import set_up
from seqrec.data.sources.mind import Mind

if __name__ == "__main__":
    set_up(Mind, "MIND_large")
