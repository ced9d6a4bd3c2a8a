"""Outlines along pixel edges: exact, valid polygons, and the same label image when they are rasterised."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from shapely import MultiPolygon, Point, Polygon

from nuclei_unet.formats import geometry
from nuclei_unet.formats.geometry import label_image, outlines, rasterise
from tests.nuclei_unet.formats.label_images import LABELS, label_images, same
from tests.refusals import refused

# A nucleus around a hole that touches the outside in one corner.
PINCHED = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], np.uint8)
# A part in the hole of another part of the same nucleus, and two holes that touch.
NESTED = np.pad(np.array([[0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1], [1, 1, 1, 0]], np.int64), 1, constant_values=1)


@given(label_images(max_side=12))
@example(PINCHED)
@example(NESTED)
@example(LABELS)
def test_outlines_are_valid_polygons_of_the_same_pixels(labels):
    found = outlines(labels)
    assert list(found) == np.unique(labels[labels > 0]).tolist()
    assert same(rasterise(found, labels.shape), labels)
    for label, parts in found.items():
        polygons = [Polygon(rings[0], rings[1:]) for rings in parts]
        assert all(polygon.is_valid for polygon in polygons)
        assert MultiPolygon(polygons).is_valid
        assert sum(polygon.area for polygon in polygons) == np.count_nonzero(labels == label)
        for rings in parts:
            assert Polygon(rings[0]).exterior.is_ccw  # with y upwards, as RFC 7946 counts
            assert not any(Polygon(hole).exterior.is_ccw for hole in rings[1:])
            for ring in rings:
                assert ring.dtype == np.int32
                assert min(ring.tolist(), key=lambda vertex: vertex[::-1]) == ring[0].tolist()
                # Horizontal and vertical in turn: no vertex is left out, and none lies on a straight line.
                moves = np.roll(ring, -1, axis=0) - ring
                assert ((moves != 0).sum(axis=1) == 1).all()
                assert (np.argmax(moves != 0, axis=1) != np.roll(np.argmax(moves != 0, axis=1), 1)).all()


def test_a_pixel_is_a_square_between_its_corners():
    labels = np.zeros((4, 5), np.uint16)
    labels[1, 2] = 7
    ((ring,),) = outlines(labels)[7]
    assert ring.tolist() == [[2, 1], [3, 1], [3, 2], [2, 2]]
    assert label_image(outlines(labels), None, "x").shape == (2, 3)


def test_an_image_without_nuclei():
    assert outlines(np.zeros((3, 4), np.int32)) == {}
    assert same(rasterise({}, (3, 4)), np.zeros((3, 4)))
    assert label_image({}, None, "x").shape == (1, 1)


@given(st.lists(st.tuples(st.floats(-2, 8), st.floats(-2, 8)), min_size=3, max_size=6))
def test_pixels_whose_centre_lies_inside(vertices):
    polygon = Polygon(vertices)
    labels = rasterise({1: [[np.array(vertices)]]}, (6, 6))
    if polygon.is_valid:
        for row, column in np.ndindex(6, 6):
            centre = Point(column + 0.5, row + 0.5)
            if polygon.boundary.distance(centre) > 1e-6:
                assert labels[row, column] == polygon.contains(centre)


def test_the_first_nucleus_keeps_its_pixels_parts_of_one_add_up_and_what_lies_outside_is_cut_off():
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]])
    labels = rasterise({2: [[square]], 1: [[square + 1], [square + 1.1]]}, (3, 3))
    assert labels.tolist() == [[2, 2, 0], [2, 2, 1], [0, 1, 1]]
    square = np.array([[-1e9, -1e9], [2, -1e9], [2, 2.0], [-1e9, 2]])
    assert rasterise({1: [[square]]}, (3, 3)).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_too_much_to_draw_is_refused(monkeypatch):
    monkeypatch.setattr(geometry, "MAX_CROSSINGS", 5)
    refused("cross 6 rows", rasterise, {1: [[np.array([[0, 0], [2, 0], [2, 3], [0, 3]])]]}, (3, 3))
