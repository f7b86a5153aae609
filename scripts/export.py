"""Export a trained run: the user encoder as ONNX, the item vectors, an index of them, and the item table.

python scripts/export.py runs/SASRec/demo/finetune-seed42 --output exports/sasrec
"""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from seqrec.basics.command import run_command
from seqrec.serving.options import ExportOptions


@dataclass(frozen=True, slots=True)
class Config:
    """Export a trained run for scripts/serve.py, or for any program that reads ONNX."""

    run: tyro.conf.Positional[Path]
    """Folder of a finished run of a model that reads item ids alone."""
    output: Path
    """Folder to be made."""
    name: str | None = None
    """Name of the model for those who use it; by default family and run."""
    data_path: Path | None = None
    """Folder of the prepared dataset, if it has moved since the run."""
    catalogue: Path | None = None
    """Folder of another prepared dataset to serve; its new items are scored by their texts."""
    overwrite: bool = False
    """Replace an earlier export."""
    options: ExportOptions = field(default_factory=ExportOptions)


def main(config: Config) -> None:
    """Write the folder, and print what its parts lose."""
    from seqrec.serving.export import export_run  # seconds, and not for --help

    print(
        export_run(
            config.run,
            config.output,
            config.name,
            (config.data_path, config.catalogue),
            config.overwrite,
            config.options,
        )
    )
    print(f"the model is in {config.output}; python scripts/serve.py {config.output} answers by it")


if __name__ == "__main__":
    run_command(main, Config)
