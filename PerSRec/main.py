"""`finetune.py` with the published recipes: `python main.py --config_file overall/ID.yaml IDNet/hstu.yaml --key value`.

`--val_only True` tests the finished run whose folder --checkpoint_dir is. In a cluster, `nnodes`, `node_rank`,
`nproc_per_node`, `master_addr` and `master_port` are variables of the environment.
"""

import os
import shlex
import sys
from pathlib import Path

from seqrec.basics.command import run_command


def cluster_flags() -> list[str]:
    """Return the number of processes and machines of the environment, and tell the trainer where the first one is."""
    for name, theirs in (("master_addr", "MASTER_ADDR"), ("master_port", "MASTER_PORT"), ("node_rank", "NODE_RANK")):
        if name in os.environ:
            os.environ[theirs] = os.environ[name]
    counts = {"nproc_per_node": "--devices", "nnodes": "--num_nodes"}
    return [word for name, flag in counts.items() if name in os.environ for word in (flag, os.environ[name])]


def main() -> None:
    """Translate the command line and run it."""
    from PerSRec import evaluate, finetune
    from PerSRec.options import Config
    from PerSRec.recipes import read_words, translate
    from seqrec.basics.errors import UserError

    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        sys.stdout.write(f"{__doc__}\nEvery other flag is a key of the recipes, or one of finetune.py --help.\n")
        return
    try:
        settings = read_words(words)
        if settings.get("val_only"):
            run = str(Path(str(settings.get("checkpoint_dir", ""))))
            whole = settings.get("predict_with_full_item_seq") in (None, True)
            run_command(evaluate.main, evaluate.Config, [run, *["--no_predict_with_full_item_seq"] * (not whole)])
            return
        flags = translate(settings) + cluster_flags()
    except UserError as error:
        sys.exit(f"main.py: {error}")
    sys.stderr.write(f"finetune.py {shlex.join(flags)}\n")
    run_command(finetune.main, Config, flags)


if __name__ == "__main__":
    main()
