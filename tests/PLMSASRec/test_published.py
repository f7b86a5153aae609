"""The published commands, typed as they stand there, and what they refuse."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from PLMSASRec.options import PUBLISHED, Config
from PLMSASRec.preinference import FLAGS
from PLMSASRec.preinference import Config as PreInference
from PLMSASRec.run import with_defaults
from seqrec.basics.errors import UserError
from seqrec.training.options import TrainingConfig
from tests.clones import copy_project
from tests.tiny_models import write_model


def parse(*words: str) -> Config:
    return tyro.cli(
        Config,
        args=PUBLISHED.translate(words),
        config=(tyro.conf.OmitArgPrefixes,),
        use_underscores=True,
        console_outputs=False,
    )


def test_run_has_the_published_defaults() -> None:
    plain = parse(*with_defaults([]))
    assert (plain.input_type, plain.head, plain.protocol.split) == ("id", "untied", "users")
    assert (plain.protocol.metric_ks, plain.training.best_metric) == ((5, 10, 20), "Recall@10")
    text = parse(*with_defaults(["--input_type", "text", "--dataset", "MIND_large"]))
    assert (text.input_type, text.items.plm_name, text.min_item_seq_len) == ("text", "facebook/opt-125m", 5)
    other = parse(*with_defaults(["--input_type=text", "--plm_name", "bert-base-uncased", "--head", "tied"]))
    assert (other.items.plm_name, other.head) == ("bert-base-uncased", "tied")


def test_lists_of_devices_and_words() -> None:
    found = parse("--devices", "0 1 2", "--strategy", "stage_2_offload", "--precision", "16").training
    assert (found.devices, found.gpus, found.strategy, found.precision) == (
        3,
        (0, 1, 2),
        "deepspeed_stage_2_offload",
        "16-mixed",
    )
    assert parse("--devices", "1,3").training.gpus == (1, 3)
    assert parse("--devices", "0").training.gpus == (0,)
    assert (parse("--devices", "2").training.devices, parse("--devices=2").training.gpus) == (2, ())
    assert parse("--precision", "32").training.precision == "32-true"
    assert parse("--strategy", "fsdp_offload").training.strategy == "fsdp_offload"
    prompt = parse("--use_prompt", "True", "--prompt_projeciton", "linear", "--pre_seq_len", "3").prompt
    assert (prompt.use_prompt, prompt.prompt_projection, prompt.pre_seq_len) == (True, False, 3)
    assert parse("--use_prompt", "False").prompt.use_prompt is False
    sizes = parse("--projection_n_layers", "4", "--projection_inner_sizes", "300 200")
    assert sizes.items.projection_inner_sizes == (300, 200)
    cached = parse("--pre_inference", "True", "--pre_inference_devices", "0 1", "--pre_inference_num_workers", "4")
    assert cached.cache.pre_inference_devices == (0, 1)
    for words, message in (
        (("--devices", "gpu"), '--devices must be numbers, such as "0 1 2", got gpu'),
        (("--prompt_projection", "cubic"), "--prompt_projection: expected one of True, true, nonlinear"),
        (("--architecture", "dssm"), "sasrec is the only one"),
    ):
        with pytest.raises(UserError, match=message):
            parse(*words)
    with pytest.raises(UserError, match=r"--gpus \(0, 0\) must be --devices 2 different numbers"):
        TrainingConfig(devices=2, gpus=(0, 0))


def test_the_manual_pre_inference_reads_its_published_flags() -> None:
    line = (
        "--dataset MIND_small --plm_name facebook/opt-125m --sasrec_seq_len 20 --tokenized_len 30 --min_item_seq_len 5 "
        "--max_item_seq_len None --pre_inference_precision 32 --pre_inference_batch_size 1 "
        "--pre_inference_num_workers 4 --last_n_unfreeze 0"
    )
    words = [*line.split(), "--pre_inference_devices", "0 1 2 3 4 5 6 7"]
    found = tyro.cli(
        PreInference, args=FLAGS.translate(words), config=(tyro.conf.OmitArgPrefixes,), use_underscores=True
    )
    assert (found.items.plm_last_n_unfreeze, found.cache.pre_inference_batch_size) == (0, 1)
    assert found.cache.pre_inference_devices == tuple(range(8))
    with pytest.raises(UserError, match="freezes nothing"):
        PreInference(items=found.items.__class__(plm_last_n_unfreeze=-1))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = copy_project(tmp_path_factory.mktemp("published") / "a clone")
    write_model(copy / "PLMSASRec" / "tiny-opt", "opt")
    raw = copy / "PLMSASRec" / "data" / "old_data" / "MIND_small"
    raw.mkdir(parents=True)
    news = [f"N{n}\tsports\tgolf\tTitle number {n} {'long ' * (n % 4)}\t\thttps://x\t[]\t[]" for n in range(30)]
    (raw / "news.tsv").write_text("\n".join(news) + "\n")
    rows = [
        f"{u}\tU{u}\t11/{11 + u % 9}/2019 8:36:57 AM\t{' '.join(f'N{(u * 3 + k) % 30}' for k in range(6))}\tN{u % 30}-1"
        for u in range(40)
    ]
    (raw / "behaviors.tsv").write_text("\n".join(rows) + "\n")
    return copy


def run(project: Path, folder: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the published README in its folder, with the project's environment."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = project / ".venv" / "bin" / Path(sys.executable).name
    return subprocess.run(
        [python, *words],
        cwd=project / "PLMSASRec" / folder,
        env=plain | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def test_the_commands_of_the_readme_in_their_order(project: Path) -> None:
    refused = run(project, "data/setup_scripts", "hm.py")
    assert refused.returncode == 1 and "data/old_data/hm does not exist: put the files there" in refused.stderr
    done = run(project, "data/setup_scripts", "MIND_small.py")
    assert done.returncode == 0, done.stderr
    assert "prepared dataset" in done.stdout and "python run.py --input_type text --dataset MIND_small" in done.stdout
    plm = ("--plm_name", "tiny-opt", "--dataset", "MIND_small")
    done = run(project, "", "datamodules/preinference.py", *plm, "--last_n_unfreeze", "1", "--sasrec_seq_len", "20")
    assert done.returncode == 0, done.stderr
    assert "after 2 of 3 blocks" in done.stderr
    states = [path for path in (project / "data" / ".states").iterdir() if path.is_dir()]
    assert len(states) == 1
    made = states[0].stat().st_mtime_ns
    text = ("--input_type", "text", *plm, "--plm_last_n_unfreeze", "1", "--pre_inference", "True")
    done = run(project, "", "run.py", *text, "--max_epochs", "1", "--accelerator", "cpu")
    assert done.returncode == 0, done.stderr
    assert [path for path in (project / "data" / ".states").iterdir() if path.is_dir()] == states
    assert states[0].stat().st_mtime_ns == made  # what the manual run made was used
    assert (project / "runs/PLMSASRec/MIND_small/tiny-opt-last1-seed42/metrics.json").is_file()
    assert run(project, "", "run.py", "--max_epochs", "1", "--dataset", "MIND_small").returncode == 0
    assert (project / "runs/PLMSASRec/MIND_small/id-seed42/metrics.json").is_file()
    wrong = run(project, "", "run.py", "--input_type", "text", "--dataset", "MIND_small", "--plm_name", "no/model")
    assert wrong.returncode == 1 and "'no/model' is no folder, not `minilm` or `smollm2`" in wrong.stderr
    assert "Traceback" not in wrong.stderr + refused.stderr
