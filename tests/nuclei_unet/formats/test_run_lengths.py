"""The run-length code."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nuclei_unet.errors import InputError
from nuclei_unet.formats import run_lengths
from tests.refusals import refused

# Pixels of a 3 x 2 image are numbered  1 4
#                                        2 5
#                                        3 6


def decode(code, height, width):
    flat = np.zeros(height * width, bool)
    flat[run_lengths.pixels_of(code, flat.size, "here")] = True
    return flat.reshape(width, height).T


def test_run_lengths_count_from_one_and_down_the_columns():
    mask = decode("2 3 6 1", 3, 2)
    assert mask.tolist() == [[False, True], [True, False], [True, True]]
    assert run_lengths.encode_run_lengths(mask) == "2 3 6 1"
    for value, code in ((0, ""), (1, "1 6")):
        assert run_lengths.encode_run_lengths(np.full((3, 2), value)) == code
        assert (decode(code, 3, 2) == value).all()


@given(npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_run_lengths_of_any_mask_and_back(mask):
    assert np.array_equal(decode(run_lengths.encode_run_lengths(mask), *mask.shape), mask)


@given(st.one_of(st.text(), st.lists(st.integers(-3, 9).map(str)).map(" ".join)))
@example("1\x00 2")
@example("\u0663 1")
def test_any_text_is_a_mask_or_an_input_error(code):
    try:
        mask = decode(code, 3, 2)
    except InputError as error:
        assert str(error).startswith("here: ")
    else:
        assert mask.sum() == sum(map(int, code.split()[1::2]))


@given(npst.arrays(np.uint32, npst.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)))
def test_codes_of_all_nuclei_at_once(labels):
    codes = run_lengths.encode_labels(labels * 50_000)
    numbers = np.unique(labels[labels > 0])
    assert list(codes) == (numbers * 50_000).tolist()
    assert list(codes.values()) == [run_lengths.encode_run_lengths(labels == number) for number in numbers]


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("1 2 3", "3 numbers, but run lengths are pairs"),
        *((code, "not a list of whole numbers") for code in ("1 two", "1 1.5", "99999999999999999999 1")),
        *(("0 2", "starts at 0"), ("-3 2", "starts at -3"), ("1 0", "length 0"), ("1 -1", "length -1")),
        ("6 2", "ends after the image's 6 pixels"),
        *((code, "ends after") for code in ("1 9223372036854775807", "9223372036854775807 1")),
        *((code, "starts at 3 overlaps") for code in ("1 3 3 1", "3 1 1 3")),
    ],
)
def test_wrong_run_lengths_are_named(code, match):
    refused(f"^here: .*{match}", decode, code, 3, 2)
