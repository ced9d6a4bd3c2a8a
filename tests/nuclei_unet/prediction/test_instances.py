"""From maps to nuclei."""

import numpy as np
import pytest

from nuclei_unet.labels import fill_holes
from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.training.targets import TARGETS, target_maps
from tests.nuclei_unet.nuclei import SEPARATE, TOUCHING, assert_same_nuclei, drawn


def as_maps(targets, names=TARGETS):
    return {name: targets[..., i].astype(np.float32) / 255 for i, name in enumerate(TARGETS) if name in names}


@pytest.mark.parametrize("truth", [TOUCHING, SEPARATE, drawn((90, 90), (30, 30, 15), (30, 58, 15), (55, 44, 15))])
@pytest.mark.parametrize("names", [TARGETS, ("foreground", "border"), ("foreground", "distance")])
def test_perfect_maps_give_the_nuclei_back(truth, names, evaluate):
    labels = label_nuclei(as_maps(target_maps(truth), names), evaluate())
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) == set(range(truth.max() + 1))
    np.testing.assert_array_equal(labels > 0, truth > 0)
    assert_same_nuclei(labels, truth)


def test_foreground_alone_gives_connected_components(evaluate):
    maps = as_maps(target_maps(TOUCHING), ("foreground",))
    np.testing.assert_array_equal(label_nuclei(maps, evaluate()), TOUCHING > 0)
    maps = as_maps(target_maps(SEPARATE), ("foreground",))
    np.testing.assert_array_equal(label_nuclei(maps, evaluate()), SEPARATE)


def test_corners_do_not_connect(evaluate):
    labels = label_nuclei({"foreground": np.eye(3, dtype=np.float32)}, evaluate())
    np.testing.assert_array_equal(labels, np.diag([1, 2, 3]))


def test_thresholds_are_strict(evaluate):
    foreground = np.array([[0.5, 0, 0.51]], np.float32)
    np.testing.assert_array_equal(label_nuclei({"foreground": foreground}, evaluate()), [[0, 0, 1]])


@pytest.mark.parametrize("names", [("foreground",), ("foreground", "border"), TARGETS])
@pytest.mark.parametrize("shape", [(1, 1), (12, 9)])
def test_nothing_and_everything(names, shape, evaluate):
    nothing = {name: np.zeros(shape, np.float32) for name in names}
    np.testing.assert_array_equal(label_nuclei(nothing, evaluate()), np.zeros(shape))
    everything = nothing | {"foreground": np.ones(shape, np.float32)}
    np.testing.assert_array_equal(label_nuclei(everything, evaluate()), np.ones(shape))


def test_a_component_without_seed_is_kept_whole(evaluate):
    maps = as_maps(target_maps(SEPARATE))
    maps["distance"][SEPARATE == 1] = 0.2
    assert_same_nuclei(label_nuclei(maps, evaluate()), SEPARATE, iou=0.99)


def test_a_maximum_needs_prominence_to_be_a_nucleus(evaluate):
    mask = np.zeros((9, 20), np.float32)
    mask[2:7, 2:18] = 1
    # Two hills of one component, 0.9 and 0.5 high, with a saddle at 0.3 between them.
    depth = mask * 0.3
    depth[3:6, 3:6], depth[3:6, 14:17] = 0.9, 0.5
    maps = {"foreground": mask, "distance": depth}
    assert label_nuclei(maps, evaluate(smoothing=0, prominence=0.19)).max() == 2
    assert label_nuclei(maps, evaluate(smoothing=0, prominence=0.21)).max() == 1


def test_border_weight_0_ignores_the_border(evaluate):
    maps = as_maps(target_maps(TOUCHING), ("foreground", "border"))
    assert label_nuclei(maps, evaluate(border_weight=1)).max() == 2
    assert label_nuclei(maps, evaluate(border_weight=0)).max() == 1


def test_holes_are_filled_unless_they_hold_another_nucleus(evaluate):
    ring = np.pad(np.zeros((3, 3), np.float32), 1, constant_values=1)
    assert label_nuclei({"foreground": ring}, evaluate()).all()
    labels = np.pad(np.zeros((3, 3), np.int32), 1, constant_values=1)
    labels[2, 2] = 2
    filled = fill_holes(labels)
    assert filled[2, 2] == 2 and (filled == 1).sum() == 24
    assert labels[1, 1] == 0  # the argument is left as it was


def blurred_disc(radius, edge, shape=(64, 64)):
    """Return a disc's image and a foreground map, 0.5 at `radius`, that falls by 0.05 a pixel outwards."""
    distance = np.hypot(*(np.indices(shape) - 31.5))
    image = np.where(distance < edge, 200, 20).astype(np.uint8)
    return image, np.clip(0.5 + (radius - distance) / 20, 0.01, 0.99).astype(np.float32)


@pytest.mark.parametrize("edge", [12, 14, 16])
def test_outlines_follow_the_edges_of_the_image(edge, settings):
    image, foreground = blurred_disc(14, edge)
    follow = settings.evaluate.model_copy(update={"foreground_threshold": 0.5, "outline_range": 0.2})
    found = label_nuclei({"foreground": foreground}, follow, image)
    assert found.max() == 1
    assert found.sum() == pytest.approx(np.pi * edge**2, rel=0.12)
    # Without the image, or without a range, the threshold alone decides.
    for fixed in (
        label_nuclei({"foreground": foreground}, follow),
        label_nuclei({"foreground": foreground}, follow.model_copy(update={"outline_range": 0.0}), image),
    ):
        np.testing.assert_array_equal(fixed, foreground > 0.5)


def test_each_nucleus_has_its_own_level_and_colours_do(settings):
    pairs = [blurred_disc(14, edge) for edge in (12, 16)]
    image, foreground = (np.concatenate(parts, axis=1) for parts in zip(*pairs, strict=True))
    follow = settings.evaluate.model_copy(update={"foreground_threshold": 0.5, "outline_range": 0.2})
    found = label_nuclei({"foreground": foreground}, follow, image)
    areas = np.bincount(found.ravel())[1:]
    assert areas == pytest.approx([np.pi * 12**2, np.pi * 16**2], rel=0.12)
    np.testing.assert_array_equal(label_nuclei({"foreground": foreground}, follow, np.dstack([image] * 3)), found)


def test_what_is_below_the_threshold_everywhere_is_no_nucleus(settings):
    image, foreground = blurred_disc(14, 14)
    maps = {"foreground": foreground * np.float32(0.45), "distance": foreground * np.float32(0.45)}
    follow = settings.evaluate.model_copy(update={"foreground_threshold": 0.5, "outline_range": 0.2})
    assert label_nuclei(maps, follow, image).max() == 0


@pytest.mark.parametrize("threshold", [0.05, 0.95])
def test_levels_end_where_probabilities_do(threshold, settings):
    image, foreground = blurred_disc(14, 14)
    extreme = settings.evaluate.model_copy(update={"foreground_threshold": threshold, "outline_range": 0.3})
    found = label_nuclei({"foreground": foreground}, extreme, image)
    assert 0 < found.astype(bool).sum() < found.size


@pytest.mark.parametrize("value", [0, 1])
def test_outlines_where_there_is_no_edge(value, settings):
    flat = np.full((20, 20), 77, np.uint8)
    assert (label_nuclei({"foreground": np.full((20, 20), value, np.float32)}, settings.evaluate, flat) == value).all()
