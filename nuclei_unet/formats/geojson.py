"""GeoJSON as QuPath reads and writes it: one feature per nucleus, coordinates in pixels from the top left corner."""

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.formats.geometry import Part, label_image, outlines, ring_of
from nuclei_unet.formats.label_image import checked, numbered, read_json

CLASS = {"name": "Nucleus", "color": [0, 200, 120]}
MAX_BYTES = 2**31


def write(path: Path, labels: np.ndarray, measurements: Mapping[str, Sequence[float]] | None = None) -> None:
    """Write the outlines of nuclei as a FeatureCollection that QuPath imports as detections.

    QuPath takes the endings .geojson and .json. `labels` are integer (H, W), 0 = background; `measurements` are name ->
    one number per nucleus, in ascending order of labels. NaN and infinite values are left out, since QuPath takes none.
    So is a column `label`: a nucleus' number is its name. Raises InputError for a column of another length.
    """
    nuclei = outlines(checked(labels, str(path)))
    columns = {name: values for name, values in (measurements or {}).items() if name != "label"}
    for name, values in columns.items():
        if len(values) != len(nuclei):
            raise InputError(f"{path}: {len(values)} values of {name} for {len(nuclei)} nuclei")
    with fresh_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for index, (label, parts) in enumerate(nuclei.items()):
            row = {name: float(values[index]) for name, values in columns.items()}
            row = {name: value for name, value in row.items() if math.isfinite(value)}
            file.write("\n" if index == 0 else ",\n")
            # A feature per line: such a file can be searched, and is never in memory as a whole.
            file.write(json.dumps(_feature(label, parts, row), ensure_ascii=False, separators=(",", ":")))
        file.write("\n]}\n")


def _feature(label: int, parts: list[Part], measurements: dict[str, float]) -> dict:
    rings = [[np.concatenate([ring, ring[:1]]).tolist() for ring in part] for part in parts]
    kind, coordinates = ("Polygon", rings[0]) if len(rings) == 1 else ("MultiPolygon", rings)
    return {
        "type": "Feature",
        # QuPath wants a UUID, and the same one in every run is as good as any.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"nuclei-unet/{label}")),
        "geometry": {"type": kind, "coordinates": coordinates},
        "properties": {"objectType": "detection", "name": str(label), "classification": CLASS}
        | {"measurements": measurements},
    }


def read(path: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Read the polygons of a GeoJSON file, of QuPath or of any other program, as a label image.

    A FeatureCollection, a list of features or a single feature. Detections, annotations and cells count alike; of a
    cell with a nucleus, the nucleus is taken. Points and lines are left out. A pixel belongs to a polygon if its centre
    lies inside, and to the first of several.

    The labels are uint16 or uint32 (H, W); without `shape`, the image is the smallest that holds all polygons. If all
    features have different whole numbers as names, these are the labels; otherwise 1, 2 ... in the order of the file.
    Raises InputError if it is not GeoJSON, or has broken coordinates.
    """
    features = read_json(path, MAX_BYTES)
    if isinstance(features, dict):
        features = features.get("features") if features.get("type") == "FeatureCollection" else [features]
    if not isinstance(features, list) or not all(isinstance(item, dict) and item.get("type") for item in features):
        raise InputError(f"{path}: not GeoJSON; expected a FeatureCollection or a list of features")
    shapes = [(index, feature, geometry) for index, feature in enumerate(features) if (geometry := _geometry(feature))]
    numbers = numbered([_name(feature) for _, feature, _ in shapes])
    nuclei = {
        number: _parts(geometry, f"{path}, feature {index + 1}")
        for number, (index, _, geometry) in zip(numbers, shapes, strict=True)
    }
    return label_image(nuclei, shape, str(path))


def _features(path: Path) -> list[dict]:
    content = read_json(path, MAX_BYTES)
    if isinstance(content, dict):
        content = content.get("features") if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(content, list) or not all(isinstance(item, dict) and item.get("type") for item in content):
        raise InputError(f"{path}: not GeoJSON; expected a FeatureCollection or a list of features")
    return content


def _geometry(feature: dict) -> dict | None:
    shapes = (feature.get("nucleusGeometry"), feature.get("geometry"), feature)
    polygons = (s for s in shapes if isinstance(s, dict) and s.get("type") in ("Polygon", "MultiPolygon"))
    return next(polygons, None)


def _name(feature: dict) -> str:
    properties = feature.get("properties")
    return str(properties.get("name", "")) if isinstance(properties, dict) else ""


def _parts(geometry: dict, where: str) -> list[Part]:
    try:
        polygons = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        # A third coordinate, as some programs write, is height.
        return [[ring_of([vertex[:2] for vertex in ring], where) for ring in rings] for rings in polygons]
    except (KeyError, TypeError):
        raise InputError(f"{where}: its coordinates are not rings of x, y") from None
