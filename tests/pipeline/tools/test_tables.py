"""Pages that are written by `make tables`: they are up to date, and what the tool reads of the schema."""

from pathlib import Path

import pytest

from pipeline import params
from pipeline.tools import tables
from tests import PARAMS, ROOT
from tests.refusals import refused


@pytest.mark.parametrize("path", [tables.PARAMETERS, *tables.RESULTS], ids=str)
def test_pages_are_up_to_date(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert path.read_text() == tables.page(path), "run `make tables`"


def test_every_parameter_is_described():
    described = {key: meaning for key, value, meaning in tables.keys(PARAMS.read_text()) if value is not None}
    assert list(described) == list(params.flatten(params.YAML(typ="safe").load(PARAMS.read_text())))
    assert all(described.values())


def test_what_the_schema_allows():
    text = "a:\n  # Above.\n  b: 1    # beside\nevaluate:\n"
    assert tables.keys(text) == [("a", None, ""), ("a.b", "1", "Above. beside"), ("evaluate", None, "")]
    one = {"type": "number", "exclusiveMinimum": 0, "maximum": 10_000}
    assert tables.allowed(one, {}) == "above 0 to 10,000"
    pair = {"anyOf": [{"prefixItems": [one, {"const": 3}]}, {"type": "null"}]}
    assert tables.allowed(pair, {}) == "[above 0 to 10,000, `3`], or `null`"


@pytest.mark.parametrize("text", ["", "<!-- results:x -->", "<!-- /results:x --><!-- results:x -->"])
def test_a_missing_marker_is_named(text):
    refused(r"a.md: needs <!-- results:x -->", tables.filled, text, "x", "", Path("a.md"))
    filled = tables.filled("1<!-- results:x -->\nold\n<!-- /results:x -->2", "x", "new", Path("a.md"))
    assert filled == "1<!-- results:x -->\n\nnew\n\n<!-- /results:x -->2"
