"""Long histories: the layouts of HLLM and PerSRec, MerRec, EB-NeRD and Amazon Books of 2014."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.sources.books import Books
from seqrec.data.sources.ebnerd import EbNerd
from seqrec.data.sources.hllm import Hllm
from seqrec.data.sources.interests import Interests
from seqrec.data.sources.merrec import MerRec
from tests.test_sources import read, where, write


def write_parquet(path: Path, **columns: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns).write_parquet(path)
    return path


def test_a_row_per_event_with_texts_of_the_same_name(tmp_path: Path) -> None:
    for name in ("dataset", "information"):
        (tmp_path / name).mkdir()
    events = write(tmp_path / "dataset/Pixel.csv", "item_id,user_id,timestamp\ni1,7,300\ni0,7,100\ni1,8,5\ni2,7,200\n")
    write(tmp_path / "information/Pixel.csv", "item_id,title,tag\ni2,two,b\ni0,zero,a\ni1,one,a\n")
    users, _, table = read(Hllm(**where(tmp_path), input=events))
    assert users == {"7": ["i0", "i2", "i1"], "8": ["i1"]}  # by time, whatever the order of the file
    assert dict(zip(table["raw_id"], table["title"], strict=True)) == {"i0": "zero", "i1": "one", "i2": "two"}


def test_lists_of_users_and_texts_in_any_order(tmp_path: Path) -> None:
    events = write_parquet(
        tmp_path / "a.parquet", user_id=[2, 1], object_id=[[3, 1], [2, 3, 1]], event_time=[[50, 40], [1, 2, 2]]
    )
    items = write_parquet(tmp_path / "b.parquet", object_id=[3, 1, 2], title=["three", "one", "two"])
    users, _, table = read(Hllm(**where(tmp_path), input=events, items=items))
    assert users == {"2": ["1", "3"], "1": ["2", "3", "1"]}  # equal times keep the order of the list
    assert dict(zip(table["raw_id"], table["title"], strict=True)) == {"1": "one", "2": "two", "3": "three"}


def test_faulty_lists_are_refused(tmp_path: Path) -> None:
    uneven = write_parquet(tmp_path / "a.parquet", user_id=[1, 2], object_id=[[1], [2, 3]], event_time=[[1], [2]])
    with pytest.raises(UserError, match=r"a\.parquet, row 2: lists of one user must be equally long, these have 'obj"):
        read(Hllm(**where(tmp_path), input=uneven))
    flat = write_parquet(tmp_path / "b.parquet", user_id=[1], object_id=[1], event_time=[1])
    with pytest.raises(UserError, match="'object_id' is a column of Int64, expected a list for each user"):
        read(Hllm(**where(tmp_path), input=flat))
    events = write(tmp_path / "c.csv", "item_id,user_id\n1,2\n")
    with pytest.raises(UserError, match="has no column 'timestamp'"):
        read(Hllm(**where(tmp_path), input=events))
    fine = write_parquet(tmp_path / "d.parquet", user_id=[1], object_id=[[1, 2]], event_time=[[1, 2]])
    items = write_parquet(tmp_path / "e.parquet", object_id=[1], title=["one"])
    with pytest.raises(UserError, match="text"):
        read(Hllm(**where(tmp_path), input=fine, items=items))


def test_merrec_has_the_finest_category_and_the_first_texts(tmp_path: Path) -> None:
    shape: dict[str, Sequence[object]] = {
        "c0_name": ["Women", "Men"],
        "c1_name": ["Shoes", None],
        "c2_name": ["Boots", " "],
    }
    write_parquet(
        tmp_path / "raw/1.parquet",
        user_id=[1, 1], product_id=[10, 11], item_id=[100, 101], stime=["2023-05-02 10:00:00", "2023-05-01 10:00:00"],
        brand_name=["A", None], event_id=["item_view", "item_like"], **shape,
    )  # fmt: skip
    write_parquet(
        tmp_path / "raw/deeper/2.parquet",
        user_id=[1, 2], product_id=[10, 10], item_id=[102, 100], stime=["2023-05-03 10:00:00", "2023-05-03 10:00:00"],
        brand_name=["later", "later"], event_id=["buy_comp", "item_view"], **shape,
    )  # fmt: skip
    users, _, table = read(MerRec(**where(tmp_path), input=tmp_path / "raw"))
    assert users == {"1": ["11", "10", "10"], "2": ["10"]}
    assert table.sort("raw_id").select("raw_id", "brand", "category").rows() == [
        ("10", "A", "Boots"),
        ("11", "", "Men"),
    ]
    single, _, _ = read(MerRec(name="y", data_dir=tmp_path / "data", input=tmp_path / "raw", object_column="item_id"))
    assert single["1"] == ["101", "100", "102"]
    with pytest.raises(MissingFileError, match=r"must hold MerRec's \.parquet files, there is none"):
        read(MerRec(**where(tmp_path), input=tmp_path / "nothing"))
    write_parquet(tmp_path / "raw/3.parquet", user_id=[1])
    with pytest.raises(UserError, match=r"3\.parquet has no column 'stime', 'product_id'"):
        read(MerRec(name="z", data_dir=tmp_path / "data", input=tmp_path / "raw"))


def test_ebnerd_histories(tmp_path: Path) -> None:
    times = [[datetime(2023, 5, 2), datetime(2023, 5, 1)], [datetime(2023, 5, 3)]]
    write_parquet(
        tmp_path / "raw/train/history.parquet",
        user_id=[7, 9], article_id_fixed=[[5, 6], [6]], impression_time_fixed=times,
        scroll_percentage_fixed=[[1.0, None], [2.0]],
    )  # fmt: skip
    write_parquet(
        tmp_path / "raw/articles.parquet",
        article_id=[6, 4, 5], title=["six", "four", "five"], subtitle=["s", "", None],
        topics=[["Sport", "Bold"], [], ["Vejr"]], body=["x", "y", "z"],
    )  # fmt: skip
    users, _, table = read(EbNerd(**where(tmp_path), input=tmp_path / "raw"))
    assert users == {"7": ["6", "5"], "9": ["6"]}
    assert table.columns == ["item", "raw_id", "title", "subtitle", "topics"]
    assert table.filter(pl.col("raw_id") == "6")["topics"].item() == "Sport Bold"


def test_books_of_2014(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    write(tmp_path / "raw/ratings_Books.csv", "A1,0001,5.0,300\nA1,0002,4.0,100\nA2,0001,1.0,7\n")
    literals = "{'asin': '0001', 'title': \"It's one\", 'price': 2.5}\n\n{'asin': '0002', 'description': 'of two'}\n"
    meta = write(tmp_path / "raw/meta_Books.json", literals)
    users, _, table = read(Books(**where(tmp_path), input=tmp_path / "raw"))
    assert users == {"A1": ["0002", "0001"], "A2": ["0001"]}
    assert table.select("raw_id", "title", "description").rows() == [
        ("0001", "It's one", ""),
        ("0002", "", "of two"),
    ]
    for line in ("__import__('os')", "{'title': 'x'}", "{'asin': "):
        write(meta, literals + line + "\n")
        with pytest.raises(UserError, match=r"meta_Books\.json, line 4: expected a dictionary with an asin"):
            read(Books(name="y", data_dir=tmp_path / "data", input=tmp_path / "raw"))


def test_interests_come_back_as_often_as_asked_and_recent_events_do_not_show_them(tmp_path: Path) -> None:
    for share in (0.0, 0.5, 1.0):
        config = Interests(**where(tmp_path), share=share, num_users=800)
        topics, lasting, bells = config.draw_topics(np.random.default_rng(0))
        assert topics.shape == (800, 96 + 32 + 2) and len(np.unique(lasting[0])) == 6
        is_own = (topics[:, :, None] == lasting[:, None]).any(2)
        assert is_own[:, :96].mean() == pytest.approx(0.7 + 0.3 * 6 / 60, abs=0.01)
        assert is_own[:, 96:-2].mean() == pytest.approx(share * 4 / 32, abs=0.01)
        assert [(topics[:, place] == lasting[:, place]).mean() for place in (-2, -1)] == pytest.approx(
            [share] * 2, abs=0.06
        )
        # A bell rings before two returns, and at no other time.
        assert (is_own[:, 97:] == (bells[:, 96:-1] | np.pad(bells, ((0, 0), (1, 0)))[:, 96:-2])).all()
        assert bells[:, -3].mean() == pytest.approx(share, abs=0.06) and not bells[:, -2:].any()
        # What came back once does not come back again.
        earlier = [set(row[96:-1]) for row in topics]
        assert not any(row[-1] in seen for row, seen, own in zip(topics, earlier, is_own, strict=True) if own[-1])


def test_interests_are_a_dataset(tmp_path: Path) -> None:
    users, _, table = read(Interests(**where(tmp_path), num_users=30, num_topics=12))
    assert len(users) == 30 and {len(items) for items in users.values()} == {130}
    assert table["title"][0].startswith("topic ") and "bell" in table["title"].to_list()
    for wrong, message in (
        ({"share": 1.5}, r"--share must lie in \[0, 1\]"),
        ({"num_topics": 8}, "--num_topics 8 must be at least 12"),
        ({"recent": 4}, "--recent 4 must be at least 12"),
        ({"interests": 5}, "--interests must be even"),
    ):
        with pytest.raises(UserError, match=message):
            Interests(**where(tmp_path), **wrong)
