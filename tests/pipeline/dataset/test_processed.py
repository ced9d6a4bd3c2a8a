"""The data set as it lies on disk."""

import numpy as np
import pandas as pd

from nuclei_unet.formats.png import decode
from pipeline.dataset import processed as dataset
from tests.images import RGB
from tests.refusals import refused


def write_manifest(folder, rows):
    pd.DataFrame(rows, columns=dataset.MANIFEST_COLUMNS).to_csv(folder / "manifest.csv", index=False)


def test_samples_come_back_as_written(tmp_path):
    # Ids that pandas would take for numbers, and two that it would take for gaps.
    ids = ["1e5", "007", "NA", "nan"]
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (5, 7, 3) if name == "007" else (4, 6), np.uint8) for name in ids}
    labels = {name: np.full((4, 6), 300 + n, np.uint16) for n, name in enumerate(ids)}
    for name in ids:
        dataset.write_sample(tmp_path, name, images[name], labels[name])
    write_manifest(tmp_path, [(n, "test" if n == "nan" else "train", "grey-tissue", 0, 4, 6, 1) for n in ids])

    samples = dataset.read_split("train", tmp_path)
    assert [sample.image_id for sample in samples] == ["007", "1e5", "NA"]
    for sample in samples:
        np.testing.assert_array_equal(sample.image, images[sample.image_id])
        np.testing.assert_array_equal(sample.labels, labels[sample.image_id])
        assert (sample.image.dtype, sample.labels.dtype) == (np.uint8, np.uint16)
        assert (sample.split, sample.image_type) == ("train", "grey-tissue")
    # Images are RGB for other readers, too.
    np.testing.assert_array_equal(decode((tmp_path / "images" / "007.png").read_bytes(), "007"), images["007"])
    assert [sample.image_id for sample in dataset.read_split("test", tmp_path)] == ["nan"]
    assert dataset.read_split("validation", tmp_path) == []


def test_missing_files_are_named(tmp_path):
    refused(r"manifest\.csv: no such file; run .dvc repro preprocess", dataset.read_split, "train", tmp_path)
    write_manifest(tmp_path, [("a", "train", "grey-tissue", 0, 4, 6, 1)])
    refused(r"images.a\.png: missing or not a readable PNG", dataset.read_split, "train", tmp_path)
    dataset.write_sample(tmp_path, "a", RGB, np.ones((1, 2), np.uint16))
    (sample,) = dataset.read_split("train", tmp_path)
    (tmp_path / "labels" / "a.png").write_bytes(b"no PNG")
    refused(r"labels.a\.png: missing or not a readable PNG", lambda: sample.labels)
