"""MIND, H&M and bilibili: their own files and the tables of the published code."""

from pathlib import Path
from typing import Any

import pytest

from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import Preparation, prepare
from seqrec.data.sources.bilibili import Bilibili
from seqrec.data.sources.hm import HM
from seqrec.data.sources.mind import Mind
from tests.test_sources import REAL, read, where, write

NEWS = """N1\tsports\tgolf\tA "quoted title\tAbout golf\thttps://a\t[]\t[]
N2\tnews\tworld\tnull island\t\thttps://b\t[{"Label": "x"}]\t[]
N3\tnews\tworld\tThird\tMore\thttps://c\t[]\t[]
N4\tnews\tlocal\tFourth\tMore\thttps://d\t[]\t[]
N5\tnews\tlocal\tNobody reads it\tMore\thttps://e\t[]\t[]
"""
# The second user's later impression comes first; a history is the same in all rows of MIND, or longer later.
BEHAVIORS = """1\tU1\t11/13/2019 8:36:57 AM\tN1 N2\tN3-1 N4-0
2\tU2\t11/12/2019 6:11:30 PM\tN2\tN1-1 N4-1 N3-0
3\tU2\t11/11/2019 1:03:52 AM\tN2\tN3-1
4\tU1\t11/13/2019 12:10:00 PM\tN1 N2 N4\tN3-1 N2-1
5\tU3\t11/13/2019 12:10:00 PM\t\tN3-0 N2-0
6\tU4\t11/14/2019 7:00:00 AM\t\tN2-1
"""


def mind(folder: Path, behaviors: str = BEHAVIORS, news: str = NEWS, **options: Any) -> Mind:
    write(folder / "behaviors.tsv", behaviors)
    write(folder / "news.tsv", news)
    return Mind(**where(folder), input=folder, **options)


