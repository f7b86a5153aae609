"""The published command lines of LSVCR, word by word, and their launchers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro

from LSVCR.align_options import AlignConfig
from LSVCR.options import Config
from LSVCR.published import ALIGN, FINETUNE, count_processes
from seqrec.basics.checks import list_flags
from seqrec.basics.errors import UserError
from seqrec.basics.paths import ROOT
from seqrec.basics.published import PublishedFlags

CONFIG = ROOT / "LSVCR" / "config"
STAGE_1 = f"""--seed 2024 --model_name_or_path /THUDM/chatglm3-6b/ --output_dir ./ckpt/LSVCR --data_path ./data/
 --per_device_train_batch_size 2 --per_device_eval_batch_size 2 --dataloader_num_workers 12
 --gradient_accumulation_steps 8 --gradient_checkpointing True --learning_rate 3e-4 --num_train_epochs 1
 --warmup_ratio 0.03 --weight_decay 0.0 --save_strategy steps --bf16 True --lora True
 --deepspeed {CONFIG}/ds_z2_bf16.json --save_steps 1000 --load_best_model_at_end False"""
STAGE_2 = """--seed 2024 --output_dir ./ckpt/finetune --pretrain_checkpoint ./ckpt/LSVCR/adapter_model.bin
 --data_path ./data/
 --per_device_train_batch_size 512 --per_device_eval_batch_size 512 --dataloader_num_workers 12
 --gradient_accumulation_steps 1 --learning_rate 1e-3 --weight_decay 1e-5 --lr_scheduler_type constant
 --num_train_epochs 50 --warmup_ratio 0.0 --evaluation_strategy steps --eval_steps 1 --finetune_task Rec
 --max_candidate_num 100 --max_position 50 --max_phis_len 50 --max_chis_len 50 --id_text_loss_weight 0.1
 --photo_emb_file photo_embs.npy --comment_emb_file comment_embs.npy --neg_comment_num 19"""


def parse(config: Any, published: PublishedFlags, words: str) -> dict[str, Any]:
    translated = published.translate(words.split())
    found = tyro.cli(config, args=translated, config=(tyro.conf.OmitArgPrefixes,), use_underscores=True)
    return dict(list_flags(found))


def test_the_published_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert count_processes() == ["--devices", "4", "--num_nodes", "2"]
    found = parse(AlignConfig, ALIGN, STAGE_1)
    expected: dict[str, Any] = {
        "seed": 2024,
        "batch_size": 16,
        "accumulate_grad_batches": 8,
        "lr": 3e-4,
        "warmup_steps": 0.03,
    }
    expected |= {
        "precision": "bf16-mixed",
        "strategy": "deepspeed_stage_2",
        "lora_r": 8,
        "gradient_checkpointing": True,
    }
    expected |= {"save_steps": 1000, "num_epochs": 1, "model_name_or_path": "/THUDM/chatglm3-6b/"}
    assert {name: found[name] for name in expected} == expected
    words = f"--deepspeed {CONFIG}/ds_z2_fp16.json --contrast_loss_weight 0.2 --lora_target_modules a,b --lora_r 3"
    found = parse(AlignConfig, ALIGN, words)
    assert found["strategy"] == "deepspeed_stage_2_offload" and found["precision"] == "16-mixed"
    assert found["pref_loss_weight"] == found["bhv_loss_weight"] == 0.2 and found["lora_targets"] == ("a", "b")
    assert parse(AlignConfig, ALIGN, "--lora False")["lora_r"] == 0


def test_the_published_finetuning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert count_processes() == []
    found = parse(Config, FINETUNE, STAGE_2)
    expected: dict[str, Any] = {
        "task": "Rec",
        "text": "aligned",
        "start_from": Path("ckpt/LSVCR"),
        "batch_size": 512,
        "maxlen": 50,
    }
    expected |= {"schedule": "constant", "eval_every": 1, "num_epochs": 50, "id_text_loss_weight": 0.1, "lr": 1e-3}
    expected |= {"neg_comment_num": 19, "max_candidate_num": 100, "weight_decay": 1e-5, "warmup_steps": 0.0}
    assert {name: found[name] for name in expected} == expected
    words = "--finetune_task commrank --valid_metric ndcg@5 --photo_emb_file photo_full_embs.npy --disable_id True"
    found = parse(Config, FINETUNE, words)
    assert (found["task"], found["best_metric"], found["text"]) == ("CommRank", "NDCG@5", "aligned-full")
    assert found["disable_id"]


@pytest.mark.parametrize(
    ("published", "words", "message"),
    [
        (ALIGN, "--bf16 perhaps", "--bf16: expected True or False, got perhaps"),
        (ALIGN, "--load_best_model_at_end True", "it is false here"),
        (ALIGN, "--max_chis_len 9", "give --max_his_len"),
        (ALIGN, "--per_device_train_batch_size many", "expected a number"),
        (FINETUNE, "--photo_emb_file mine.npy", "--text NAME"),
        (FINETUNE, "--valid_metric hit@1", "expected ndcg@5"),
        (FINETUNE, "--optim sgd", "it is adamw_torch here, got sgd"),
        (FINETUNE, "--neg_photo_num 9", "it is -1 here"),
        (FINETUNE, "--pretrain_checkpoint", "expected one value, got nothing"),
    ],
)
def test_what_has_no_counterpart_is_refused(published: PublishedFlags, words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        published.translate(words.split())


def test_a_deepspeed_configuration_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 1}}))
    with pytest.raises(UserError, match=r"stage must be 2 or 3, got 1"):
        ALIGN.translate(["--deepspeed", str(file)])


def test_accelerate_launches_the_second_stage(tmp_path: Path) -> None:
    accelerate = Path(sys.executable).with_name("accelerate")
    line = [accelerate, "launch", "--config_file", "./config/accelerate_config.yaml", "finetune.py", *STAGE_2.split()]
    done = subprocess.run(
        [str(word) for word in line],
        cwd=ROOT / "LSVCR",
        env=os.environ | {"HF_HOME": str(tmp_path), "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode and "finetune.py: " in done.stderr and "data" in done.stderr
    assert "Traceback" not in done.stderr.split("finetune.py: ")[0]
