"""`align.py` with the published script's flags: `torchrun --nproc_per_node=8 train.py --data_path ... --lora True`.

Its defaults are align.py's own, see `bash LSVCR/run_lora.sh --help`.
"""

import sys

from LSVCR.align import main
from LSVCR.align_options import AlignConfig
from LSVCR.published import ALIGN, count_processes
from seqrec.basics.command import run_command

if __name__ == "__main__":
    run_command(main, AlignConfig, [*count_processes(), *sys.argv[1:]], ALIGN)
