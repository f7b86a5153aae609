"""Prompts by their templates, and how they are shortened."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from LSVCR.prompting import PromptWriter, languages, read_templates
from seqrec.basics.errors import MissingFileError, UserError
from seqrec.data.comments import Comments
from seqrec.text.backbones import MINILM, find_backbone, read_tokenizer
from tests.LSVCR.aligning import make_llama, make_tube


@pytest.fixture(scope="module")
def comments(tmp_path_factory: pytest.TempPathFactory) -> Comments:
    return make_tube(tmp_path_factory.mktemp("alignment"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llm"))


def test_a_prompt_is_its_template_in_tokens(llama: Path) -> None:
    tokenizer = read_tokenizer(llama)

    def tokens(text: str) -> Any:
        return np.array(tokenizer(text, add_special_tokens=False)["input_ids"])

    for language in languages():
        templates = read_templates(language)
        writer = PromptWriter(templates, tokenizer, 10_000, 3)
        videos = [writer.video(n, tokens(f"title {n}"), tokens("so good")) for n in (1, 2)]
        entries = [writer.entry(1, tokens("a cat"), [tokens("first!"), tokens("nice")])]
        said_videos = "".join(
            templates["video"].format(number=n, title=f"title {n}", comment="so good") for n in (1, 2)
        )
        joined = f"first!{templates['between comments']}nice"
        said_entries = templates["entry"].format(number=1, title="a cat", comments=joined)
        for task in ("Rec", "CommRank"):
            assert writer.variants(task) == 2
            for variant, template in enumerate(templates[task]):
                for given, said in ((entries, said_entries), ([], templates["nothing"])):
                    found = writer.prompt(task, variant, videos, given, tokens("now"))
                    whole = template.format(videos=said_videos, entries=said, title="now")
                    assert found.tolist() == [tokenizer.cls_token_id, *tokens(whole)]
        assert writer.answer(tokens("one two three four")).tolist() == [
            *tokens("one two three"),
            tokenizer.eos_token_id,
        ]


def test_a_prompt_that_is_too_long_loses_its_oldest_lines(llama: Path) -> None:
    templates = read_templates("en") | {"Rec": ["V{videos}E{entries}end"], "nothing": "none"}
    writer = PromptWriter(templates, read_tokenizer(llama), 20, 3)
    fixed = writer.longest - writer.room("Rec") - 2  # "none" is a token
    lines = [np.full(4, number) for number in range(1, 9)]

    def kept(videos: list[Any], entries: list[Any]) -> list[int]:
        found = writer.prompt("Rec", 0, videos, entries, lines[0][:0])
        assert len(found) <= 20
        return [number for number in range(1, 9) if number in found]

    room = 20 - fixed
    assert room // 4 >= 3
    assert kept(lines[:1], lines[4:5]) == [1, 5]
    left = (room - 4) // 4  # lines of videos beside the one of comments
    assert kept(lines[:4], lines[4:5]) == [*range(5 - left, 5), 5]
    both = kept(lines[:4], lines[4:])
    assert both == [4 - room // 8 + 1 + i for i in range(room // 8)] + [9 - room // 8 + i for i in range(room // 8)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"video": "{number} {title}"}, "'video' has the fields"),
        ({"Rec": []}, "'Rec' must be a list of templates"),
        ({"Rec": ["{videos}{entries}{title}"]}, "'Rec' has the fields"),
        ({"entry": "{number"}, "'entry' is no template"),
        ({"nothing": 3}, "nothing"),
    ],
)
def test_a_file_of_templates_is_checked(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(read_templates("en") | changed))
    with pytest.raises(UserError, match=message):
        read_templates(str(file))
    with pytest.raises(MissingFileError, match="none of en, zh"):
        read_templates(str(tmp_path / "absent"))


def test_a_tokenizer_without_an_end_is_refused(comments: Comments) -> None:
    with pytest.raises(UserError, match="no token that ends a text"):
        PromptWriter(read_templates("en"), read_tokenizer(find_backbone(MINILM)), 100, 3)
