"""COCO: pycocotools finds the same masks, and files of other programs are read."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as masks
from pycocotools.coco import COCO

from nuclei_unet.formats import coco
from tests.nuclei_unet.formats.label_images import LABELS, label_images
from tests.refusals import refused


def read(path):
    return {name: labels() for name, labels in coco.read(path).items()}


@given(label_images(max_side=12))
def test_pycocotools_finds_the_same_masks(tmp_path_factory, labels):
    path = tmp_path_factory.mktemp("coco") / "a.json"
    coco.write(path, [("a.png", labels), ("b.png", LABELS)])
    data = COCO(path)
    assert data.loadCats(data.getCatIds()) == [{"id": 1, "name": "nucleus", "supercategory": "nucleus"}]
    for image, truth in zip(data.loadImgs(data.getImgIds()), (labels, LABELS), strict=True):
        assert (image["height"], image["width"]) == truth.shape
        annotations = data.loadAnns(data.getAnnIds(imgIds=image["id"], iscrowd=False))
        assert [annotation["label"] for annotation in annotations] == np.unique(truth[truth > 0]).tolist()
        for annotation in annotations:
            mask = np.asfortranarray(truth == annotation["label"], np.uint8)
            assert np.array_equal(data.annToMask(annotation), mask)
            encoded = masks.encode(mask)
            assert annotation["segmentation"]["counts"] == encoded["counts"].decode()
            assert annotation["area"] == masks.area(encoded)
            assert annotation["bbox"] == masks.toBbox(encoded).tolist()
    if labels.any():
        results = [{**annotation, "score": 1.0} for annotation in data.dataset["annotations"]]
        assert len(data.loadRes(results).getAnnIds()) == len(results)


@pytest.mark.slow
@given(st.lists(st.integers(0, 2**31 - 1), min_size=1))
def test_the_code_is_that_of_pycocotools(counts):
    code = coco.compress(np.array(counts, np.int64))
    assert coco.decompress(code).tolist() == counts
    if sum(counts) < 2**31:
        theirs = masks.frPyObjects({"counts": counts, "size": [1, sum(counts)]}, 1, sum(counts))
        assert code == theirs["counts"].decode()


IMAGE = {"id": "x", "file_name": "a.jpg", "height": 3, "width": 4}


def file(tmp_path, *segmentations, **keys):
    annotations = [{"id": n, "image_id": "x", "segmentation": one, **keys} for n, one in enumerate(segmentations)]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": [IMAGE], "annotations": annotations}))
    return path


def test_masks_of_other_programs(tmp_path):
    path = file(
        tmp_path,
        [[0, 0, 2, 0, 2, 2, 0, 2], [3, 2, 9, 2, 9, 9, 3, 9]],  # two polygons, one goes beyond the image
        {"size": [3, 4], "counts": [4, 3, 5]},  # overlaps the first one
        {"size": [3, 4], "counts": masks.encode(np.asfortranarray(np.eye(3, 4, 3, dtype=np.uint8)))["counts"].decode()},
        [[-5, -5, -2, -5, -2, -2]],  # outside
    )
    assert read(path)["a.jpg"].tolist() == [[1, 1, 2, 3], [1, 1, 0, 0], [0, 2, 0, 1]]


def test_labels_that_are_not_all_different_are_counted(tmp_path):
    counts = ({"size": [3, 4], "counts": [0, 1, 11]}, {"size": [3, 4], "counts": [11, 1]})
    assert read(file(tmp_path, *counts, label=7))["a.jpg"].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 2]]


@pytest.mark.parametrize(
    "segmentation",
    [
        *(None, 3, "x", [], {}, {"counts": [12]}, {"size": [3, 4]}, {"size": [4, 3], "counts": [12]}),
        *(
            {"size": [3, 4], "counts": counts}
            for counts in ([11], [13], [-1, 13], [-1, 1, 12], [2**70], ["x"], [[12]], "", "~", None)
        ),
        {"size": "34", "counts": [12]},
        *([[1, 2, 3]], [["a", "b"]], [[float("nan"), 0, 1, 1]], [[]]),
    ],
)
def test_broken_masks_are_named(tmp_path, segmentation):
    refused(r"coco.json, image a.jpg, annotation 0: ", coco.read(file(tmp_path, segmentation))["a.jpg"])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "not JSON"),
        ("[]", "not COCO"),
        ("{}", "'images' is missing"),
        ('{"images": [{}], "annotations": []}', "'id' is missing"),
        ('{"images": [], "annotations": [{"image_id": 1}]}', "1 is missing"),
        ('{"images": [], "annotations": [[]]}', "not COCO"),
        ('{"images": [{"id": 1, "height": "x", "width": 2, "file_name": ""}], "annotations": []}', "not COCO"),
        ('{"images": [{"id": 1, "height": 1e5, "width": 1e5, "file_name": ""}], "annotations": []}', "at most"),
        ('{"images": [{"id": 1, "height": 0, "width": 1, "file_name": ""}], "annotations": []}', "0 x 1 pixels"),
        (json.dumps({"images": [IMAGE, IMAGE], "annotations": []}), "two images"),
        (json.dumps({"images": [IMAGE, {**IMAGE, "id": 1}], "annotations": []}), "two images"),
    ],
)
def test_broken_files_are_named(tmp_path, text, match):
    (tmp_path / "coco.json").write_text(text)
    refused(f"coco.json.*{match}", coco.read, tmp_path / "coco.json")
