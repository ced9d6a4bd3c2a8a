"""Tables as CSV and Parquet, read again by pandas and pyarrow."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_unet.formats import parquet
from nuclei_unet.formats.tables import csv_bytes
from tests.refusals import refused

TABLE = {
    "image": np.array(["a, b.png", 'say "x".png', "ü.png"], object),
    "label": np.array([1, 70_000, 4_000_000_000]),
    "area": np.array([24.0, 1 / 3, np.nan]),
}


def rows(data):
    return list(csv.reader(io.StringIO(data.decode(), newline="")))


def test_csv_has_fixed_bytes():
    expected = 'image,label,area\n"a, b.png",1,24\n"say ""x"".png",70000,0.333333333\nü.png,4000000000,\n'
    assert csv_bytes(TABLE) == expected.encode()
    assert csv_bytes({name: column[:0] for name, column in TABLE.items()}) == b"image,label,area\n"


def test_csv_keeps_float32_in_full_and_hides_the_last_digits_of_float64():
    value = np.float32(0.1)
    assert np.float32(rows(csv_bytes({"x": np.array([value])}))[1][0]) == value
    assert csv_bytes({"x": np.array([0.1 + 0.2])}) == csv_bytes({"x": np.array([0.3])})


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\n=1"])
def test_no_text_becomes_a_formula_and_numbers_stay_numbers(start):
    data = csv_bytes({f"{start}": np.array([f"{start}.png", "a=1.png"], object), "x": np.array([-1.5, -2])})
    assert rows(data) == [[f"'{start}", "x"], [f"'{start}.png", "-1.5"], ["a=1.png", "-2"]]


# Anything that a file system takes.
NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=()), min_size=1)


@given(st.lists(st.tuples(NAMES, st.floats(width=32)), max_size=5))
def test_any_name_and_number_comes_back(found):
    table = {"image": np.array([name for name, _ in found], object), "x": np.array([x for _, x in found], float)}
    _, *cells = rows(csv_bytes(table))
    names = [name.encode("utf-8", "backslashreplace").decode() for name, _ in found]
    shown = [name.replace("\r", r"\r") for name in names]
    assert [name for name, _ in cells] == [f"'{n}" if n.startswith(tuple("=+-@\t\n")) else n for n in shown]
    numbers = np.array([float(x or "nan") for _, x in cells])
    np.testing.assert_array_equal(numbers.astype(np.float32), table["x"].astype(np.float32))


def test_parquet_is_the_csv_with_types(tmp_path):
    (tmp_path / "t.csv").write_bytes(csv_bytes(TABLE | {"image": np.array(["1", "007", "ü, x.png"], object)}))
    for name in ("a", "b"):
        parquet.write_csv(tmp_path / "t.csv", tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = pd.read_parquet(tmp_path / "a")
    assert read["image"].tolist() == ["1", "007", "ü, x.png"]
    assert read["label"].dtype == np.int64 and read["label"].tolist() == TABLE["label"].tolist()
    assert read["area"].dtype == np.float64 and read["area"][1] == 0.333333333 and pd.isna(read["area"][2])

    (tmp_path / "t.csv").write_bytes(csv_bytes({name: column[:0] for name, column in TABLE.items()}))
    parquet.write_csv(tmp_path / "t.csv", tmp_path / "empty")
    assert list(pd.read_parquet(tmp_path / "empty")) == list(TABLE)


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("nuclei_unet.formats.parquet.find_spec", lambda name: None)
    refused(r"pip install 'nuclei-unet\[parquet\]'", parquet.write_csv, tmp_path / "t.csv", tmp_path / "t.parquet")


def test_a_very_long_table_becomes_a_folder_that_reads_like_one_file(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "PART", 1000)
    table = {"image": np.array(["a"] * 200_000, object), "label": np.arange(200_000), "area": np.arange(200_000) / 7}
    (tmp_path / "t.csv").write_bytes(csv_bytes(table))
    parquet.write_csv(tmp_path / "t.csv", tmp_path / "t.parquet", 200_000)
    assert len(list((tmp_path / "t.parquet").iterdir())) > 1
    found = pd.read_parquet(tmp_path / "t.parquet")
    assert found.label.tolist() == list(range(200_000)) and np.allclose(found.area, table["area"], rtol=1e-8)
    # A small one takes the folder's place, and the other way round.
    (tmp_path / "t.csv").write_bytes(csv_bytes({name: values[:5] for name, values in table.items()}))
    parquet.write_csv(tmp_path / "t.csv", tmp_path / "t.parquet", 5)
    assert (tmp_path / "t.parquet").is_file() and len(pd.read_parquet(tmp_path / "t.parquet")) == 5
