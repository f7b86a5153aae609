"""Which vectors are written, by whom, and which are left alone."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from Recformer.backbone import load_backbone
from Recformer.model import RecformerModel
from seqrec.data.dataset import Dataset, load_dataset
from seqrec.text.encoding import encode_items, own_device
from seqrec.text.tokens import ItemTokens, tokenize_items
from tests import forked
from tests.Recformer.conftest import LIMIT_FLAGS, LIMITS

SHORT = ["--num_epochs", "1", "--second_stage_epochs", "0", "--no-progress_bar", "--accelerator", "cpu", *LIMIT_FLAGS]


def finetune(data: Path, backbone: Path, folder: Path, *more: str) -> list[str]:
    paths = ["--data_path", data, "--model_name_or_path", backbone, "--runs_dir", folder / "runs"]
    return [*map(str, paths), "--embedding_dir", str(folder / "embedding"), *SHORT, *more]


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "embedding/tiny").glob("*.*")) if path.suffix}


@pytest.fixture(scope="module")
def finished(tiny_path: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a short run and its vectors."""
    folder = tmp_path_factory.mktemp("finished")
    forked.run_script("Recformer/finetune.py", *finetune(tiny_path, backbone, folder), output=folder / "log")
    return folder


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ["--seed", "2"],
            r"finetune\.npy holds other item vectors \(seed was 42 and is 2\): .*--embedding_dir.*--over",
        ),
        (["--max_token_num", "20"], r"longformer\.npy holds other item vectors \(max_token_num was 40 and is 20\)"),
        (["--precision", "bf16-mixed"], r"longformer\.npy .*precision was 32-true and is bf16-mixed"),
    ],
)
def test_no_vectors_take_the_place_of_others(
    finished: Path, tiny_path: Path, backbone: Path, flags: list[str], told: str
) -> None:
    before = read_files(finished)
    given = finetune(tiny_path, backbone, finished, "--run_name", "other", *flags)
    with pytest.raises(RuntimeError, match=told):
        forked.run_script("Recformer/finetune.py", *given, output=finished / "refused")
    assert read_files(finished) == before
    assert not (finished / "runs/Recformer/tiny/other").exists()


def test_vectors_are_replaced_when_asked_for_and_left_by_the_same_flags(
    finished: Path, tiny_path: Path, backbone: Path
) -> None:
    before = read_files(finished)
    for name, flags in (("again", []), ("replacing", ["--seed", "2", "--overwrite"])):
        given = finetune(tiny_path, backbone, finished, "--run_name", name, *flags)
        forked.run_script("Recformer/finetune.py", *given, output=finished / name)
        after = read_files(finished)
        assert [file for file in before if before[file] != after[file]] == (
            [] if name == "again" else ["finetune.json", "finetune.npy"]
        )
    given = finetune(tiny_path, backbone, finished, "--resume")  # finished: it has nothing to write any more
    forked.run_script("Recformer/finetune.py", *given, output=finished / "log")
    (finished / "embedding/tiny/finetune.json").unlink()
    with pytest.raises(RuntimeError, match=r"there is no finetune.json that says what made them"):
        forked.run_script(
            "Recformer/finetune.py", *finetune(tiny_path, backbone, finished, "--run_name", "x"), output=finished / "x"
        )


def test_encode_leaves_other_vectors_alone(tiny_path: Path, backbone: Path, tmp_path: Path) -> None:
    paths = ["--data_path", tiny_path, "--model_name_or_path", backbone, "--embedding_dir", tmp_path / "embedding"]
    given = ["--init_type", "mine", *map(str, paths), "--max_attr_length", "8", "--max_token_num"]
    for flags, told in ((["40"], "are in"), (["40"], "already"), (["20"], ""), (["20", "--overwrite"], "are in")):
        before = read_files(tmp_path) if (tmp_path / "embedding").exists() else {}
        if told:
            forked.run_script("Recformer/encode.py", *given, *flags, output=tmp_path / "log")
            assert told in (tmp_path / "log").read_text().splitlines()[-1]
        else:
            with pytest.raises(RuntimeError, match="max_token_num was 40 and is 20"):
                forked.run_script("Recformer/encode.py", *given, *flags, output=tmp_path / "log")
        assert (read_files(tmp_path) == before) == (told in ("already", ""))


def test_two_processes_write_once_what_one_encodes(
    finished: Path, tiny_path: Path, backbone: Path, tmp_path: Path
) -> None:
    given = finetune(tiny_path, backbone, tmp_path, "--devices", "2", "--item_refresh", "steps:2")
    forked.run_pair(forked.run_as_main, str(forked.ROOT / "Recformer/finetune.py"), given, folder=tmp_path)
    said = [(tmp_path / f"said.{rank}").read_text() for rank in range(2)]
    for name in ("longformer", "finetune"):
        assert sum(text.count(f"item vectors `{name}` are in") for text in said) == 1
    assert "`finetune`" in said[0]
    both, alone = ((folder / "embedding/tiny/longformer.npy").read_bytes() for folder in (tmp_path, finished))
    assert both == alone
    found = json.loads((tmp_path / "embedding/tiny/finetune.json").read_text())
    assert found["options"]["devices"] == 2


def encode_in_two(data: Path, backbone: Path, max_tokens: int, folder: Path) -> None:
    """Write what each of two processes has of all items, and how many sequences it read."""
    rank = int(os.environ["LOCAL_RANK"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    vectors, read = encode_counting(load_dataset(data), backbone, max_tokens, (rank, 2))
    torch.save({"vectors": vectors, "read": torch.tensor(read)}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def encode_counting(
    dataset: Dataset, backbone: Path, max_tokens: int, share: tuple[int, int]
) -> tuple[torch.Tensor, int]:
    torch.set_num_threads(1)
    model, tokenizer = load_backbone(str(backbone), **LIMITS)
    items = tokenize_items(dataset.item_table(), dataset.attributes, tokenizer, 3, LIMITS["max_attr_length"])
    read: list[int] = []
    model.register_forward_pre_hook(lambda _, arguments: read.append(len(arguments[0])))
    return encode_items(model, items, max_tokens, share=share), sum(read)


@pytest.mark.parametrize("max_tokens", [50, 10**6])  # in many batches; in one, which only the first process has
def test_the_catalogue_is_encoded_once_over_all_processes(
    tiny: Dataset, tiny_path: Path, backbone: Path, tmp_path: Path, max_tokens: int
) -> None:
    forked.run_pair(encode_in_two, tiny_path, backbone, max_tokens, tmp_path, folder=tmp_path)
    alone, read = encode_counting(tiny, backbone, max_tokens, (0, 1))
    assert read == tiny.num_items
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for part in found:
        assert torch.equal(part["vectors"], alone)
    if max_tokens == 50:
        assert max(int(part["read"]) for part in found) <= 0.7 * tiny.num_items


def test_each_process_has_a_device_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("SLURM_LOCALID", "2")
    assert own_device() == torch.device("cuda", 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert own_device() == torch.device("cuda", 1)
    assert own_device("cpu") == torch.device("cpu")


def test_the_model_is_left_as_it_was(backbone: Path, items: ItemTokens) -> None:
    model: RecformerModel = load_backbone(str(backbone), **LIMITS)[0].train()
    first, second = (encode_items(model, items).numpy() for _ in range(2))
    assert model.training
    np.testing.assert_array_equal(first, second)
