"""The commands of the published READMEs, typed as they stand there, in the folders that they name."""

import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest

from seqrec.basics.command import run_command
from seqrec.basics.errors import MissingFileError
from seqrec.basics.paths import ROOT
from seqrec.data.dataset import load_dataset
from tests.clones import copy_project, shrink

GIFT_CARDS = ROOT.parent / "shared" / "data" / "amazon-giftcards-raw"


def run(line: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    copy = next(place for place in (folder, *folder.parents) if (place / ".venv").exists())
    path = f"{copy / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"  # an activated environment
    # The test command names its own project in PYTHONPATH; a user who activates the copy's environment does not.
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    shown = plain | {"OMP_NUM_THREADS": "1", "PATH": path} | variables
    return subprocess.run(["bash", "-c", line], cwd=folder, env=shown, capture_output=True, text=True)


def succeed(line: str, folder: Path, **variables: str) -> str:
    """Run a line that must succeed and return what it prints."""
    done = run(line, folder, **variables)
    assert done.returncode == 0, f"{line}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project, made small."""
    copy = copy_project(tmp_path_factory.mktemp("published") / "a clone")
    shrink(copy)
    return copy


def test_the_commands_from_the_backbone_to_the_id_models_run_in_their_order(project: Path) -> None:
    recformer = project / "Recformer"
    said = succeed("python save_longformer_ckpt.py", recformer)
    assert (recformer / "longformer_ckpt" / "minilm.bin").is_file() and "longformer_ckpt/minilm.bin" in said

    said = succeed("bash lightning_run.sh", recformer)
    assert "No flags were given" in said and "preparing the made-up shop demo-small" in said
    checkpoint = project / "runs/Recformer/demo-other/pretraining-on-demo-small-seed42/checkpoints/best.ckpt"
    succeed("python zero_to_fp32.py . pytorch_model.bin", checkpoint)
    assert (checkpoint / "pytorch_model.bin").exists()
    said = succeed("python convert_pretrain_ckpt.py", recformer)
    assert f"converting {checkpoint}, which ended last" in said

    said = succeed("bash finetune.sh", recformer)
    assert "--pretrain_ckpt" in said
    vectors = project / "embedding" / "demo-small"
    assert {path.name for path in vectors.glob("*.npy")} == {"longformer.npy", "pretrain.npy", "finetune.npy"}
    for family in ("SASRec", "Bert4Rec"):
        assert "--init_type finetune" in succeed("bash finetune.sh", project / family)
        assert (project / "runs" / family / "demo-small" / "finetune-seed42" / "metrics.json").is_file()

    # Vectors that were exported again: a demonstration is repeated, where a run that was resumed would refuse them.
    for suffix in ("npy", "json"):
        (vectors / f"longformer.{suffix}").replace(vectors / f"finetune.{suffix}")
    succeed("bash finetune.sh", project / "SASRec")


def test_the_four_paths_are_variables_and_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from Recformer.convert_pretrain_ckpt import Config, find_source

    paths = {
        "LIGHTNING_CKPT_PATH": "pretrained_ckpt_path",
        "LONGFORMER_CKPT_PATH": "longformer_ckpt_path",
        "OUTPUT_CKPT_PATH": "recformer_output_path",
        "OUTPUT_CONFIG_PATH": "recformerseqrec_output_path",
    }
    found: list[Config] = []
    flags = [word for name in paths for word in (f"--{name.lower()}", str(tmp_path / name))]
    run_command(found.append, Config, flags)
    for name in paths:
        monkeypatch.setenv(name, str(tmp_path / name))
    run_command(found.append, Config, [])
    for config in found:
        assert {name: getattr(config, field) for name, field in paths.items()} == {n: tmp_path / n for n in paths}
        with pytest.raises(MissingFileError, match=r"LIGHTNING_CKPT_PATH does not exist: give checkpoints/best.ckpt"):
            find_source(config)


def write_category(folder: Path, name: str, user: str) -> None:
    """Write a category's metadata and reviews as Amazon 2018 has them."""
    items = [f"{name}-{number}" for number in range(5)]
    meta = [{"asin": item, "title": f"A {item}", "brand": "B", "category": ["C", name]} for item in items]
    reviews = [
        {"reviewerID": f"{user}{number}", "asin": item, "unixReviewTime": 86_400 * day, "overall": 5.0}
        for number in range(3)
        for day, item in enumerate(items[: 5 - number])
    ]
    for file, rows in ((f"meta_{name}.json.gz", meta), (f"{name}_5.json.gz", reviews)):
        with gzip.open(folder / file, "wt") as out:
            out.writelines(json.dumps(row) + "\n" for row in rows)


def test_the_categories_of_pretraining_become_a_corpus(project: Path, tmp_path: Path) -> None:
    folder = project / "Recformer" / "pretrain_data"
    for line in ("python meta_data_process.py", "python interaction_data_process.py"):
        refused = run(line, folder)
        assert refused.returncode == 1 and "`bash Recformer/lightning_run.sh`" in refused.stderr
        assert "Traceback" not in refused.stderr
    names = "Automotive Electronics CDs_and_Vinyl"
    for name in names.split():
        write_category(tmp_path, name, "anna")
    roots = {"META_ROOT": str(tmp_path), "SEQ_ROOT": str(tmp_path)}
    succeed(f"python meta_data_process.py --categories {names}", folder, **roots)
    said = succeed(f"python interaction_data_process.py --categories {names}", folder)
    assert "bash Recformer/lightning_run.sh --dataset pretraining --valid_dataset CDs_and_Vinyl" in said
    corpus = load_dataset(project / "data" / "pretraining")
    assert sorted(corpus.user_table()["raw_id"])[:2] == ["anna0@Automotive", "anna0@Electronics"]
    assert (corpus.num_users, corpus.num_items) == (6, 10)


def test_process_prepares_what_the_published_script_does(project: Path, tmp_path: Path) -> None:
    folder = project / "Recformer" / "finetune_data"
    refused = run("python process.py", folder)
    assert refused.returncode == 1 and "curl -O https://" in refused.stderr and "Traceback" not in refused.stderr
    write_category(tmp_path, "Gifts", "anna")
    reviews, meta = tmp_path / "Gifts_5.json.gz", tmp_path / "meta_Gifts.json.gz"
    line = f"python process.py --meta_file_path '{meta}' --file_path '{reviews}' --output_path Gifts"
    said = succeed(line, folder)
    assert "bash Recformer/finetune.sh --data_path" in said
    dataset = load_dataset(folder / "Gifts")
    # Users of more than 3 events, items by first appearance.
    assert dataset.user_table()["raw_id"].to_list() == ["anna0", "anna1"]
    assert [dataset.item_table()["raw_id"][int(item) - 1] for item in dataset.items[:5]] == [
        f"Gifts-{number}" for number in range(5)
    ]


@pytest.mark.skipif(not GIFT_CARDS.is_dir(), reason="Amazon's gift cards are not in ../shared/data")
def test_process_reads_amazon_s_gift_cards(project: Path) -> None:
    line = (
        f"python process.py --meta_file_path '{GIFT_CARDS}/meta_Gift_Cards.json.gz' "
        f"--file_path '{GIFT_CARDS}/Gift_Cards_5.json.gz' --output_path Cards"
    )
    succeed(line, project / "Recformer" / "finetune_data")
    dataset = load_dataset(project / "Recformer" / "finetune_data" / "Cards")
    assert (dataset.num_users, dataset.num_items, len(dataset.items)) == (458, 148, 2972)
