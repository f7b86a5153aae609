"""Flags that could only do harm are refused, by the command's own reader, with a message that names them."""

import importlib
import io

import pytest
import torch

from seqrec.basics.command import run_command
from seqrec.basics.progress import progress, show_progress
from seqrec.nn.dropout import dropout
from seqrec.training.options import TrainingConfig
from tests.forked import ROOT

NUMBERS = [
    ("--lr", "0"), ("--lr", "-1"), ("--lr", "nan"), ("--lr", "inf"), ("--weight_decay", "-1"),
    ("--weight_decay", "nan"), ("--warmup_steps", "-1"), ("--seed", "-1"), ("--seed", "4294967296"),
    ("--gradient_clip_val", "-1"),
    ("--gradient_clip_val", "nan"), ("--dataloader_num_workers", "-1"), ("--dataloader_num_workers", "257"),
    ("--temp", "nan"), ("--temp", "0"),
    ("--batch_size", "0"), ("--num_epochs", "0"), ("--patience", "0"), ("--valid_users", "0"), ("--devices", "0"),
]  # fmt: skip
ID_NUMBERS = [
    ("--item_lr", "-1"), ("--item_lr", "nan"), ("--maxlen", "1000000000"), ("--maxlen", "0"), ("--hidden_units", "0"),
    ("--hidden_units", "1000000000"), ("--num_blocks", "1000000000"),
    ("--num_heads", "0"), ("--num_blocks", "0"), ("--dropout_rate", "1"),
    ("--dropout_rate", "nan"), ("--gbce_t", "2"), ("--num_negatives", "0"),
]  # fmt: skip
TEXT_NUMBERS = [
    ("--max_token_num", "1"), ("--max_attr_num", "0"), ("--max_attr_length", "0"), ("--eval_max_tokens", "0"),
    ("--lora_alpha", "0"), ("--lora_r", "1000000000"), ("--max_token_num", "1000000000"), ("--attention_window", "-1"),
]  # fmt: skip


def refuse(module: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a command says of its flags, which it must refuse."""
    found = importlib.import_module(module)
    with pytest.raises(SystemExit) as caught:
        run_command(lambda _: None, found.Command if module == "scripts.benchmarks.speed" else found.Config, words)
    assert caught.value.code
    told = capsys.readouterr().err if caught.value.code == 2 else str(caught.value.code)
    return " ".join(told.replace("│", " ").split())


@pytest.mark.parametrize("family", [name for name in ("SASRec", "Bert4Rec") if (ROOT / name).is_dir()])
@pytest.mark.parametrize(("flag", "value"), [*NUMBERS, *ID_NUMBERS])
def test_numbers_of_id_models(family: str, flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refuse(f"{family}.finetune", ["--init_type", "own", flag, value], capsys)
    assert f"{flag} must" in said and value in said.replace(",", "")


@pytest.mark.parametrize(("module", "words"), [("finetune", []), ("pretrain", ["--valid_dataset", "x"])])
@pytest.mark.parametrize(("flag", "value"), [*NUMBERS, *TEXT_NUMBERS])
def test_numbers_of_recformer(
    module: str, words: list[str], flag: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"{flag} must" in refuse(f"Recformer.{module}", [*words, flag, value], capsys)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("recommend", "run --top_k 0"),
        ("recommend", "run --max_tokens 0"),
        ("shuffle_test", "run --seed -1"),
        ("shuffle_test", "run --shuffles 0"),
        ("shuffle_test", "run --max_tokens -1"),
        ("embedding_report", "--dataset x --seed 4294967296"),
        ("sweep", "SASRec --name x --search lr=0.1..1 --seed -1"),
    ],
)
def test_numbers_of_scripts(script: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{words.split()[-2]} must" in refuse(f"scripts.{script}", words.split(), capsys)


@pytest.mark.parametrize(
    "words", ["sasrec --lr 0", "sasrec --dropout_rate nan", "bert4rec --seed -1", "recformer --threads 0"]
)
def test_numbers_of_the_benchmark(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"{words.split()[-2]} must" in refuse("scripts.benchmarks.speed", words.split(), capsys)


@pytest.mark.parametrize("script", ["recommend", "shuffle_test"])
@pytest.mark.parametrize(("device", "gpus"), [("xyz", 0), ("mps", 0), ("cuda", 0), ("cuda:1", 0), ("cuda:1", 1)])
def test_devices_that_are_not_there(
    script: str, device: str, gpus: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    said = refuse(f"scripts.{script}", ["run", "--device", device], capsys)
    assert (
        f"--device {device}" in said
        if device.startswith("cuda")
        else "--device must be auto, cpu, cuda or cuda:N" in said
    )


def test_more_processes_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    TrainingConfig(devices=2).check_machine()
    with pytest.raises(ValueError, match="--devices 99: this machine has 2 cores"):
        TrainingConfig(devices=99).check_machine()


@pytest.mark.parametrize("ends", ["nan..1", "0.1..inf", "-inf..1"])
def test_a_search_without_ends(ends: str) -> None:
    from scripts.search_space import read_search

    with pytest.raises(ValueError, match=r"--search 'lr=.*both ends must be finite"):
        read_search((f"lr={ends}",))


def test_nearly_everything_dropped_is_no_division_by_zero() -> None:
    dropped = dropout(torch.ones(100_000), 0.999999)
    assert dropped.isfinite().all()
    assert (dropped == 0).float().mean() > 0.999


def test_one_switch_turns_all_bars_off() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    said = []
    for shown in (True, False):
        show_progress(shown)
        terminal = Terminal()
        assert list(progress(range(3), file=terminal, delay=0, mininterval=0)) == [0, 1, 2]
        said.append(terminal.getvalue())
    show_progress(True)
    assert "3/3" in said[0]
    assert said[1] == ""


def test_every_bar_obeys_the_switch() -> None:
    for path in (p for folder in ("seqrec", "scripts", *(f.parent.name for f in ROOT.glob("*/finetune.py")))
                 for p in (ROOT / folder).rglob("*.py")):  # fmt: skip
        if path.name != "progress.py" and "peer" not in path.stem:
            assert "tqdm(" not in path.read_text(encoding="utf-8"), path
