"""Item vectors of encoders as they come, by `sentence-transformers` and `transformers` themselves."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from Baselines.counting import run_baseline
from Baselines.encode import Config, main
from Baselines.options import Config as Baseline
from seqrec.basics.errors import UserError
from seqrec.data.dataset import Dataset
from seqrec.nn.geometry import transform_vectors
from seqrec.text.backbones import MINILM, find_backbone
from seqrec.training.restore import load_run
from tests.tiny_models import write_model


def encode(texts: Dataset, folder: Path, **options: Any) -> Any:
    config = Config(data_path=texts.path, embedding_dir=folder, **options)
    main(config)
    return np.load(folder / texts.name / f"{config.name}.npy")


def test_a_sentence_encoder_is_read_as_its_card_says(texts: Dataset, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    found = encode(texts, tmp_path, encoder=MINILM)
    library = SentenceTransformer(str(find_backbone(MINILM)), device="cpu")
    titles = texts.item_table()["title"].to_list()
    np.testing.assert_allclose(found[1:], library.encode(titles), atol=1e-5)
    assert not found[0].any() and (tmp_path / "texts/minilm.json").is_file()
    prompted = encode(texts, tmp_path, encoder=MINILM, prompt="query: ", init_type="asked")
    np.testing.assert_allclose(prompted[1:], library.encode([f"query: {title}" for title in titles]), atol=1e-5)
    with pytest.raises(UserError, match="holds other item vectors"):
        encode(texts, tmp_path, encoder=MINILM, max_length=4)
    with pytest.raises(UserError, match="has no prompt 'passage'"):
        encode(texts, tmp_path, encoder=MINILM, prompt_name="passage")


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_language_model_is_read_token_by_token(pooling: Any, texts: Dataset, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "llama", "llama")
    found = encode(texts, tmp_path, encoder=str(folder), pooling=pooling, batch_size=7)
    model = transformers.LlamaModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for row, title in enumerate(texts.item_table()["title"], 1):
        with torch.no_grad():
            states = model(**tokenizer(title, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0]
        expected = states[-1] if pooling == "last" else states.mean(dim=0)
        np.testing.assert_allclose(found[row], expected.numpy(), atol=1e-4)
    with pytest.raises(UserError, match=r"has no modules\.json .* give --pooling"):
        encode(texts, tmp_path, encoder=str(folder))


def test_users_are_read_as_one_text(texts: Dataset, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    vectors = encode(texts, tmp_path / "embedding", encoder=MINILM)
    options: dict[str, Any] = {
        "data_path": texts.path,
        "embedding_dir": tmp_path / "embedding",
        "runs_dir": tmp_path / "runs",
    }
    config = Baseline(baseline="vectors", init_type=MINILM, user_as="text", max_his_len=3, **options)
    run_baseline(config)
    dataset, restored = load_run(tmp_path / "runs/Baselines/texts/vectors-minilm-text", texts.path)
    library = SentenceTransformer(str(find_backbone(MINILM)), device="cpu")
    titles, test = texts.item_table()["title"].to_list(), config.protocol.hold_out(dataset).test
    rows = np.arange(len(test))
    items, offsets = test.gather(rows, 3)
    told = ["\n".join(titles[item - 1] for item in items[a:b][::-1]) for a, b in pairwise(offsets)]
    users = library.encode(told, normalize_embeddings=True)
    found = restored.module.user_vectors(restored.make_inputs(test, rows)).numpy()
    np.testing.assert_allclose(found, users, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(restored.module.item_vectors()[1:].numpy(), axis=1), 1, atol=1e-5)
    cosines = users @ (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)).T
    cosines[:, 0] = -2
    ranks = (cosines >= cosines[rows, test.targets][:, None]).sum(axis=1) - 1
    metrics = json.loads((tmp_path / "runs/Baselines/texts/vectors-minilm-text/metrics.json").read_text())["test"]
    assert metrics["Recall@10"] == pytest.approx((ranks < 10).mean(), abs=0.011)  # one user, if two scores are close
    encode(texts, tmp_path / "embedding", width=8)
    with pytest.raises(UserError, match=r"nothing says which encoder made .*tfidf\.npy"):
        run_baseline(replace(config, init_type="tfidf"))
    with pytest.raises(UserError, match="--user_as text is for --baseline vectors"):
        Baseline(user_as="text")


def test_flags_of_an_encoder_without_one() -> None:
    for options in ({"pooling": "mean"}, {"prompt": "a"}, {"max_length": 3}):
        with pytest.raises(UserError, match="are for an --encoder"):
            Config(**options)
    with pytest.raises(UserError, match="give one of"):
        Config(encoder="minilm", prompt="a", prompt_name="b")
    assert Config(encoder="mixedbread-ai/mxbai-embed-large-v1").name == "mxbai-embed-large-v1"
    assert Config(encoder="smollm2", pooling="last").name == "smollm2-last" and Config().name == "tfidf"


def test_vectors_side_by_side_score_by_the_sum_of_two_cosines(texts: Dataset, tmp_path: Path) -> None:
    words, sentences = encode(texts, tmp_path, width=8), encode(texts, tmp_path, encoder=MINILM)
    joined = encode(texts, tmp_path, width=8, beside=MINILM)
    assert joined.shape == (41, 8 + 384) and not joined[0].any()
    assert (tmp_path / "texts/tfidf-minilm.npy").is_file()
    whitened = transform_vectors(sentences, ("whiten",), np.ones(41, dtype=bool), 384, 1.0)[1:]
    expected = cosines(words[1:]) + cosines(whitened)
    np.testing.assert_allclose(joined[1:] @ joined[1:].T, expected, atol=1e-5)
    baseline: dict[str, Any] = {"data_path": texts.path, "embedding_dir": tmp_path, "runs_dir": tmp_path / "runs"}
    run_baseline(Baseline(baseline="vectors", init_type="tfidf-minilm", **baseline))
    encode(texts, tmp_path, encoder=MINILM, beside="tfidf")
    with pytest.raises(UserError, match="holds two encoders' vectors side by side"):
        run_baseline(Baseline(baseline="vectors", init_type="minilm-tfidf", user_as="text", **baseline))


def cosines(vectors: Any) -> Any:
    """Return those of all pairs of rows."""
    units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return units @ units.T
