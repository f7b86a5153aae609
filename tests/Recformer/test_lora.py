"""Low-rank updates: what they compute, what learns, what is kept, and what they come to as plain weights."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from Recformer.backbone import load_backbone, load_pretraining
from Recformer.checkpoint import load_weights
from Recformer.model import RecformerModel
from seqrec.data.dataset import Dataset
from seqrec.data.vectors import load_embeddings
from seqrec.text.encoding import encode_items
from seqrec.text.lora import add_lora, drop_frozen, merge_lora
from seqrec.text.options import LearningOptions
from seqrec.text.tokens import ItemTokens
from seqrec.training.checkpoints import load_state
from tests import forked
from tests.conftest import write_dataset
from tests.Recformer.conftest import LIMIT_FLAGS, LIMITS
from tests.recommending import assert_recommends_as_it_was_tested

OPTIONS = LearningOptions(lora_r=2, lora_alpha=8, lora_dropout=0.0)


@pytest.fixture
def model(backbone: Path) -> RecformerModel:
    return load_backbone(str(backbone), **LIMITS)[0]


def shake(model: torch.nn.Module) -> None:
    """Give every update a value; peft starts them at zero."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)


@pytest.mark.parametrize("pooler_type", ["cls", "mean"])
def test_updates_compute_what_merged_weights_do(backbone: Path, items: ItemTokens, pooler_type: str) -> None:
    model, _ = load_backbone(str(backbone), pooler_type=pooler_type, **LIMITS)
    plain, _ = load_backbone(str(backbone), pooler_type=pooler_type, **LIMITS)
    base = {name: tensor.clone() for name, tensor in plain.state_dict().items()}
    before = encode_items(model, items)
    add_lora(model, model, OPTIONS)
    torch.testing.assert_close(encode_items(model, items), before, rtol=0, atol=0)  # an update starts at zero
    shake(model)
    merged = merge_lora(drop_frozen(model, model.state_dict()), base)
    assert merged.keys() == base.keys()
    plain.load_state_dict(merged)
    assert (encode_items(model, items) - before).abs().max() > 0.1
    torch.testing.assert_close(encode_items(model, items), encode_items(plain, items), rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_update(model: RecformerModel, items: ItemTokens) -> None:
    from seqrec.text.sequences import item_sequences

    add_lora(model, model, OPTIONS)
    shake(model)
    weights = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    (model(item_sequences(np.array([1, 2]), items)).pooled * weights).sum().backward()
    unread = {"query", "key", "value"}  # of the last layer, with `cls` pooling
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not ("layer.1." in name and name.split(".")[5] in unread):
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_what_learns_is_the_updates_and_what_is_new(model: RecformerModel) -> None:
    add_lora(model, model, OPTIONS)
    learning = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    D, inner, r = 16, 32, 2
    updates = 2 * r * (7 * (D + D) + 2 * (D + inner))  # 7 square projections and 2 of the feed-forward, in 2 layers
    assert sum(n for name, n in learning.items() if "lora_" in name) == updates
    assert {name for name in learning if "lora_" not in name} == {
        "embeddings.item_position_embeddings.weight",
        "embeddings.token_type_embeddings.weight",
    }


def test_the_language_model_head_goes_on_learning(backbone: Path) -> None:
    model, _ = load_pretraining(str(backbone), **LIMITS)
    add_lora(model, model.longformer, OPTIONS)
    assert all(parameter.requires_grad for parameter in model.lm_head.parameters())
    assert not any("lora_" in name for name, _ in model.lm_head.named_parameters())


def test_errors(model: RecformerModel) -> None:
    with pytest.raises(ValueError, match=r"--lora_targets \['qurey'\] are no projections of the encoder, which has"):
        add_lora(model, model, LearningOptions(lora_r=2, lora_targets=("qurey", "key")))
    with pytest.raises(ValueError, match="lora_dropout must lie in"):
        LearningOptions(lora_r=2, lora_dropout=1.0)
    update = {"a.lora_A.default.weight": torch.ones(1, 1), "a.lora_B.default.weight": torch.ones(1, 1)}
    with pytest.raises(ValueError, match="no lora_scale"):
        merge_lora(update, {"a.weight": torch.ones(1, 1)})
    with pytest.raises(ValueError, match="no weights for a"):
        merge_lora(update | {"lora_scale": torch.ones(())}, {})


def flags(tiny_path: Path, backbone: Path, folder: Path, *more: str | Path) -> list[str]:
    where = ["--data_path", tiny_path, "--model_name_or_path", backbone, "--runs_dir", folder / "runs"]
    learn = ["--lr", "0.02", "--lora_r", "2", "--lora_dropout", "0.1", "--no-progress_bar", "--accelerator", "cpu"]
    return [*map(str, where), *learn, *LIMIT_FLAGS, *map(str, more)]


def changed(state: dict[str, Tensor], base: dict[str, Tensor]) -> set[str]:
    return {name.split(".")[0] for name in base if not torch.equal(state[name], base[name])}


def test_finetuning_keeps_updates_alone_and_their_merger_encodes_the_exported_vectors(
    tiny: Dataset, tiny_path: Path, backbone: Path, items: ItemTokens, tmp_path: Path
) -> None:
    more = ("--num_epochs", "2", "--warmup_steps", "2", "--embedding_dir", tmp_path / "embedding")
    forked.run_script("Recformer/finetune.py", *flags(tiny_path, backbone, tmp_path, *more), output=tmp_path / "log")
    best = tmp_path / "runs/Recformer/tiny/longformer-seed42/stage1/checkpoints/best.ckpt"
    kept = set(load_state(best))
    assert not any("base_layer" in name or "word_embeddings" in name for name in kept)
    assert {"item_table", "model.lora_scale"} < kept
    exported = load_embeddings("finetune", tiny, tmp_path / "embedding")
    assert np.abs(exported - load_embeddings("longformer", tiny, tmp_path / "embedding")).max() > 1e-3

    model, _ = load_backbone(str(backbone), **LIMITS)
    load_weights(model, best)
    np.testing.assert_allclose(encode_items(model, items).numpy(), exported, atol=1e-5)
    forked.run_script(
        "Recformer/convert_pretrain_ckpt.py",
        *("--pretrained_ckpt_path", best, "--longformer_type", backbone),
        *("--recformer_output_path", tmp_path / "a.bin", "--recformerseqrec_output_path", tmp_path / "b.bin"),
        output=tmp_path / "log",
    )
    converted = torch.load(tmp_path / "a.bin", weights_only=True)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(converted[name], tensor)


def test_updates_of_a_pretrained_encoder(tiny: Dataset, tiny_path: Path, backbone: Path, tmp_path: Path) -> None:
    model, _ = load_backbone(str(backbone), **LIMITS)
    generator = torch.Generator().manual_seed(5)
    pretrained = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in model.state_dict().items()
    }
    torch.save(pretrained, tmp_path / "pretrained.bin")
    more = ("--num_epochs", "1", "--second_stage_epochs", "0", "--embedding_dir", tmp_path / "embedding")
    given = flags(tiny_path, backbone, tmp_path, *more, "--pretrain_ckpt", tmp_path / "pretrained.bin")
    forked.run_script("Recformer/finetune.py", *given, output=tmp_path / "log")
    vectors = [load_embeddings(name, tiny, tmp_path / "embedding") for name in ("longformer", "pretrain", "finetune")]
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-2
    assert np.abs(vectors[1] - vectors[2]).max() > 1e-3
    assert_recommends_as_it_was_tested(tmp_path / "runs/Recformer/tiny/pretrain-seed42", tiny_path)


