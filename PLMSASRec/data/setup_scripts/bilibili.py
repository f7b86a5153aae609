"""Prepare bilibili from data/old_data/bilibili: `python bilibili.py --help`."""

from PLMSASRec.setup_data import set_up
from seqrec.data.sources.bilibili import Bilibili

if __name__ == "__main__":
    set_up(Bilibili, "bilibili")
