"""The run-length code, and the solution that is written in it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nuclei_unet.errors import InputError
from pipeline.dataset import run_lengths

# Pixels of a 3 x 2 image are numbered  1 4
#                                        2 5
#                                        3 6


def test_run_lengths_count_from_one_and_down_the_columns():
    mask = run_lengths.decode_run_lengths("2 3 6 1", 3, 2, "x")
    assert mask.dtype == bool
    assert mask.tolist() == [[False, True], [True, False], [True, True]]
    assert run_lengths.encode_run_lengths(mask) == "2 3 6 1"


def test_run_lengths_of_nothing_and_all():
    assert run_lengths.encode_run_lengths(np.zeros((3, 2))) == ""
    assert not run_lengths.decode_run_lengths("", 3, 2, "x").any()
    assert run_lengths.encode_run_lengths(np.ones((3, 2), bool)) == "1 6"
    assert run_lengths.decode_run_lengths("1 6", 3, 2, "x").all()


def test_run_lengths_in_any_order_and_back():
    assert run_lengths.encode_run_lengths(run_lengths.decode_run_lengths("6 1 2 1", 3, 2, "x")) == "2 1 6 1"


@given(npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_run_lengths_of_any_mask_and_back(mask):
    code = run_lengths.encode_run_lengths(mask)
    assert np.array_equal(run_lengths.decode_run_lengths(code, *mask.shape, "x"), mask)


@given(st.one_of(st.text(), st.lists(st.integers(-3, 9).map(str)).map(" ".join)))
@example("1\x00 2")
@example("\u0663 1")
def test_any_text_is_a_mask_or_an_input_error(code):
    try:
        mask = run_lengths.decode_run_lengths(code, 3, 2, "here")
    except InputError as error:
        assert str(error).startswith("here: ")
    else:
        assert mask.dtype == bool and mask.sum() == sum(map(int, code.split()[1::2]))


BAD_CODES = [
    ("1 2 3", "3 numbers, but run lengths are pairs"),
    ("1 two", "not a list of whole numbers"),
    ("1 1.5", "not a list of whole numbers"),
    ("99999999999999999999 1", "not a list of whole numbers"),
    ("0 2", "starts at 0"),
    ("-3 2", "starts at -3"),
    ("1 0", "length 0"),
    ("1 -1", "length -1"),
    ("6 2", "ends after the image's 6 pixels"),
    ("1 9223372036854775807", "ends after"),
    ("9223372036854775807 1", "ends after"),
    ("1 3 3 1", "starts at 3 overlaps"),
    ("3 1 1 3", "starts at 3 overlaps"),
]


@pytest.mark.parametrize(("code", "match"), BAD_CODES)
def test_wrong_run_lengths_are_named(code, match):
    with pytest.raises(InputError, match=f"^here: .*{match}"):
        run_lengths.decode_run_lengths(code, 3, 2, "here")


def solution(tmp_path: Path, *rows: str, header: str = "ImageId,EncodedPixels,Height,Width,Usage") -> Path:
    path = tmp_path / "solution.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_solution_becomes_label_images(tmp_path):
    path = solution(tmp_path, "a,1 2,3,2,Public", "b,4 1,2,2,Public", "a,2 2 6 1,3,2,Public", "c,,1,2,Public")
    labels = run_lengths.read_solution(path)
    assert {key: image.dtype for key, image in labels.items()} == dict.fromkeys("abc", np.dtype(np.uint16))
    assert labels["a"].tolist() == [[1, 0], [1, 0], [2, 2]]  # pixel 2 stays with the earlier row
    assert labels["b"].tolist() == [[0, 0], [0, 1]]
    assert labels["c"].tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("row", "match"),
    [(f"a,{code},3,2,Public", match) for code, match in BAD_CODES]
    + [
        ("a,1 1,4,2,Public", r"\(4, 2\) pixels, but \(3, 2\)"),
        ("a,1 1,x,2,Public", "Height: not a list"),
        ("a,1 1,3,0,Public", "Width: 0 is outside"),
        ("a,1 1,3,99999999,Public", "Width: 99999999 is outside"),
        ("b,1 1,20000,20000,Public", "at most 200,000,000"),
        (",1 1,3,2,Public", "ImageId is empty"),
        ("a", "line 3"),
    ],
)
def test_faults_of_a_solution_name_file_and_line(tmp_path, row, match):
    path = solution(tmp_path, "a,1 1,3,2,Public", row)
    with pytest.raises(InputError, match=match) as caught:
        run_lengths.read_solution(path)
    assert f"{path}, line 3" in str(caught.value)


def test_faults_of_the_csv_itself(tmp_path):
    with pytest.raises(InputError, match="column Height, Usage is missing"):
        run_lengths.read_solution(solution(tmp_path, header="ImageId,EncodedPixels,Width"))
    with pytest.raises(InputError, match="no such file"):
        run_lengths.read_solution(tmp_path / "absent.csv")
    for data in (b"", b"\x89PNG\xff\xfe,\x00", b"a,b\n1,2,3\n1\n1,2,3,4\n"):
        (tmp_path / "bad.csv").write_bytes(data)
        with pytest.raises(InputError, match="bad.csv"):
            run_lengths.read_solution(tmp_path / "bad.csv")
