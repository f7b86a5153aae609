"""The flags of SASRec."""

from dataclasses import dataclass, field

from SASRec.model import SASRecConfig
from seqrec.basics.published import PublishedFlags
from seqrec.training.id_options import PREPARED, PUBLISHED_RUNS, RepeatingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RepeatingConfig):
    """One SASRec run: data, item vectors, loss, architecture, training and evaluation.

    `--recipe published` sets the published script's values, see docs/published-flags.md.
    """

    model: SASRecConfig = field(default_factory=SASRecConfig)


PUBLISHED = PublishedFlags(
    refused={
        **PREPARED,
        **PUBLISHED_RUNS,
        "--device": "CUDA_VISIBLE_DEVICES=N before the command chooses a GPU, --accelerator cpu none",
        "--device_id": "CUDA_VISIBLE_DEVICES=N before the command chooses a GPU, --accelerator cpu none",
        "--rating_score": "scripts/prepare.py SOURCE --min_rating N filters when data are prepared",
        "--l2_emb": "nothing is added to the loss; --weight_decay decays all weights but biases and norms",
        "--inference_only": "scripts/recommend.py RUN_FOLDER uses a trained run, whose test is in its metrics.json",
        "--state_dict_path": "scripts/import_weights.py SASRec --checkpoint FILE makes a run of such a file",
    },
    recipe="--hidden_units 768 --dropout_rate 0.5 --lr 1e-4 --item_lr 1e-4 --init_transform none",
)
