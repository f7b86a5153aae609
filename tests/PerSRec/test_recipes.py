"""The published recipes and keys: what they are here, what is refused, whole runs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro

from PerSRec.main import cluster_flags
from PerSRec.options import Config
from PerSRec.recipes import OF_TEXTS, READ, RENAMED, SWITCHES, WIDTHS, parse_value, read_words, translate
from seqrec.basics.errors import MissingFileError, UserError
from tests import forked

ID = ("--config_file", "overall/ID.yaml", "IDNet/hstu.yaml")
IN_TEXT = {"use_text", "metrics", "hidden_act", "MAX_ITEM_LIST_LENGTH_TEST"}
"""Keys with one value that means anything, which the reader of the table needs not to see."""
LLM = ("--config_file", "overall/LLM_deepspeed.yaml", "HLLM/HLLM.yaml")


def parse(*words: str) -> Config:
    return tyro.cli(
        Config,
        args=translate(read_words(words)),
        config=(tyro.conf.OmitArgPrefixes,),
        use_underscores=True,
        console_outputs=False,
    )


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ('["title", "tag"]', ["title", "tag"]),
        ('[\\"title\\", \\"tag\\"]', ["title", "tag"]),
        ("[[400, 2], [450, 2]]", [[400, 2], [450, 2]]),
        ("None", None),
        ("TRUE", True),
        ("false", False),
        ("1e-4", 1e-4),
        ("1.0", 1),
        ("-720", -720),
        ("Pixel200K", "Pixel200K"),
    ],
)
def test_values_are_read_as_published(word: str, value: Any) -> None:
    assert parse_value(word) == value and type(parse_value(word)) is type(value)


def test_later_files_and_the_command_line_take_precedence() -> None:
    settings = read_words((*ID, "--loss", "nce", "--epochs", "201", "--optim_args.learning_rate", "1e-3"))
    assert (settings["epochs"], settings["optim_args.learning_rate"], settings["model"]) == (201, 1e-3, "HSTU")
    assert read_words(ID)["optim_args.learning_rate"] == 1e-4


def test_the_id_recipe() -> None:
    config = parse(*ID, "--dataset", "Pixel200K", "--train_batch_size", "64", "--MAX_ITEM_LIST_LENGTH", "10")
    assert (config.model.model, config.input_type, config.dataset) == ("hstu", "id", "Pixel200K")
    assert (config.model.hidden_units, config.model.n_heads, config.model.dropout_rate) == (512, 4, 0.1)
    assert (config.lr, config.weight_decay, config.batch_size) == (1e-4, 0.1, 64)
    assert (config.objective.loss, config.objective.num_negatives) == ("nce", 64 * 11)
    assert (config.objective.temp, config.learn_temp) == (0.07, True)
    assert (config.training.best_metric, config.protocol.metric_ks) == ("NDCG@200", (5, 10, 50, 200))
    assert config.training.patience == 11 and not config.protocol.filter_seen
    assert parse(*ID, "--suppress_history", "True").protocol.filter_seen
    fixed = parse(*ID, "--fix_temp", "True", "--num_negatives", "512")
    assert (fixed.objective.temp, fixed.learn_temp, fixed.objective.num_negatives) == (0.05, False, 512)
    llama = parse("--config_file", "overall/ID_deepspeed.yaml", "IDNet/llama_id.yaml")
    assert (llama.model.model, llama.schedule, llama.training.strategy) == ("llama", "cosine", "deepspeed_stage_2")
    assert parse("--config_file", "overall/ID.yaml", "IDNet/sasrec.yaml").model.inner_size == 1
    given = parse("--config_file", "overall/ID.yaml", "IDNet/llama_id.yaml", "--user_pretrain_dir", "smollm2")
    assert (given.model.user_pretrain_dir, given.model.user_llm_init) == ("smollm2", False)


def test_the_text_recipe() -> None:
    config = parse(*LLM, "--item_pretrain_dir", "minilm", "--MAX_TEXT_LENGTH", "256", "--stage", "3")
    assert (config.input_type, config.items.plm_name, config.items.tokenized_len) == ("text", "minilm", 256)
    assert (config.model.user_pretrain_dir, config.model.user_llm_init) == ("smollm2", True)
    assert (config.items.plm_last_n_unfreeze, config.items.plm_lr) == (-1, 1e-4)
    assert config.prompt.is_queries and config.items.item_prompt.startswith("Compress")
    assert (config.schedule, config.warmup_steps) == ("cosine", 0.1)
    assert (config.training.strategy, config.training.precision) == ("deepspeed_stage_3", "bf16-mixed")
    ddp = parse("--config_file", "overall/LLM_ddp.yaml", "HLLM/HLLM.yaml", "--plm_last_n_unfreeze", "1")
    assert (ddp.training.strategy, ddp.items.plm_last_n_unfreeze) == ("ddp", 1)
    new = parse(*LLM, "--user_pretrain_dir", "none", "--hidden_size", "96", "--n_layers", "3")
    assert (new.model.user_pretrain_dir, new.model.hidden_units, new.model.n_layers) == (None, 96, 3)


def test_flags_of_ours_stand_beside_published_keys() -> None:
    ours = (
        "--loss",
        "sampled_softmax",
        "--num_negatives",
        "7",
        "--valid_users",
        "500",
        "--gpus",
        "[0, 2]",
        "--devices",
        "2",
    )
    config = parse(*ID, *ours)
    assert (config.objective.num_negatives, config.training.valid_users, config.training.gpus) == (7, 500, (0, 2))


def test_user_tokens() -> None:
    tokens = ("--number_of_user_tokens", "4", "--pretrain_item_num", "8", "--insert_method", "[[4, 2], [8, 2]]")
    config = parse(*ID, "--model", "PersonalizedHSTU", *tokens)
    assert config.history.window.groups == ((4, 2), (8, 2))
    assert parse(*ID, "--model", "PersonalizedHSTU", *tokens[:4], "--insert_method", "0").history.window.num_tokens == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            (*ID, "--MAX_ITEM_LIST_LENGHT", "10"),
            "unknown key 'MAX_ITEM_LIST_LENGHT': did you mean MAX_ITEM_LIST_LENGTH",
        ),
        ((*ID, "--optim_args.learning_rat", "1"), "did you mean optim_args.learning_rate"),
        ((*ID, "--epochs"), "--epochs needs a value"),
        ((*ID, "epochs", "3"), "--config_file epochs does not exist"),
        (("--epochs", "3"), "--config_file is missing"),
        ((*ID, "--text_keys", "[title"), "is no JSON"),
        ((*ID, "--predict_with_full_item_seq", "False"), "False is not available: training reads whole sequences"),
        ((*ID, "--model", "HSTV"), "model must be one of HSTU"),
        ((*ID, "--model", "PersonalizedHSTU"), "needs number_of_user_tokens"),
        ((*ID, "--item_embedding_size", "64"), "must be equal: items and histories have one width"),
        ((*ID, "--MAX_ITEM_LIST_LENGTH_TEST", "50"), "must be MAX_ITEM_LIST_LENGTH 10"),
        ((*ID, "--metrics", '["Recall", "GAUC"]'), "metrics are Recall, NDCG and MRR, got 'GAUC'"),
        ((*ID, "--hidden_act", "relu"), "hidden_act is silu in hstu"),
        ((*LLM, "--stage", "0"), "stage must be 2 or 3, got 0"),
        ((*LLM, "--stage", "1"), "stage must be 2 or 3, got 1"),
        (("--config_file", "overall/ID.yaml"), "model must be one of"),
    ],
)
def test_what_is_no_part_of_it_is_refused(words: tuple[str, ...], message: str) -> None:
    with pytest.raises((UserError, MissingFileError), match=message):
        translate(read_words(words))


def test_files_that_are_none(tmp_path: Path) -> None:
    for text, message in (("a: [1", "is no YAML"), ("- 1", "must hold `key: value` lines")):
        file = tmp_path / "a.yaml"
        file.write_text(text)
        with pytest.raises(UserError, match=message):
            read_words(("--config_file", str(file)))
    with pytest.raises(MissingFileError, match=r"absent\.yaml does not exist, here or in"):
        read_words(("--config_file", "absent.yaml"))


def test_texts_must_be_those_of_the_dataset(texts_path: Path) -> None:
    where = ("--data_path", str(texts_path.parent), "--dataset", texts_path.name)
    with pytest.raises(
        UserError,
        match=r'asks for \["title", "tag", "description"\]: prepare it with --attributes title,tag,description',
    ):
        translate(read_words((*LLM, *where)))
    flags = translate(read_words((*LLM, *where, "--text_keys", '["title"]')))
    assert flags[flags.index("--data_path") + 1] == str(texts_path)


def test_raw_files_are_to_be_prepared(tmp_path: Path) -> None:
    (tmp_path / "Pixel200K.csv").write_text("item_id,user_id,timestamp\n")
    with pytest.raises(UserError, match=r"Pixel200K\.csv is not prepared: python scripts/prepare\.py hllm --input"):
        translate(read_words((*ID, "--data_path", str(tmp_path))))


def test_a_cluster_s_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.setenv(name, "")
    for name, value in {"nnodes": "2", "nproc_per_node": "8", "node_rank": "1", "master_addr": "10.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    assert cluster_flags() == ["--devices", "8", "--num_nodes", "2"]
    assert (os.environ["MASTER_ADDR"], os.environ["NODE_RANK"]) == ("10.0.0.1", "1")


def test_the_published_lines_run_from_inside_the_folder(tiny_path: Path, tmp_path: Path) -> None:
    def call(*words: str) -> str:
        given = [sys.executable, "main.py", *ID, *words]
        done = subprocess.run(given, cwd=forked.ROOT / "PerSRec", capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stderr

    where = ("--data_path", str(tiny_path.parent), "--dataset", tiny_path.name, "--accelerator", "cpu")
    small = ("--item_embedding_size", "8", "--hstu_embedding_size", "8", "--epochs", "1", "--run_name", "here")
    said = call("--loss", "nce", *where, *small, "--checkpoint_dir", str(tmp_path), "--topk", "[10, 20]",
                "--valid_metric", "NDCG@20")  # fmt: skip
    assert "finetune.py --model hstu --input_type id" in said
    run = tmp_path / "PerSRec" / tiny_path.name / "here"
    assert "NDCG@20" in json.loads((run / "metrics.json").read_text())["test"]
    assert "own test: +0.0000" in call("--val_only", "True", "--checkpoint_dir", str(run))
    with pytest.raises(AssertionError, match="has no user tokens"):
        call("--val_only", "True", "--checkpoint_dir", str(run), "--predict_with_full_item_seq", "False")


def test_the_documents_name_every_key_that_is_taken() -> None:
    text = (forked.ROOT / "docs" / "published-flags.md").read_text(encoding="utf-8")
    table = text[text.index("## Recipes of HLLM and PerSRec") :]
    for key, flag in {**RENAMED, **OF_TEXTS, **SWITCHES}.items():
        assert f"| `{key}` | `--{flag}`" in table
    assert [key for key in (*WIDTHS, *READ) if f"`{key}`" not in table and key not in IN_TEXT] == []