def test_mind_is_history_and_then_clicks_by_time(tmp_path: Path) -> None:
    users, _, table = read(mind(tmp_path, attributes="title,category"))
    assert users == {
        "U1": ["N1", "N2", "N4", "N3", "N2"],  # the longest history; N3 was clicked twice in a row
        "U2": ["N2", "N3", "N1", "N4"],
        "U4": ["N2"],
    }
    assert table.columns == ["item", "raw_id", "title", "category"]
    assert dict(zip(table["raw_id"], table["title"], strict=True)) == {
        "N1": 'A "quoted title',
        "N2": "null island",
        "N3": "Third",
        "N4": "Fourth",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"behaviors": BEHAVIORS + "7\tU5\t11/14/2019 7:00:00 AM\tN2-1\n"}, r"behaviors\.tsv, line 7: 4 fields, ex"),
        ({"news": NEWS.replace("\t[]\t[]\nN4", "\t[]\nN4")}, r"news\.tsv, line 3: 7 fields, expected 8 with tabs"),
        ({"behaviors": BEHAVIORS.replace("11/11/2019 1:03:52 AM", "yesterday")}, r"line 3: expected a user and a time"),
        ({"behaviors": BEHAVIORS.replace("\tU4\t", "\t\t")}, r"line 6: expected a user and a time .* got ''"),
        ({"news": NEWS + "N1\ta\tb\tTwice\t\tu\t[]\t[]\n"}, r"lines 1 and 6: item id 'N1' occurs twice"),
        ({"behaviors": BEHAVIORS.replace("N4-1", "N9-1")}, r"N9"),
    ],
    ids=["a field less", "news cut off", "no time", "no user", "news twice", "news unknown"],
)
def test_faulty_mind_is_refused_by_its_line(tmp_path: Path, change: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare(mind(tmp_path, **change))
    assert not (tmp_path / "data" / "x").exists()


def test_unknown_news_can_be_left_out(tmp_path: Path) -> None:
    users, _, _ = read(mind(tmp_path, BEHAVIORS.replace("N4-1", "N9-1"), on_missing_text="drop"))
    assert users["U2"] == ["N2", "N3", "N1"]


@pytest.mark.skipif(not (REAL / "news-layouts").is_dir(), reason="MIND's files are not in ../shared/data")
def test_mind_as_microsoft_ships_it(tmp_path: Path) -> None:
    folder = REAL / "news-layouts" / "MINDsmall_train"
    dataset = load_dataset(prepare(Mind(**where(tmp_path), input=folder, on_missing_text="item_id")))
    assert dataset.num_users == 4637  # every user of these rows has read or clicked something
    rows = [line.split("\t") for line in (folder / "behaviors.tsv").read_text().splitlines()]
    user = rows[0][1]
    own = [row for row in rows if row[1] == user]
    clicked = [word[:-2] for row in own for word in row[4].split() if word.endswith("-1")]
    expected = [*own[0][3].split(), *clicked]
    expected = [item for at, item in enumerate(expected) if not at or expected[at - 1] != item]
    number = dataset.user_table()["raw_id"].to_list().index(user)
    found = dataset.items[dataset.offsets[number] : dataset.offsets[number + 1]]
    names = ["", *dataset.item_table()["raw_id"]]
    assert len(own) == 1
    assert [names[item] for item in found] == expected


TABLES: list[tuple[type[Preparation], str, str, str]] = [
    (Mind, "news.tsv", "newsid", "title"),
    (HM, "items.tsv", "itemid", "description"),
    (Bilibili, "videos.tsv", "videoid", "description"),
]


@pytest.mark.parametrize(("source", "file", "key", "text"), TABLES, ids=[source.kind for source, *_ in TABLES])
def test_the_tables_of_the_published_code(source: Any, file: str, key: str, text: str, tmp_path: Path) -> None:
    write(tmp_path / "behaviors.tsv", "userid\tother\tbehaviors\nu1\t7\ti2 i1  i2\nu2\t8\ti3\n")
    write(tmp_path / file, f'{key}\t{text}\ni1\tone "inch\ni2\tNA\ni3\tthree\n')
    config = source(**where(tmp_path), input=tmp_path)
    users, _, table = read(config)
    assert users == {"u1": ["i2", "i1", "i2"], "u2": ["i3"]}
    assert dict(zip(table["raw_id"], table[text], strict=True)) == {"i1": 'one "inch', "i2": "NA", "i3": "three"}
    write(tmp_path / "behaviors.tsv", "userid\tother\tbehaviors\nu1\t7\ti2 i1\nu2\t8\n")
    with pytest.raises(UserError, match=r"behaviors\.tsv, line 3: expected a user and items"):
        prepare(config)
    write(tmp_path / file, f"{key}\tname\ni1\tone\n")
    write(tmp_path / "behaviors.tsv", "userid\tbehaviors\nu1\ti1 i1\n")
    with pytest.raises(UserError, match=rf"has no column '{text}'"):
        prepare(config)
    (tmp_path / file).unlink()
    with pytest.raises(MissingFileError, match=file):
        prepare(config)


def test_hm_as_kaggle_ships_it(tmp_path: Path) -> None:
    write(
        tmp_path / "transactions_train.csv",
        "t_dat,customer_id,article_id,price,sales_channel_id\n"
        "2020-09-17,c1,0108775015,0.05,2\n2020-09-16,c2,0108775044,0.05,1\n2020-09-16,c1,0108775044,0.05,2\n",
    )
    write(
        tmp_path / "articles.csv",
        "article_id,prod_name,product_type_name,colour_group_name,detail_desc,garment_group_name\n"
        '0108775015,Strap top,Vest top,Black,"Jersey top, narrow straps.",Jersey\n'
        "0108775044,Strap top,Vest top,White,,Jersey\n",
    )
    users, _, table = read(HM(**where(tmp_path), input=tmp_path))
    assert users == {"c1": ["0108775044", "0108775015"], "c2": ["0108775044"]}
    assert table.columns == ["item", "raw_id", "title", "type", "colour", "description"]
    by_id = {row["raw_id"]: row for row in table.iter_rows(named=True)}
    assert by_id["0108775015"]["description"] == "Jersey top, narrow straps."
    assert by_id["0108775044"]["description"] == ""


def test_microlens_stands_for_bilibili(tmp_path: Path) -> None:
    write(tmp_path / "MicroLens-50k_pairs.csv", "user,item,timestamp\n1,5,1583378629552\n1,7,1583378629100\n2,5,9\n")
    write(tmp_path / "MicroLens-50k_titles.csv", "item,title\n5,Five\n7,Seven\n")
    users, _, table = read(Bilibili(**where(tmp_path), input=tmp_path))
    assert users == {"1": ["7", "5"], "2": ["5"]}
    assert set(table["title"]) == {"Five", "Seven"}
    (tmp_path / "MicroLens-50k_pairs.csv").unlink()
    with pytest.raises(MissingFileError, match=r"exactly one \*_pairs\.csv"):
        prepare(Bilibili(**where(tmp_path), input=tmp_path))