def test_pretraining_by_updates_ends_the_same_after_a_kill(tiny_path: Path, backbone: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    other = write_dataset(tmp_path / "data/other", [generator.integers(1, 26, size=5).tolist() for _ in range(30)], 25)
    given = [*flags(tiny_path, backbone, tmp_path), "--valid_path", str(other), "--num_epochs", "3", "--resume"]
    runs = tmp_path / "runs/Recformer/other"
    forked.run_script("Recformer/pretrain.py", *given, "--run_name", "whole", output=tmp_path / "log")
    curve = runs / "cut/logs/metrics.csv"
    process = forked.start_script("Recformer/pretrain.py", *given, "--run_name", "cut", output=tmp_path / "cut")
    while process.is_alive() and not (curve.is_file() and len(curve.read_text().splitlines()) > 1):
        time.sleep(0.01)
    process.kill()
    process.join()
    forked.run_script("Recformer/pretrain.py", *given, "--run_name", "cut", output=tmp_path / "cut")
    whole, cut = (load_state(runs / name / "checkpoints/last.ckpt") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    model, _ = load_backbone(str(backbone), **LIMITS)
    base = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_weights(model, runs / "whole/checkpoints/last.ckpt")
    assert changed(model.state_dict(), base) == {"embeddings", "encoder"}
