"""GeoJSON: shapely takes the polygons, the numbers and pixels survive, and files of other programs are read."""

import json
import uuid

import numpy as np
import pytest
import shapely
from shapely.geometry import shape as geometry_of

from nuclei_unet.formats import geojson
from tests.nuclei_unet.formats.label_images import LABELS
from tests.refusals import refused


def test_features_are_what_qupath_imports(tmp_path):
    path = tmp_path / "a.geojson"
    numbers = np.unique(LABELS)[1:]
    area = np.arange(len(numbers), dtype=np.float32) + 0.5
    geojson.write(path, LABELS, {"label": numbers, "Area µm²": area, "Hole": [float("nan"), float("inf"), 3, 4, 5, 6]})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["type"] == "FeatureCollection"
    features = content["features"]
    assert [feature["properties"]["name"] for feature in features] == [str(number) for number in numbers]
    assert len({uuid.UUID(feature["id"]) for feature in features}) == len(features)
    for feature in features:
        assert feature["type"] == "Feature" and feature["properties"]["objectType"] == "detection"
        assert set(feature["properties"]["classification"]) == {"name", "color"}
    measurements = [feature["properties"]["measurements"] for feature in features]
    assert measurements[0] == {"Area µm²": 0.5} and measurements[1] == {"Area µm²": 1.5}
    assert measurements[2] == {"Area µm²": 2.5, "Hole": 3}
    kinds = {feature["properties"]["name"]: feature["geometry"]["type"] for feature in features}
    assert kinds["5"] == "MultiPolygon" and kinds["70000"] == kinds["1"] == "Polygon"
    # Rings are closed, and exteriors run as RFC 7946 wants it.
    first = geometry_of(features[0]["geometry"])
    assert shapely.get_coordinates(first).tolist() == [[1, 5], [2, 5], [2, 6], [1, 6], [1, 5]]


def test_measurements_of_other_nuclei_are_refused(tmp_path):
    refused("5 values of area for 6 nuclei", geojson.write, tmp_path / "a.geojson", LABELS, {"area": [1] * 5})
    assert not list(tmp_path.iterdir())


def square(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(geometry, **others):
    return {"type": "Feature", "geometry": geometry, **others}


A = {"type": "Polygon", "coordinates": [square(0.4, 0.3, 1.6, 1.6)]}
B = {"type": "MultiPolygon", "coordinates": [[square(1, 0, 4, 3), square(2, 1, 3, 2)], [square(0, 3, 1, 4)]]}
LINE = {"type": "LineString", "coordinates": [[0, 0], [3, 3]]}
EXPECTED = [[1, 1, 2, 2], [1, 1, 0, 2], [0, 2, 2, 2], [2, 0, 0, 0]]


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [feature(A), feature(LINE), feature(B)]},
        [feature(A, properties={"objectType": "annotation", "name": "cell"}), feature(B, properties=None)],
        [feature(A, properties={"name": "1"}), feature(None), feature(B, properties={"name": "2"})],
        [feature(B, nucleusGeometry=A, properties={"name": "3"}), feature(B, properties={"name": "3"})],
        [A, B],
        [{**A, "coordinates": [[[*vertex, 0.0] for vertex in A["coordinates"][0]]]}, B],
    ],
)
def test_files_of_other_programs(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text("\ufeff" + json.dumps(content), encoding="utf-8")
    assert geojson.read(path).tolist() == EXPECTED
    assert geojson.read(path, (2, 3)).tolist() == [row[:3] for row in EXPECTED[:2]]


def test_a_single_feature(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(feature(A, properties={"name": "0012"})))
    assert geojson.read(tmp_path / "a.json").tolist() == [[12, 12], [12, 12]]


def broken(rings):
    return json.dumps([feature(A), feature({"type": "Polygon", "coordinates": rings})])


NO_RINGS = (
    *(None, 7, [[1, 2]], [[[1, 2], [3]]], [[[1, "x"], [3, 4]]], [[{"x": 1}]], [[]]),
    *([square(0, 0, 1, float("nan"))], [square(0, 0, 1, 1e300)]),
)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        *((text, "not JSON") for text in ("", "{", "[" * 100_000)),
        ("\x00\xff", "not"),
        *((text, "not GeoJSON") for text in ("3", "{}", "[1]", '{"type": "FeatureCollection"}')),
        ('{"type": "FeatureCollection", "features": {}}', "not GeoJSON"),
        *((broken(rings), "feature 2: its coordinates") for rings in NO_RINGS),
        (broken([square(0, 0, 1e6, 1e6)]), "1000000 x 1000000 pixels"),
        (json.dumps([{"type": "Feature", "geometry": {"type": "Polygon"}}]), "feature 1: its coordinates"),
    ],
)
def test_broken_files_are_named(tmp_path, text, match):
    path = tmp_path / "a.geojson"
    path.write_text(text)
    refused(f"a.geojson.*{match}", geojson.read, path)
