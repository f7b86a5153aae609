"""The examples in docstrings are true."""

import doctest
import importlib

import pytest

MODULES = ("seqrec.evaluation.metrics", "seqrec.comparison.intervals", "seqrec.comparison.tables")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed
