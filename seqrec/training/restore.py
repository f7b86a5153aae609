"""Loading a trained model from its run folder."""

import importlib
from pathlib import Path
from typing import Any, Protocol

import tyro
from torch import Tensor

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.basics.names import check_family
from seqrec.basics.opening import read_json_object
from seqrec.basics.paths import ROOT
from seqrec.basics.precision import allow_tensor_cores
from seqrec.basics.settings import absolute_from_root, as_flags, complete
from seqrec.data.dataset import Dataset
from seqrec.data.discovery import open_dataset
from seqrec.data.protocol import EvaluationProtocol
from seqrec.training.checkpoints import find_checkpoint, load_state
from seqrec.training.module import Recommender, TrainedOn

DAMAGED = "the run's folder is damaged: delete it and run it again"


class Family(Protocol):
    """The interface of a family's `finetune.py`."""

    Config: type[Any]
    """Frozen dataclass of all flags of a run, `dataset`, `data_path` and `protocol` among them."""

    @staticmethod
    def main(config: Any) -> None:
        """Train, test, and write the run folder."""

    @staticmethod
    def restore(
        config: Any, dataset: Dataset, state: dict[str, Tensor], trained: TrainedOn | None = None
    ) -> Recommender:
        """Return the model for use, from the state of its best epoch.

        Args:
            config: The flags of the run.
            dataset: The catalogue and the histories to serve.
            state: The state dict of its module.
            trained: Where the model was trained, if that was on a different catalogue.

        Raises:
            UserError: If the model cannot serve the other catalogue.
        """


def read_config(folder: Path, config_class: type[Any], script: str, **changed: Any) -> Any:
    """Return the flags of a run, of which some are changed.

    Raises:
        UserError: If they are not those of the script.
    """
    file = folder / "config.json"
    settings = complete(read_json_object(file, DAMAGED), config_class, file) | changed
    try:
        read = tyro.cli(
            config_class,
            args=as_flags(settings, config_class),
            config=(tyro.conf.OmitArgPrefixes,),
            use_underscores=True,
            console_outputs=False,
        )
    except SystemExit as error:
        raise UserError(
            f"{folder}/config.json does not fit {script} of this version: a pretraining is converted "
            "and finetuned first, and a run of an earlier version has to be run again"
        ) from error
    return absolute_from_root(read)


def read_protocol(run: Path) -> EvaluationProtocol:
    """Return how a finished run was evaluated, without a file of candidates, which may be gone."""
    name = read_json_object(run / "metrics.json", DAMAGED, {"family": str})["family"]
    family = importlib.import_module(f"{check_family(f'{run}/metrics.json: family', name, ROOT)}.finetune")
    protocol: EvaluationProtocol = read_config(run, family.Config, f"{name}/finetune.py", candidates=None).protocol
    return protocol


def load_run(folder: Path, data_path: Path | None = None, catalogue: Path | None = None) -> tuple[Dataset, Recommender]:
    """Return a run's dataset, or another `catalogue`, and the model with the weights of the best epoch.

    Raises:
        MissingFileError: If the folder holds no finished run or no trained weights, or its dataset is gone.
        UserError: If the dataset has other items than the run's, the run is of another kind, or its model cannot serve
            the other catalogue.
    """
    if not (folder / "metrics.json").is_file():
        raise MissingFileError(f"{folder} holds no finished run: metrics.json is missing")
    best = folder / "checkpoints" / "best.ckpt"
    if find_checkpoint(best) is None:
        raise MissingFileError(f"{best} does not exist: a run with --test_only trains nothing that could be served")
    allow_tensor_cores()
    metrics = read_json_object(folder / "metrics.json", DAMAGED, {"family": str, "protocol": dict})
    name = check_family(f"{folder}/metrics.json: family", metrics["family"], ROOT)
    family: Family = importlib.import_module(f"{name}.finetune")  # type: ignore[assignment]
    # What the test ranked against is of no use here, and its file may be gone.
    config = read_config(folder, family.Config, f"{name}/finetune.py", candidates=None)
    dataset = open_dataset(None, data_path) if data_path is not None else open_dataset(config.dataset, config.data_path)
    if dataset.item_ids_sha256 != metrics["protocol"].get("item_ids_sha256"):
        raise UserError(f"{dataset.path} has other items than {folder} was trained on: give the run's own --data_path")
    trained = None
    if catalogue is not None:
        trained, dataset = TrainedOn(dataset, folder), open_dataset(None, catalogue)
    try:
        recommender = family.restore(config, dataset, load_state(best), trained)
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        raise UserError(f"{best} holds the weights of another model than {folder}/config.json: {DAMAGED}") from error
    recommender.module.eval()
    return dataset, recommender
