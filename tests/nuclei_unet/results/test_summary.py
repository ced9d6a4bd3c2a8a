import base64
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_unet.results import summary
from nuclei_unet.results.record import Result
from nuclei_unet.results.summary import page
from tests.html import Reader

PICTURE = base64.b64encode(b"\xff\xd8\xff picture").decode()
GOOD = Result(
    "plate1/A01", "in/plate1/A01.tif", height=512, width=640, count=3, diameters=(10.0, 20.0, 30.0), thumbnail=PICTURE
)
WARNED = replace(GOOD, name="plate1/B02", warnings=("Blurred: very.", "Saturated: 9%."))
FAILED = Result("plate1/C03", "in/plate1/C03.tif", error="in/plate1/C03.tif: is cut short")


def read(items, facts=None):
    return Reader(page(items, facts or {}))


def test_totals_failures_and_warnings_come_before_the_pictures():
    text = read([GOOD, WARNED, FAILED], {"Model": "nuclei-unet 1.0"}).text
    assert "images 2 nuclei 6 with warnings 1 failed 1 Model nuclei-unet 1.0" in text
    places = [text.index(word) for word in ("is cut short", "Blurred: very.", "Sizes", "Images", "Counts")]
    assert places == sorted(places)
    # The image with a warning is the first picture as well.
    shown = [image["alt"] for image in read([GOOD, WARNED]).all("img")]
    assert shown == [f"plate1/{name} with the outlines of 3 nuclei" for name in ("B02", "A01")]


def test_pictures_are_in_the_page_and_nothing_else_is_loaded():
    reader = read([GOOD, WARNED])
    for tag, attrs in reader.elements:
        for name in ("src", "href", "action", "data"):
            assert attrs.get(name, "data:").startswith("data:"), (tag, attrs)
    assert not reader.all("script") and not reader.all("link")
    assert "url(" not in page([GOOD], {}) and "@import" not in page([GOOD], {})
    picture = reader.all("img")[0]
    assert picture["src"] == f"data:image/jpeg;base64,{PICTURE}" and picture["loading"] == "lazy"


HOSTILE = '<img src=x onerror=alert(1)>.png" onload="alert(2)\' <script>alert(3)</script> {{ 7 * 6 }} &amp; %'


@pytest.mark.parametrize("field", ["name", "source", "error", "warnings", "fact", "fact's name"])
def test_hostile_names_are_shown_as_text(field):
    item, facts = GOOD, {}
    if field == "error":
        item = replace(FAILED, error=HOSTILE)
    elif field == "warnings":
        item = replace(GOOD, warnings=(HOSTILE,))
    elif field.startswith("fact"):
        facts = {"Model": HOSTILE} if field == "fact" else {HOSTILE: "1"}
    else:
        item = replace(GOOD, **{field: HOSTILE})
    reader, plain = read([item], facts), read([GOOD if item.error is None else FAILED])
    assert HOSTILE in reader.text and not reader.all("script")
    assert len(reader.all("img")) == len(plain.all("img"))
    assert not [attrs for _, attrs in reader.elements if any(name.startswith("on") for name in attrs)]


def test_names_that_are_not_utf8_can_be_written():
    assert "caf?" in page([replace(GOOD, name=b"caf\xe9".decode(errors="surrogateescape"))], {}).encode().decode()


@pytest.mark.parametrize("item", [FAILED, replace(GOOD, count=0, diameters=(), warnings=("No nuclei were found.",))])
def test_without_any_nuclei_there_is_no_histogram(item):
    reader = read([item])
    assert not reader.all("svg") and "nuclei 0" in reader.text


def test_a_page_of_very_many_images_stays_small(monkeypatch):
    items = [replace(WARNED, name=f"i{n}") for n in range(30)]
    reader = read(items)
    assert len(reader.all("details")) == 1 and "10 more" in reader.text
    assert not read(items[:20]).all("details")
    monkeypatch.setattr(summary, "MOST_ROWS", 5)
    monkeypatch.setattr(summary, "MOST_THUMBNAILS", 2)
    reader = read(replace(WARNED if n % 2 else GOOD, name=f"i{n}") for n in range(40))
    assert "2 of 40 images" in reader.text and "The first 5 of 40 images" in reader.text
    assert "i1" in reader.text and "i39" not in reader.text


def sizes(item):
    return item.diameters, item.pixel_size


def test_micrometres_only_if_all_images_have_a_pixel_size():
    known = replace(GOOD, pixel_size=0.5)
    assert [chart["unit"] for chart in summary.charts([sizes(GOOD), sizes(known)])] == ["px"]
    micrometres, pixels = summary.charts([sizes(known), sizes(replace(known, pixel_size=2.0))])
    assert (micrometres["unit"], pixels["unit"]) == ("µm", "px")
    assert micrometres["median"] == np.median([5, 10, 15, 20, 40, 60]) and pixels["median"] == 20
    assert "0.5 µm/px" in read([known]).text and "µm" not in read([GOOD]).text


@given(st.lists(st.floats(0.125, 1e5), min_size=1, max_size=200))
def test_a_histogram_holds_every_nucleus_once(sizes):
    sizes = np.array(sizes)
    chart = summary.histogram(sizes, "px")
    assert sum(n for _, n in chart["bars"]) == sizes.size and 1 <= len(chart["bars"]) <= summary.BARS + 1
    if sizes.max() <= 1.5 * np.percentile(sizes, 99.5):
        assert not chart["beyond"]
    for edge, n in chart["bars"][:-1]:
        # A float's rounding may move a nucleus that lies right on an edge.
        inside = (sizes >= edge * (1 - 1e-9)) & (sizes <= (edge + chart["step"]) * (1 + 1e-9))
        assert n <= inside.sum()


def test_a_giant_does_not_flatten_the_histogram():
    chart = summary.histogram(np.append(np.random.default_rng(0).uniform(10, 30, 10_000), 900.0), "px")
    assert chart["end"] <= 32 and chart["beyond"] == 1 and len(chart["bars"]) > 20
