"""Learning curves: what is drawn, and what is said where there is nothing to draw."""

from pathlib import Path

import pytest
from matplotlib.image import imread

from scripts.curves import Config, main, read_curves
from seqrec.basics.errors import UserError


def write_log(folder: Path, text: str) -> Path:
    (folder / "logs").mkdir(parents=True)
    (folder / "logs/metrics.csv").write_text(text)
    return folder


def test_time_adds_up_over_epochs(tmp_path: Path) -> None:
    run = write_log(tmp_path / "a", "epoch,seconds,train/loss\n0,30.0,2.5\n1,90.0,2.0\n")
    table = read_curves(run, ("train/loss",))
    assert table["minutes"].to_list() == [0.5, 2.0]
    assert table["number"].to_list() == [1, 2]


def test_a_picture_of_runs_that_have_got_to_different_places(tmp_path: Path) -> None:
    head = "epoch,seconds,train/loss,valid/NDCG@10\n"
    runs = (
        write_log(tmp_path / "a", head + "0,3,2.5,0.1\n1,3,2.2,0.2\n"),
        write_log(tmp_path / "b", head + "0,3,2.4,0.15\n"),
    )
    main(Config(runs, output=tmp_path / "new" / "curves.png"))
    height, width, _ = imread(tmp_path / "new" / "curves.png").shape
    assert width > 2 * height


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="give a run's folder"):
        read_curves(tmp_path, ("train/loss",))
    run = write_log(tmp_path / "a", "epoch,seconds,train/loss\n0,30.0,2.5\n")
    with pytest.raises(ValueError, match="no column valid/MRR, it has epoch, seconds, train/loss"):
        read_curves(run, ("valid/MRR",))
    for text, said in (
        ("", "is no table"),
        ("seconds,train/loss\n1,2\n3,4,5,6\n", "is no table"),
        ("seconds,train/loss\n1,a\n", "train/loss holds String, expected numbers"),
        ("train/loss\n1\n", "no column seconds"),
    ):
        (run / "logs/metrics.csv").write_text(text)
        with pytest.raises(UserError, match=said):
            read_curves(run, ("train/loss",))
    with pytest.raises(ValueError, match="at least one run folder"):
        Config(())
