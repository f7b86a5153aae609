"""What people and accidents put into files: ids, texts, numbers and bytes that have broken readers before."""

import gzip
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

BLANKS = "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2003\u2009\u2028\u2029\u202f\u205f\u3000"
"""Unicode's white space, nearly all."""
NASTY = (
    *("0", "7", "-1", "1.0", "1e5", "007", "9" * 19, "9" * 25, "NaN", "nan", "None", "null", "inf", "true", "..", "."),
    *(
        "\ufeffu1",
        "a\x00b",
        "a\x85b",
        "a\u2028b",
        "a\xa0b",
        "\u200b",
        "😀",
        "é",
        "e\u0301",
        "ß",
        "İ",
        "\U0010ffff",
        "\uffff",
    ),
    *(
        '"',
        '""',
        "'",
        'a"b',
        "a,b",
        "a;b",
        "a\tb",
        "a::b",
        "a|b",
        "\\",
        "\\n",
        "a b",
        " a",
        "a ",
        "#a",
        "=1+1",
        "%s",
        "{}",
    ),
    *(
        "[1]",
        "[a",
        "{1}",
        "['x', 'y']",
        "(1)",
        "<b>",
        "<!-- x",
        "&amp;",
        "&amp;lt;",
        "&#0;",
        "&#xD800;",
        "../../x",
        "*",
        "?",
    ),
    *("item", "raw_id", "user", "_line", "a@b", "Ã©", "🏳️‍🌈", "x" * 3000),
)
ABSENT = ("", " ", "\u3000")
"""Ids that are none."""
FILE_NAMES = ("in", "x[1]", "a*b", "a?b", "sp ace", "ü'q", "a%20b", "..in", "{a,b}", "#1", "a$HOME", "-f", "~")

plain_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
word = st.one_of(st.sampled_from([f"w{n}" for n in range(6)]), st.sampled_from(NASTY), plain_text)
"""An id or a text; most often one that others share."""
name = st.one_of(st.sampled_from(["a", "b", "c"]), st.sampled_from(["a", "b", "c", "d", "1", "2", "10"]), word)
"""An id that is likely to occur again."""
maybe_absent = st.one_of(name, name, name, st.sampled_from([*ABSENT, None]))

numbers = st.one_of(
    st.integers(0, 2_000_000_000),
    st.sampled_from([0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30, 253402300800]),
    st.sampled_from([0.5, -0.0, 1e300, float("inf"), float("nan")]),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, word, st.just("\ud800"))
anything = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(word, inner, max_size=3)), max_leaves=6
)
"""A value of JSON."""
JUNK = (
    *(
        b"",
        b"\n",
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"PAR1",
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"\x1f\x8b\x08\x00" + bytes(20),
    ),
    *(b"[]", b"{}", b"null", b"3", b'"x"', b"[[]]", b"NaN", b"{", b'{"a": 1, "a": 2}', b"\xff", b'{"\\ud800": 1}'),
    *(
        b"[" * 300,
        b"[" * 30_000,
        b'{"a":' * 3_000,
        b"9" * 5_000,
        b"a,b\n1",
        b"\r\r\r",
        b"<html><body>404</body></html>",
    ),
    *(
        b"\x80\x04K\x01.",
        b"\x80\x02cos\nsystem\nX\x01\x00\x00\x00xR.",
        b"\x93NUMPY\x01\x00v\x00{'descr': '|O'",
        b"\x08" + bytes(7) + b"{}      ",
    ),
)


@st.composite
def damaged(draw: DrawFn, content: bytes) -> bytes:
    """Return a file's bytes after an accident."""
    how = draw(
        st.sampled_from(["cut", "cut", "flip", "flip", "insert", "junk", "gzip", "half gzip", "doubled", "mark"])
    )
    at = draw(st.integers(0, max(len(content) - 1, 0)))
    if how == "cut":
        return content[:at]
    if how == "flip" and content:
        return content[:at] + bytes([content[at] ^ (1 << draw(st.integers(0, 7)))]) + content[at + 1 :]
    if how == "insert":
        extra = draw(
            st.one_of(st.binary(max_size=8), st.sampled_from([b"\x00", b"\n", b"\r", b'"', b"\xff", b"[" * 200]))
        )
        return content[:at] + extra + content[at:]
    if how == "gzip":
        return gzip.compress(content, mtime=0)
    if how == "half gzip":
        packed = gzip.compress(content, mtime=0)
        return packed[: draw(st.integers(2, len(packed)))]
    if how == "mark":
        return b"\xef\xbb\xbf" + content
    return content + content if how == "doubled" else draw(st.sampled_from(JUNK))


@st.composite
def altered(draw: DrawFn, value: Any, depth: int = 2) -> Any:
    """Return a value of JSON in which one part is another, missing, or one too many."""
    if depth and isinstance(value, dict) and value:
        key = draw(st.sampled_from(sorted(value, key=str)))
        how = draw(st.sampled_from(["part", "part", "part", "missing", "more"]))
        if how == "missing":
            return {k: v for k, v in value.items() if k != key}
        return value | ({draw(word): draw(anything)} if how == "more" else {key: draw(altered(value[key], depth - 1))})
    if depth and isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(altered(value[at], depth - 1)), *value[at + 1 :]]
    return draw(anything)


def some(strategy: SearchStrategy[Any], largest: int = 8) -> SearchStrategy[list[Any]]:
    """Return lists of at least one."""
    return st.lists(strategy, min_size=1, max_size=largest)
