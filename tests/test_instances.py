"""From nuclei to target maps and back."""

import numpy as np
import pytest
from skimage.draw import disk
from skimage.measure import label

from nuclei_unet import metrics
from nuclei_unet.labels import fill_holes, renumber, small_labels
from nuclei_unet.prediction import instances
from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.prediction.otsu import otsu_nuclei
from nuclei_unet.training.targets import TARGETS, target_maps


@pytest.fixture
def evaluate(settings):
    """Return an `evaluate` section with other values for some of its keys."""
    plain = {
        "foreground_threshold": 0.5,
        "border_weight": 1.0,
        "min_area": 0,
        "smoothing": 0.5,
        "prominence": 0.05,
    }
    return lambda **values: settings.evaluate.model_copy(update=plain | values)


def drawn(shape, *circles):
    """Return a label image of circles (row, column, radius); later ones lie under earlier ones."""
    labels = np.zeros(shape, np.uint16)
    for number, (row, column, radius) in reversed(list(enumerate(circles, start=1))):
        labels[disk((row, column), radius, shape=shape)] = number
    return labels


def as_maps(targets, names=TARGETS):
    return {name: targets[..., i].astype(np.float32) / 255 for i, name in enumerate(TARGETS) if name in names}


TOUCHING = drawn((60, 80), (30, 25, 14), (30, 52, 14))
SEPARATE = drawn((60, 80), (30, 18, 12), (30, 60, 12))


# ---- target maps


def test_foreground_is_where_labels_are():
    targets = target_maps(TOUCHING)
    assert targets.shape == (60, 80, 3) and targets.dtype == np.uint8
    np.testing.assert_array_equal(targets[..., 0], np.where(TOUCHING > 0, 255, 0))


def test_touching_nuclei_have_a_border_between_them():
    border = target_maps(TOUCHING)[..., 1]
    assert set(np.unique(border)) == {0, 255}
    _, columns = np.nonzero(border)
    assert columns.min() > 30 and columns.max() < 47
    # All along where both labels meet, to either side.
    sides = (TOUCHING[:, :-1] != TOUCHING[:, 1:]) & (TOUCHING[:, :-1] > 0) & (TOUCHING[:, 1:] > 0)
    assert sides.any() and border[:, :-1][sides].all() and border[:, 1:][sides].all()


def test_separate_nuclei_have_none():
    assert not target_maps(SEPARATE)[..., 1].any()


def test_a_single_nucleus_has_none():
    assert not target_maps(np.ones((9, 9), np.uint16))[..., 1].any()


def test_distance_is_full_inside_each_nucleus_and_falls_to_its_edge():
    labels = drawn((60, 80), (30, 20, 15), (30, 45, 9), (10, 70, 3))
    distance = target_maps(labels)[..., 2]
    assert (distance[labels == 0] == 0).all() and (distance[labels > 0] > 0).all()
    assert [distance[labels == number].max() for number in (1, 2, 3)] == [255, 255, 255]
    middle = distance[30, 6:21].astype(int)
    assert middle[0] < 40 and (np.diff(middle) >= 0).all() and middle[-1] >= 250


def test_distance_drops_between_touching_nuclei():
    distance = target_maps(TOUCHING)[30, 20:60, 2].astype(int)
    meeting = int(np.flatnonzero(np.diff(TOUCHING[30, 20:60].astype(int)))[0])
    assert distance[meeting : meeting + 2].max() < 60 < distance[meeting - 8] and distance[meeting + 9] > 60


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 40)])
def test_empty_labels_give_empty_maps(shape):
    np.testing.assert_array_equal(target_maps(np.zeros(shape, np.uint16)), np.zeros((*shape, 3)))


def test_a_nucleus_of_one_pixel():
    labels = np.zeros((5, 5), np.uint16)
    labels[2, 2] = 1
    targets = target_maps(labels)
    np.testing.assert_array_equal(targets[2, 2], [255, 0, 255])
    assert targets.astype(int).sum() == 2 * 255


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (40, 30)])
def test_a_nucleus_that_covers_everything(shape):
    targets = target_maps(np.ones(shape, np.uint16))
    np.testing.assert_array_equal(targets, np.broadcast_to([255, 0, 255], (*shape, 3)))


