"""Prepare hm from data/old_data/hm: `python hm.py --help`."""

from PLMSASRec.setup_data import set_up
from seqrec.data.sources.hm import HM

if __name__ == "__main__":
    set_up(HM, "hm")
