"""Texts read as the published code reads them: every case, and all items of a real catalogue, by its rules."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from Recformer.published import RecformerConfig, RecformerTokenizer
from seqrec.basics.paths import ROOT
from seqrec.data.dataset import load_dataset
from seqrec.data.preparation import prepare
from seqrec.data.sources.amazon import Amazon
from seqrec.text.options import EmptyAttributes
from seqrec.text.tokens import load_item_tokens, tokenize_items

EXPECTED = Path(__file__).parent / "published_tokens.json"
GIFT_CARDS = ROOT.parent / "shared" / "data" / "amazon-giftcards-raw"
MAX_ATTRIBUTES, ATTRIBUTE_TOKENS, MAX_TOKENS, MAX_ITEMS = 3, 32, 1024, 50
Item = dict[str, str]


def tea(**changes: str) -> Item:
    return {"title": "Green tea, 50 bags", "brand": "Hill & Sons", "category": "Grocery Beverages"} | changes


HISTORIES: dict[str, list[Item]] = {
    "one item": [tea()],
    "several items": [tea(), tea(title="Tea pot"), tea(brand="Acme")],
    "an empty attribute": [tea(brand="")],
    "all attributes empty": [tea(title="", brand="", category="")],
    "an empty attribute before a fourth": [tea(brand="") | {"colour": "green"}],
    "more than three attributes": [tea() | {"colour": "green", "size": "large"}],
    "other orders of attributes": [tea(), {"category": "Kitchen", "title": "Tea pot"}, {"brand": "Acme"}],
    "a long attribute": [tea(title="very " * 50 + "green tea")],
    "a long attribute's name": [{"name of the attribute " * 20: "value", "title": "Tea"}],
    "unicode": [tea(title="Thé vert 緑茶 🍵 ﬁne co\u0301zy", brand="Åkesson", category="чай")],
    "outer and doubled blanks": [tea(title="  Green   tea ", brand="\tHill\n& Sons")],
    "tags and entities": [tea(title="<b>Green</b> tea &amp; honey", category="A &gt; B")],
    "numbers": [tea(title="12.5 kg", brand="007", category="1,000,000")],
    "a word of 3,000 letters": [tea(title="x" * 3000)],
    "special tokens in the text": [tea(title="[MASK] tea [SEP] [CLS]", brand="a [PAD] b", category=" <mask> ")],
    "50 items": [tea(title=f"Tea {number}") for number in range(50)],
    "more than 50 items": [tea(title=f"Tea {number}") for number in range(70)],
    "more than 1,024 tokens": [tea(title=f"Tea {number} " + "of many herbs " * 8) for number in range(40)],
    "no item": [],
}


def read_by_the_rules(history: list[Item], tokenizer: Any) -> dict[str, list[int]]:
    """Return tokens, types and positions of a history by the published rules, one token after another."""
    ids, types, positions = [tokenizer.cls_token_id], [0], [0]
    for place, item in enumerate(history[::-1][:MAX_ITEMS], start=1):
        for name, value in list(item.items())[:MAX_ATTRIBUTES]:
            pieces = [(piece, kind) for kind, text in ((1, name), (2, value)) for piece in tokenizer.tokenize(text)]
            for piece, kind in pieces[:ATTRIBUTE_TOKENS]:
                ids.append(tokenizer.convert_tokens_to_ids(piece))
                types.append(kind)
                positions.append(place)
    cut = slice(MAX_TOKENS)
    return {"input_ids": ids[cut], "token_type_ids": types[cut], "item_position_ids": positions[cut]}


def summary(fields: dict[str, list[int]]) -> dict[str, Any]:
    """Return what the committed table keeps: the length, both ends of the tokens, and a hash of everything."""
    names = ("input_ids", "token_type_ids", "item_position_ids")
    kept = json.dumps([fields[name] for name in names]).encode()
    ids = fields["input_ids"]
    return {"length": len(ids), "ids": ids[:12] + ids[12:][-4:], "sha256": hashlib.sha256(kept).hexdigest()[:16]}


@pytest.fixture(scope="module")
def published(tokenizer: Any) -> RecformerTokenizer:
    return RecformerTokenizer(tokenizer, RecformerConfig.from_pretrained("minilm", max_token_num=MAX_TOKENS))


@pytest.mark.parametrize("case", HISTORIES)
def test_a_history_is_read_as_published(case: str, tokenizer: Any, published: RecformerTokenizer) -> None:
    expected = read_by_the_rules(HISTORIES[case], tokenizer)
    assert summary(expected) == json.loads(EXPECTED.read_text(encoding="utf-8"))[case]
    found = published(HISTORIES[case])
    assert {name: found[name] for name in expected} == expected


def test_texts_of_other_orders_share_a_batch(tokenizer: Any, published: RecformerTokenizer) -> None:
    cases = ["one item", "other orders of attributes", "no item", "an empty attribute"]
    batch = published([HISTORIES[case] for case in cases])
    for row, case in enumerate(cases):
        for name, values in read_by_the_rules(HISTORIES[case], tokenizer).items():
            assert batch[name][row][: len(values)] == values


@pytest.mark.parametrize(("kept", "read"), [("keep", 3), ("drop", 4)])
def test_empty_attributes_count_when_they_are_kept(kept: EmptyAttributes, read: int, tokenizer: Any) -> None:
    items = [tea(brand="") | {"size": "large"}, tea(title="", brand="", category="") | {"size": ""}]
    table = pl.DataFrame([{"item": number, **item} for number, item in enumerate(items, start=1)])
    made = tokenize_items(table, list(items[0]), tokenizer, empty_attributes=kept)
    for number, item in enumerate(items, start=1):
        chosen = {name: text for name, text in list(item.items())[:read] if text or kept == "keep"}
        expected = read_by_the_rules([chosen], tokenizer)["input_ids"][1:]
        assert made.tokens[made.offsets[number] : made.offsets[number + 1]].tolist() == expected


@pytest.mark.skipif(not GIFT_CARDS.is_dir(), reason="Amazon's gift cards are not in ../shared/data")
def test_all_items_of_a_catalogue_are_read_as_published(tmp_path: Path, tokenizer: Any) -> None:
    options: dict[str, Any] = {"min_uc": 4, "on_missing_text": "drop", "raw_text": True}
    dataset = load_dataset(prepare(Amazon(name="cards", data_dir=tmp_path, input=GIFT_CARDS, **options)))
    texts: dict[str, Item] = {}
    with gzip.open(GIFT_CARDS / "meta_Gift_Cards.json.gz", "rt", encoding="utf-8") as lines:
        for line in map(json.loads, lines):
            texts[line["asin"]] = {
                "title": line["title"],
                "brand": line["brand"],
                "category": " ".join(line["category"]),
            }
    made = load_item_tokens(dataset, tokenizer, 3, 32, "keep")
    keys = dataset.item_table()["raw_id"].to_list()
    assert len(keys) == 148
    for item, key in enumerate(keys, start=1):
        expected = read_by_the_rules([texts[key]], tokenizer)
        part = slice(made.offsets[item], made.offsets[item + 1])
        assert made.tokens[part].tolist() == expected["input_ids"][1:], key
        assert made.types[part].tolist() == expected["token_type_ids"][1:], key


def test_raw_texts_keep_tags_entities_and_blanks(tmp_path: Path) -> None:
    title = "  <b>Tea</b> &amp; honey\n "
    with gzip.open(tmp_path / "meta_X.json.gz", "wt") as file:
        file.write(json.dumps({"asin": "A", "title": title, "brand": "nan", "category": ["C ", "D"]}) + "\n")
    with gzip.open(tmp_path / "X_5.json.gz", "wt") as file:
        for day in range(4):
            review = {"reviewerID": "u", "asin": "A", "unixReviewTime": day * 86_400, "overall": 5.0}
            file.write(json.dumps(review) + "\n")
    rows = {}
    for raw in (False, True):
        source = Amazon(name=f"x{raw}", data_dir=tmp_path, input=tmp_path, raw_text=raw)
        rows[raw] = load_dataset(prepare(source)).item_table().select("title", "brand", "category").row(0)
    assert rows == {False: ("Tea & honey", "", "C D"), True: (title, "nan", "C  D")}
