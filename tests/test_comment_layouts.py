"""Published layouts of comments: what each row becomes, by hand."""

from pathlib import Path

import polars as pl
import pytest

from seqrec.basics.errors import UserError
from seqrec.data.comments import Comments, load_comments
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import Preparation, prepare
from seqrec.data.sources.comment_layouts import KuaiComt, MicroLensComments, Reviews, Threads


def read(config: Preparation) -> Comments:
    return load_comments(load_dataset(prepare(config)))


def told(found: Comments) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return what each user visited, and which comments they took up, by their texts and times."""
    tellings = []
    for data, column in ((found.dataset, found.dataset.attributes[0]), (found.own, "text")):
        texts, users = data.item_table()[column].to_list(), data.user_table()["raw_id"].to_list()
        assert data.timestamps is not None
        events = [f"{texts[i - 1]} at {t}" for i, t in zip(data.items.tolist(), data.timestamps.tolist(), strict=True)]
        tellings.append({name: events[data.offsets[u] : data.offsets[u + 1]] for u, name in enumerate(users)})
    return tellings[0], tellings[1]


def test_kuaicomt(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, text in {
        "video_features": "video_id,caption\n1,one\n2,two\n",
        "comment_features": "comment_id,comment_content,video_id,comment_like_cnt\n"
        '10,"so, good",1,9\n11,bad,2,0\n12,?,3,1\n',
        "user_video_inter": "user_id,video_id,is_like,long_view,time_ms\n7,1,1,0,5999\n7,2,0,0,6000\n8,2,0,1,7000\n",
        "user_comment_inter": "user_id,comment_id,photo_id,time_stamp,is_like,is_reply\n7,10,1,6,0,1\n8,11,2,8,0,0\n"
        "8,12,3,9,1,0\n9,10,1,9,1,0\n",
    }.items():
        (folder / f"{name}.csv").write_text(text)
    found = read(KuaiComt(name="k", data_dir=tmp_path, input=folder))
    assert told(found) == (
        {"7": ["one at 5"], "8": ["two at 7"]},
        {"7": ["so, good at 6"], "8": [], "9": ["so, good at 9"]},
    )
    assert found.published is None  # the source does not say


def test_threads(tmp_path: Path) -> None:
    posts, replies = tmp_path / "posts.parquet", tmp_path / "replies.parquet"
    pl.DataFrame({"id": ["p", "q"], "title": ["post p", "post q"], "created_utc": [1, 2]}).write_parquet(posts)
    pl.DataFrame(
        {
            "id": ["a", "b", "c", "d", "e", "f"],
            "link_id": ["t3_p", "t3_p", "t3_p", "t3_q", "t3_p", "t3_gone"],
            "parent_id": ["t3_p", "t1_a", "t1_b", "t3_q", "t1_d", "t3_gone"],
            "author": ["ann", "bob", "bob", None, "[deleted]", "ann"],
            "body": ["A", "B", "C", "D", "E", "F"],
            "created_utc": [10, 20, 30, 40, 50, 60],
        }
    ).write_parquet(replies)
    found = read(Threads(name="t", data_dir=tmp_path, posts=posts, replies=replies))
    # Bob answers Ann, then himself, which is nothing that he took up.
    assert told(found) == ({"ann": ["post p at 10"], "bob": ["post p at 20"]}, {"ann": [], "bob": ["A at 20"]})
    assert found.published is not None and found.published.tolist() == [0, 10, 20, 30, 50]
    assert found.own.item_table()["text"].to_list() == ["A", "B", "C", "E"]  # post q was visited by nobody known


def test_reviews(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("asin,name\nx,a kettle\ny,a cup\n")
    (tmp_path / "reviews.tsv").write_text("user_id\tasin\ttext\ttimestamp\nu\tx\tgood\t5\nv\tx\tbad\t4\nu\ty\tok\t9\n")
    found = read(Reviews(name="r", data_dir=tmp_path, reviews=tmp_path / "reviews.tsv", items=tmp_path / "items.csv"))
    visits, taken = told(found)
    assert visits == {"u": ["a kettle at 5", "a cup at 9"], "v": ["a kettle at 4"]}
    assert taken == {"u": ["good at 5", "ok at 9"], "v": ["bad at 4"]}
    assert found.published is None  # so that a user's own review is a candidate


def test_microlens(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "M_pairs.csv").write_text("user,item,timestamp\n1,5,1000\n2,5,2000\n1,6,3500\n")
    (folder / "M_titles.csv").write_text('item,title\n5,"five, really"\n6,six\n')
    (folder / "M_comment_en.txt").write_text('1\t5\tsays "hi"\n2\t5\tlol\n1\t6\tnice\n')
    found = read(MicroLensComments(name="m", data_dir=tmp_path, input=folder))
    visits, taken = told(found)
    assert visits == {"1": ["five, really at 1", "six at 3"], "2": ["five, really at 2"]}
    assert taken == {"1": ['says "hi" at 1', "nice at 3"], "2": ["lol at 2"]}


def test_files_of_different_sources_are_refused(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("asin,name\nx,a kettle\n")
    reviews = tmp_path / "reviews.csv"
    reviews.write_text("user_id,asin,text,timestamp\nu,q,good,5\n")
    config = Reviews(name="r", data_dir=tmp_path / "data", reviews=reviews, items=tmp_path / "items.csv")
    with pytest.raises(UserError, match="none of the 1 comments has a video_id that is described"):
        prepare(config)
    reviews.write_text("user_id,text,timestamp\nu,good,5\n")
    with pytest.raises(UserError, match=r"reviews\.csv has no column 'item_id'"):
        prepare(config)
