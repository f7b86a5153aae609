"""`preinference.py` at its published place, with its flags: `python datamodules/preinference.py --help`."""

from PLMSASRec.preinference import FLAGS, Config, main
from seqrec.basics.command import run_command

if __name__ == "__main__":
    run_command(main, Config, published=FLAGS)
