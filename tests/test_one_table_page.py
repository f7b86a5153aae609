"""The page that scripts/one_table.py writes: what its script draws, and its filters, in node."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from scripts.one_table_report import write_page

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="needs node, which runs the page's script")
WAYS = {"sasrec-none": ("SASRec", 0.08), "text-knn": ("Baselines", 0.07), "sasrec-plm": ("SASRec", 0.09)}
WAYS |= {"popularity": ("Baselines", 0.01), "llm-ranker": ("Baselines", 0.095)}


def record(name: str, few: bool) -> dict[str, Any]:
    """Return a row as one-table.json has it; what trains nothing has no costs but of its test."""
    family, quality = WAYS[name]
    trains, sampled = family != "Baselines", name == "llm-ranker"

    def gain(size: float) -> dict[str, Any] | None:
        if name == "sasrec-none":
            return None
        return {"mean": size, "low": size - 0.002, "high": size + 0.002, "p_holm": 0.01, "clear": True}

    def scores(shift: float) -> dict[str, Any]:
        seen = {"1-5": 0.01, "6-20": 0.02}
        return {
            "NDCG@10": quality + shift, "sd": 0.001 if trains else None, "Recall@10": 0.1,
            "difference": gain(quality - 0.08),
            "seen": {label: {"NDCG@10": mean, "mean": mean, "low": None, "high": None} for label, mean in seen.items()},
            "users": {"84": {"NDCG@10": 0.02, "difference": gain(0.03)}} if few else {},
        }  # fmt: skip

    return {
        "row": name, "family": family, "why": "a <reason>", "new item": "its text", "few": few and not sampled,
        "language model's seconds": 20.0, "milliseconds": 2.5 if trains else None, "command": "bash finetune.sh",
        "kept": scores(-0.01), "left_out": scores(0.0), "seeds": 3, "training seconds": 100.0 * trains,
        "all seconds": 20 + 100.0 * trains, "vector bytes": 1 << 20, "peak bytes": 1 << 30, "trained": 10**6 * trains,
        "sample": 200 if sampled else None,
    }  # fmt: skip


@pytest.fixture
def drawn(tmp_path: Path) -> Any:
    def draw(*choices: dict[str, Any]) -> Any:
        for dataset, names, few in (("hats", list(WAYS), True), ("shoes", ["sasrec-none"], False)):
            rows = [record(name, few) for name in names]
            result = {"dataset": dataset, "metric": "NDCG@10", "notes": ["2 <trials>"], "users": {}, "rows": rows}
            if few:
                result["users"] = {"84": "1 %"}
            (tmp_path / dataset).mkdir(exist_ok=True)
            (tmp_path / dataset / "one-table.json").write_text(json.dumps(result))
        harness = Path(__file__).with_name("one_table_page.js")
        command = ["node", str(harness), str(write_page(tmp_path)), json.dumps(choices)]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        for each in json.loads(told)["all"]:
            assert not re.search("NaN|undefined|Infinity|null", "".join(each.values()))
        return json.loads(told)

    return draw


def ways(page: dict[str, str]) -> list[str]:
    """Return the rows of the table from the top."""
    return re.findall(r"<i></i>([\w-]+)<small>", page["table"])


def test_the_best_comes_first_and_what_is_far_below_is_named(drawn: Any) -> None:
    found = drawn()
    (page,) = found["all"]
    assert found["datasets"] == ["hats", "shoes"]
    assert ways(page) == ["llm-ranker", "sasrec-plm", "sasrec-none", "text-knn", "popularity"]
    assert "Baselines, 200 users" in page["table"] and page["table"].count('class="best"') == 1
    assert re.search(r'sasrec-plm.*?<td class="best">', page["table"])  # of what was tested on all users
    assert "below: popularity .0100" in page["training"] and page["training"].count("<circle") == 3
    assert page["serving"].count("<circle") == 2  # of what is served from a run
    assert page["users"].count("<polyline") == page["seen"].count("<polyline") == 3
    assert "+.0100*" in page["table"] and "[.0080, .0120]" in page["table"] and "1.0 MiB" in page["table"]
    assert "a &lt;reason&gt;" in page["table"] and "2 &lt;trials&gt;" in page["notes"]


def test_the_filters_and_the_headings(drawn: Any) -> None:
    choices = [{"protocol": "kept"}, {"families": ["Baselines"]}, {"families": [], "sort": "row"}, {"dataset": "shoes"}]
    first, kept, baselines, none, shoes = drawn(*choices)["all"]
    assert ".0900" in first["table"] and ".0900" not in kept["table"] and ".0800" in kept["table"]
    assert ways(baselines) == ["llm-ranker", "text-knn", "popularity"]
    assert ways(none) == [] and none["training"] == ""
    assert ways(shoes) == []
    by_name, upside_down = drawn({"sort": "row"}, {"sort": "row"})["all"][1:]
    assert ways(by_name) == sorted(WAYS) and ways(upside_down) == sorted(WAYS, reverse=True)


def test_a_dataset_of_the_reference_alone(drawn: Any) -> None:
    page = drawn({"dataset": "shoes"})["all"][1]
    assert ways(page) == ["sasrec-none"] and "reference" in page["table"]
    assert "No row of these was trained on few users." in page["users"]