@pytest.mark.parametrize("numbers", [(300, 301), (256, 65535), (65535, 7)])
def test_large_label_numbers_and_gaps_change_nothing(numbers):
    renamed = np.array([0, *numbers], np.uint16)[TOUCHING]
    np.testing.assert_array_equal(target_maps(renamed), target_maps(TOUCHING))


# ---- label_nuclei


def assert_same_nuclei(labels, truth, iou=0.8):
    found = metrics.iou_matrix(truth, labels)
    assert found.shape[0] == found.shape[1] and (found.max(axis=1) > iou).all()


@pytest.mark.parametrize("truth", [TOUCHING, SEPARATE, drawn((90, 90), (30, 30, 15), (30, 58, 15), (55, 44, 15))])
@pytest.mark.parametrize("names", [TARGETS, ("foreground", "border"), ("foreground", "distance")])
def test_perfect_maps_give_the_nuclei_back(truth, names, evaluate):
    labels = instances.label_nuclei(as_maps(target_maps(truth), names), evaluate())
    assert labels.dtype == np.uint16
    assert set(np.unique(labels)) == set(range(truth.max() + 1))
    np.testing.assert_array_equal(labels > 0, truth > 0)
    assert_same_nuclei(labels, truth)


def test_foreground_alone_gives_connected_components(evaluate):
    maps = as_maps(target_maps(TOUCHING), ("foreground",))
    np.testing.assert_array_equal(instances.label_nuclei(maps, evaluate()), TOUCHING > 0)
    maps = as_maps(target_maps(SEPARATE), ("foreground",))
    np.testing.assert_array_equal(instances.label_nuclei(maps, evaluate()), SEPARATE)


def test_corners_do_not_connect(evaluate):
    labels = instances.label_nuclei({"foreground": np.eye(3, dtype=np.float32)}, evaluate())
    np.testing.assert_array_equal(labels, np.diag([1, 2, 3]))


def test_thresholds_are_strict(evaluate):
    foreground = np.array([[0.5, 0, 0.51]], np.float32)
    np.testing.assert_array_equal(instances.label_nuclei({"foreground": foreground}, evaluate()), [[0, 0, 1]])


@pytest.mark.parametrize("names", [("foreground",), ("foreground", "border"), TARGETS])
@pytest.mark.parametrize("shape", [(1, 1), (12, 9)])
def test_nothing_and_everything(names, shape, evaluate):
    nothing = {name: np.zeros(shape, np.float32) for name in names}
    np.testing.assert_array_equal(instances.label_nuclei(nothing, evaluate()), np.zeros(shape))
    everything = nothing | {"foreground": np.ones(shape, np.float32)}
    np.testing.assert_array_equal(instances.label_nuclei(everything, evaluate()), np.ones(shape))


def test_a_component_without_seed_is_kept_whole(evaluate):
    maps = as_maps(target_maps(SEPARATE))
    maps["distance"][SEPARATE == 1] = 0.2
    labels = instances.label_nuclei(maps, evaluate())
    assert_same_nuclei(labels, SEPARATE, iou=0.99)


def test_a_maximum_needs_prominence_to_be_a_nucleus(evaluate):
    mask = np.zeros((9, 20), np.float32)
    mask[2:7, 2:18] = 1
    # Two hills of one component, 0.9 and 0.5 high, with a saddle at 0.3 between them.
    depth = mask * 0.3
    depth[3:6, 3:6], depth[3:6, 14:17] = 0.9, 0.5
    maps = {"foreground": mask, "distance": depth}
    assert instances.label_nuclei(maps, evaluate(smoothing=0, prominence=0.19)).max() == 2
    assert instances.label_nuclei(maps, evaluate(smoothing=0, prominence=0.21)).max() == 1


