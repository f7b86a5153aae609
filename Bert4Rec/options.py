"""The flags of BERT4Rec."""

from dataclasses import dataclass, field

from Bert4Rec.model import Bert4RecConfig
from seqrec.basics.errors import UserError
from seqrec.basics.published import PublishedFlags
from seqrec.training.id_options import PREPARED, PUBLISHED_RUNS, RepeatingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config(RepeatingConfig):
    """One BERT4Rec run: data, item vectors, what is hidden, loss, architecture, training and evaluation.

    `--recipe published` sets the published script's values, see docs/published-flags.md.
    """

    mask_prob: float = 0.2
    """Share of a training sequence's items that are masked and predicted."""
    last_only_prob: float = 0.1
    """Share of training sequences of which only the last item is predicted, as in use."""
    model: Bert4RecConfig = field(default_factory=Bert4RecConfig)

    def __post_init__(self) -> None:
        RepeatingConfig.__post_init__(self)
        if self.objective.temp is not None and self.model.has_output_table:
            raise UserError(
                "--untied_output and --architecture published score with a bias, which a cosine (--temp) has no place "
                "for: drop one"
            )
        if not 0 < self.mask_prob < 1 or not 0 <= self.last_only_prob <= 1:
            raise UserError(
                f"--mask_prob must lie in (0, 1) and --last_only_prob in [0, 1], got {self.mask_prob} and "
                f"{self.last_only_prob}"
            )


_FIXED = "there is one such part here; drop the flag"
_BATCH = "--batch_size is for training; evaluation has a batch size of its own"
_STEPS = "the learning rate is constant, or falls with --schedule linear"
PUBLISHED = PublishedFlags(
    taken={
        "--bert_hidden_units": "--hidden_units",
        "--bert_num_blocks": "--num_blocks",
        "--bert_num_heads": "--num_heads",
        "--bert_dropout": "--dropout_rate",
        "--bert_mask_prob": "--mask_prob",
        "--train_batch_size": "--batch_size",
        "--test_negative_sample_size": "--sample_size",
        "--test_negative_sampling_seed": "--candidate_seed",
        "--num_gpu": "--devices",
        "--model_init_seed": "--seed",
    },
    refused={
        **PREPARED,
        **PUBLISHED_RUNS,
        "--bert_num_items": "the dataset has its number of items; drop the flag",
        "--val_batch_size": _BATCH,
        "--test_batch_size": _BATCH,
        "--test_negative_sampler_code": "candidates are drawn uniformly; drop the flag",
        "--dataloader_random_seed": "--seed is of batches, too; drop the flag",
        "--min_rating": "scripts/prepare.py SOURCE --min_rating N filters when data are prepared",
        "--mode": "this command trains and tests; scripts/recommend.py RUN_FOLDER uses a trained run",
        "--template": "--recipe published sets the values of the template train_bert",
        "--test_model_path": "scripts/import_weights.py Bert4Rec --checkpoint FILE makes a run of such a file",
        "--optimizer": "the optimiser is Adam, with --weight_decay AdamW; drop the flag",
        "--momentum": "the optimiser is Adam; drop the flag",
        "--decay_step": _STEPS,
        "--gamma": _STEPS,
        "--dataloader_code": _FIXED,
        "--trainer_code": _FIXED,
        "--model_code": _FIXED,
    },
    recipe=(
        "--architecture published --hidden_units 768 --num_heads 4 --dropout_rate 0.1 --mask_prob 0.15 "
        "--last_only_prob 0.09 --lr 1e-4 --batch_size 256 --sample_size 100 --init_type finetune --freeze_items "
        "--init_transform none"
    ),
)
