"""What differs between two runs of the pipeline."""

import re

import pytest

from nuclei_unet.errors import InputError
from pipeline.tools import verify


def test_verify_shows_what_differs():
    before = {("train", "model"): "a" * 32, ("train", "history"): "b" * 32}
    table = verify.compare(before, before | {("train", "model"): "c" * 32, ("new", "x"): "d" * 32})
    assert table.values.tolist() == [
        ["train", "model", "aaaaaaaa", "cccccccc", "no"],
        ["train", "history", "bbbbbbbb", "bbbbbbbb", "yes"],
        ["new", "x", "missing", "dddddddd", "no"],
    ]


def test_verify_shows_differences_of_scores():
    table = verify.compare_scores({"test/iou": 0.7, "test/dice": 0.8}, {"test/iou": 0.75, "new": 0.5})
    assert table.round(6).values.tolist()[0] == ["test/iou", 0.7, 0.75, 0.05]
    assert table.difference.tolist()[1:] == [float("inf")] * 2


@pytest.mark.parametrize("revision", ["no-such-branch", "-h", "--all", "a;b", "$(a)"])
def test_a_revision_that_is_not_there_is_named(revision):
    with pytest.raises(InputError, match=f"{re.escape(revision)}: not a branch, tag or commit"):
        verify.commit_of(revision)
