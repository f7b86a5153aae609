"""Make a run of weights that published code trained: `python scripts/import_weights.py SASRec --checkpoint FILE`.

The run is tested, and it is compared and recommends as any other. Reads state dicts of pmixer/SASRec.pytorch and of the
code published with Qu et al. (2024). The dataset must number its items as the weights do: prepare it from the
dataset.pkl that they were trained on (`prepare.py pickle`).
"""

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from seqrec.basics.checks import require_at_least
from seqrec.basics.command import run_command
from seqrec.basics.errors import UserError
from seqrec.basics.names import check_family
from seqrec.basics.paths import ROOT
from seqrec.data.protocol import EvaluationProtocol
from seqrec.training.options import TrainingConfig


@dataclass(frozen=True, slots=True)
class Config:
    """One import."""

    family: tyro.conf.Positional[str]
    """SASRec or Bert4Rec."""
    checkpoint: Path
    """Weights as torch.save wrote them: a state dict, or one under `model_state_dict`."""
    dataset: str | None = None
    """Name of a prepared dataset in data/; demo, unless --data_path is given."""
    data_path: Path | None = None
    """Folder of a prepared dataset elsewhere, or of raw data (dataset.pkl): prepared once."""
    num_heads: int | None = None
    """Attention heads; by default those of the published runs, 1 for SASRec and 4 for Bert4Rec."""
    run_name: str = "imported"
    """Name of the run folder."""
    runs_dir: Path = ROOT / "runs"
    """Folder of the run folders."""
    overwrite: bool = False
    """Delete an earlier run of that name first."""
    protocol: EvaluationProtocol = field(default_factory=EvaluationProtocol)

    def __post_init__(self) -> None:
        require_at_least(1, self, "num_heads")


def main(config: Config) -> None:
    """Map the weights, test them and write the run folder."""
    from seqrec.text.weights import load_checkpoint  # seconds, and not for --help
    from seqrec.training.id_model import import_id_model

    name = check_family("the family", config.family, ROOT)
    if not (ROOT / name / "imported.py").is_file():
        raise UserError(f"{name} reads published weights by flags of its own commands, such as --pretrain_ckpt")
    published: Any = importlib.import_module(f"{name}.imported")
    state = load_checkpoint(config.checkpoint)
    architecture, weights = published.read_weights(state, config.num_heads or published.HEADS)
    training = TrainingConfig(run_name=config.run_name, runs_dir=config.runs_dir, overwrite=config.overwrite)
    settings = published.Config(
        dataset=config.dataset,
        data_path=config.data_path,
        model=architecture,
        training=training,
        protocol=config.protocol,
    )
    import_id_model(published.Module, settings, weights, config.checkpoint)


if __name__ == "__main__":
    run_command(main, Config)
