"""The published scripts' flags, those of `transformers`' trainer among them, and their launchers, in ours.

`torchrun train.py` and `accelerate launch finetune.py` start every process themselves and say in the environment how
many there are; a published batch size is one process's.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from seqrec.basics.errors import UserError
from seqrec.basics.opening import read_json_object
from seqrec.basics.published import Conversion, PublishedFlags, drop

METRICS = {"ndcg": "NDCG", "recall": "Recall"}
VECTORS = {"photo_embs.npy": "aligned", "photo_full_embs.npy": "aligned-full"}
"""Files of videos' text vectors, and the names that encode.py gives to the same."""


def one(given: list[str]) -> str:
    """Return the one word after a flag.

    Raises:
        UserError: If there are more or none.
    """
    if len(given) != 1:
        raise UserError(f"expected one value, got {' '.join(given) or 'nothing'}")
    return given[0]


def if_true(*flags: str, otherwise: Sequence[str] = ()) -> Conversion:
    """Return a conversion of True and False, or of no word, which is True."""

    def convert(given: list[str]) -> list[str]:
        word = one(given or ["True"]).lower()
        if word not in ("true", "false"):
            raise UserError(f"expected True or False, got {word}")
        return list(flags if word == "true" else otherwise)

    return convert


def only(*allowed: str) -> Conversion:
    """Return a conversion for what is always so here: other values are refused."""

    def convert(given: list[str]) -> list[str]:
        if one(given).lower() not in allowed:
            raise UserError(f"it is {allowed[0]} here, got {given[0]}")
        return []

    return convert


def _batch_size(given: list[str]) -> list[str]:
    word = one(given)
    if not word.isdecimal():
        raise UserError(f"expected a number, got {word}")
    return ["--batch_size", str(int(word) * int(os.environ.get("WORLD_SIZE", "1")))]


def _sharding(given: list[str]) -> list[str]:
    """Return the strategy and precision of a DeepSpeed configuration."""
    file = Path(one(given))
    found = read_json_object(file, "see LSVCR/config/ds_z2_bf16.json", {"zero_optimization": dict})
    zero, stage = found["zero_optimization"], found["zero_optimization"].get("stage")
    if stage not in (2, 3):
        raise UserError(f"{file}: zero_optimization.stage must be 2 or 3, got {stage}")
    offload = "_offload" if isinstance(zero.get("offload_optimizer"), dict) else ""
    half = isinstance(found.get("fp16"), dict) and found["fp16"].get("enabled") is True
    return ["--strategy", f"deepspeed_stage_{stage}{offload}", *(["--precision", "16-mixed"] if half else [])]


def _vectors(given: list[str]) -> list[str]:
    name = VECTORS.get(Path(one(given)).name)
    if name is None:
        raise UserError(f"expected {' or '.join(VECTORS)}, got {given[0]}: other vectors have names, --text NAME")
    return ["--text", name]


def _metric(given: list[str]) -> list[str]:
    name, _, k = one(given).lower().partition("@")
    if name not in METRICS or not k.isdecimal():
        raise UserError(f"expected ndcg@5 or the like, got {given[0]}")
    return ["--best_metric", f"{METRICS[name]}@{k}"]


def _task(given: list[str]) -> list[str]:
    return ["--task", {"rec": "Rec", "commrank": "CommRank"}.get(one(given).lower(), given[0])]


def _alignment(given: list[str]) -> list[str]:
    path = Path(one(given))
    return ["--start_from", str(path.parent if path.suffix in (".bin", ".safetensors") else path)]


_TRAINER: Mapping[str, Conversion] = {
    "--per_device_train_batch_size": _batch_size,
    "--per_device_eval_batch_size": drop(),
    "--save_strategy": only("steps"),
    "--save_total_limit": drop(),
    "--logging_steps": drop(),
    "--report_to": only("none"),
    "--remove_unused_columns": drop(),
    "--optim": only("adamw_torch"),
    "--bf16": if_true("--precision", "bf16-mixed"),
    "--fp16": if_true("--precision", "16-mixed"),
}
"""Flags of `transformers`' trainer that both stages have."""
ALIGN = PublishedFlags(
    taken={
        "--lr_scheduler_type": "--schedule",
        "--warmup_ratio": "--warmup_steps",
        "--gradient_checkpointing": "--gradient_checkpointing | --no_gradient_checkpointing",
    },
    converted={
        **_TRAINER,
        "--lora": if_true(otherwise=["--lora_r", "0"]),
        "--deepspeed": _sharding,
        "--load_best_model_at_end": only("false"),
        "--contrast_loss_weight": lambda given: [
            *("--pref_loss_weight", one(given)),
            *("--bhv_loss_weight", one(given)),
        ],
        "--lora_target_modules": lambda given: ["--lora_targets", *",".join(given).split(",")],
    },
    refused={
        "--max_chis_len": "give --max_his_len for both histories",
        "--model_max_length": "give --max_source_length and --max_target_length",
        "--lora_modules_to_save": "the small model and its maps are always learned and kept",
    },
)
"""Of train.py."""
FINETUNE = PublishedFlags(
    taken={
        "--lr_scheduler_type": "--schedule",
        "--warmup_ratio": "--warmup_steps",
        "--max_phis_len": "--maxlen",
        "--max_chis_len": "--maxlen",
        "--eval_steps": "--eval_every",
        "--disable_id": "--disable_id | --no_disable_id",
    },
    converted={
        **_TRAINER,
        "--evaluation_strategy": only("steps", "epoch"),
        "--eval_strategy": only("steps", "epoch"),
        "--load_best_model_at_end": only("true"),
        "--neg_photo_num": only("-1"),
        "--finetune_task": _task,
        "--valid_metric": _metric,
        "--photo_emb_file": _vectors,
        "--comment_emb_file": drop(),
        "--pretrain_checkpoint": _alignment,
    },
    refused={"--instruction_emb": "texts are encoded by encode.py as they are"},
)
"""Of finetune.py."""


def count_processes() -> list[str]:
    """Return how many processes a launcher has started, as flags: none if it has not."""
    total, here = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return ["--devices", str(here), "--num_nodes", str(total // here)] if total > 1 else []