def test_border_weight_0_ignores_the_border(evaluate):
    maps = as_maps(target_maps(TOUCHING), ("foreground", "border"))
    assert instances.label_nuclei(maps, evaluate(border_weight=1)).max() == 2
    assert instances.label_nuclei(maps, evaluate(border_weight=0)).max() == 1


def test_min_area_drops_smaller_nuclei_and_renumbers(evaluate):
    foreground = np.array([[1, 0, 1, 1, 0, 1, 1, 1]], np.float32)
    found = [instances.label_nuclei({"foreground": foreground}, evaluate(min_area=area)).tolist() for area in (2, 3, 4)]
    assert found == [[[0, 0, 1, 1, 0, 2, 2, 2]], [[0, 0, 0, 0, 0, 1, 1, 1]], [[0] * 8]]


def test_holes_are_filled_unless_they_hold_another_nucleus(evaluate):
    ring = np.pad(np.zeros((3, 3), np.float32), 1, constant_values=1)
    assert instances.label_nuclei({"foreground": ring}, evaluate()).all()
    labels = np.pad(np.zeros((3, 3), np.int32), 1, constant_values=1)
    labels[2, 2] = 2
    filled = fill_holes(labels)
    assert filled[2, 2] == 2 and (filled == 1).sum() == 24
    assert labels[1, 1] == 0  # the argument is left as it was


def test_inputs_are_left_as_they_were(evaluate):
    maps = as_maps(target_maps(TOUCHING))
    before = {name: values.copy() for name, values in maps.items()}
    instances.label_nuclei(maps, evaluate(min_area=10**4))
    for name, values in maps.items():
        np.testing.assert_array_equal(values, before[name])


# ---- Otsu


def picture(truth):
    """Return bright nuclei on a dark, noisy field."""
    noise = np.random.default_rng(0).integers(0, 20, truth.shape)
    return (np.where(truth > 0, 180, 20) + noise).astype(np.uint8)


@pytest.mark.parametrize("truth", [TOUCHING, SEPARATE])
def test_otsu_finds_drawn_nuclei(truth, evaluate):
    grey = picture(truth)
    labels = otsu_nuclei(grey, evaluate())
    assert labels.dtype == np.uint16
    assert_same_nuclei(labels, truth)
    coloured = np.dstack([grey, grey, grey])
    np.testing.assert_array_equal(otsu_nuclei(coloured, evaluate()), labels)
    assert not otsu_nuclei(grey, evaluate(min_area=10**4)).any()


@pytest.mark.parametrize("image", [np.zeros((1, 1)), np.full((7, 9), 255), np.full((7, 9, 3), 40)])
def test_otsu_of_a_constant_image_finds_nothing(image, evaluate):
    labels = otsu_nuclei(image.astype(np.uint8), evaluate())
    np.testing.assert_array_equal(labels, np.zeros(image.shape[:2]))


# ---- numbers


def test_renumber_closes_gaps():
    found = renumber(np.array([[7, 0, 300], [70000, 7, 0]]))
    np.testing.assert_array_equal(found, [[1, 0, 2], [3, 1, 0]])
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(renumber(np.array([[5, 5]])), [[1, 1]])


def test_renumber_holds_65535_nuclei_and_refuses_more():
    full = np.arange(2**16).reshape(256, 256)
    np.testing.assert_array_equal(renumber(full), full)
    with pytest.raises(ValueError, match="65536 nuclei"):
        renumber(full + 1)
    with pytest.raises(ValueError, match="65536 nuclei"):
        renumber(np.arange(2**16 + 1)[None])


def test_small_labels():
    labels = label(np.array([[1, 0, 1, 1, 0, 1, 1, 1]]))
    np.testing.assert_array_equal(small_labels(labels, 3), [[1, 1, 1, 1, 1, 0, 0, 0]])


# ---- outlines at the image's edges


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
    found = label_nuclei({"foreground": np.full((20, 20), value, np.float32)}, settings.evaluate, flat)
    assert (found == value).all()
