"""Times our preparation of a file of events; run by scripts/benchmarks/speed.py.

python scripts/benchmarks/preparation.py FOLDER

FOLDER holds events/events.inter, and gets the prepared dataset. Prints a line of JSON.
"""

import json
import sys
import time
from pathlib import Path

from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.atomic import Atomic
from seqrec.data.splits import leave_one_out


def main(folder: Path) -> float:
    """Return the seconds from a file of events to a dataset that is written, read and split."""
    config = Atomic(input=folder / "events", name="prepared", data_dir=folder, on_missing_text="item_id")
    start = time.perf_counter()
    leave_one_out(load_dataset(prepare(config)))
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps({"prepare_seconds": main(Path(sys.argv[1]))}))
