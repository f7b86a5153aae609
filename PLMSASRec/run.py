"""`finetune.py` with the published script's flags and defaults: `python run.py --input_type text --dataset MIND_small`.

Items are ids unless --input_type says text; the language model is facebook/opt-125m unless --plm_name says another.
"""

import sys

from PLMSASRec.finetune import main
from PLMSASRec.options import PUBLISHED, Config
from seqrec.basics.command import run_command


def with_defaults(words: list[str]) -> list[str]:
    """Return a command line with the published defaults before it."""
    given = {word.partition("=")[0].replace("-", "_").replace("__", "--", 1): word for word in words}
    defaults = ["--recipe", "published"]
    if "--input_type" not in given:
        defaults += ["--input_type", "id"]
    reads_text = "text" in words or given.get("--input_type", "").endswith("=text")
    if reads_text and "--plm_name" not in given:
        defaults += ["--plm_name", "facebook/opt-125m"]
    return [*defaults, *words]


if __name__ == "__main__":
    run_command(main, Config, with_defaults(sys.argv[1:]), PUBLISHED)
