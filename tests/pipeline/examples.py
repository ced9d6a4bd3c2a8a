"""Images to score, a network that sees what is bright, and a small project with results."""

import json
import zipfile

import cv2
import numpy as np
import pandas as pd

from nuclei_unet.labels import resize_labels
from nuclei_unet.prediction.instances import label_nuclei
from nuclei_unet.sample import ArraySample
from pipeline.dataset import archives
from pipeline.dataset import processed as dataset
from tests import PARAMS


class OneMap:
    """A stand-in for the segmenter: the foreground is what is bright; at any size asked for."""

    def __init__(self, settings):
        self.settings = settings.model_copy(update={"min_area": 0})
        self.predictor = self

    def labels(self, image, shape):
        bright = resize_labels((image > 128).astype(np.uint16), shape)
        return label_nuclei({"foreground": bright.astype(np.float32)}, self.settings)


def sample(image_id, labels, image=None, image_type="small-fluorescent", split="test"):
    labels = np.asarray(labels, np.uint16)
    image = np.where(labels > 0, 255, 0).astype(np.uint8) if image is None else image
    return ArraySample(image_id, split, image_type, image, labels)


TWO = np.repeat(np.repeat([[1, 1, 0, 2, 2]], 4, axis=0), 4, axis=1)  # two nuclei of 32 px, 16 px apart
IMAGE_TYPES = ("small-fluorescent", "purple-on-white", "<script>image_type")
SHAPES = ((40, 56), (64, 30), (48, 48), (40, 56), (48, 48))


def write_project(folder):
    """Write what visualize reads, with five test images."""
    rng = np.random.default_rng(0)
    for name in ("data/raw", "data/processed/labels", "data/predictions", "reports"):
        (folder / name).mkdir(parents=True)
    text = PARAMS.read_text(encoding="utf-8").replace("dpi: 110", "dpi: 40").replace("examples: 3", "examples: 2")
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    ids = [f"{index}{'f' * 63}" for index in range(len(SHAPES))]
    with zipfile.ZipFile(folder / "data/raw/stage1_test.zip", "w") as archive:
        for image_id, (height, width) in zip(ids, SHAPES, strict=True):
            # RGBA as in BBBC038.
            _, png = cv2.imencode(".png", rng.integers(0, 255, (height, width, 4), np.uint8))
            archive.writestr(archives.image_member(image_id), png.tobytes())
            labels = np.kron(rng.integers(0, 9, (height // 5, width // 5)), np.ones((5, 5), int))
            labels = np.pad(labels, ((0, height % 5), (0, width % 5))).astype(np.uint16)
            dataset.write_labels(folder / f"data/processed/labels/{image_id}.png", labels)
            dataset.write_labels(folder / f"data/predictions/{image_id}.png", np.roll(labels, 1, axis=0))
    write_reports(folder / "reports", ids)


def history():
    """Return history.csv of two epochs."""
    measured = [f"{split}{name}" for split in ("", "val_") for name in ("loss", "foreground_iou", "foreground_dice")]
    return pd.DataFrame({"epoch": [1, 2]} | {name: [0.5, 0.25] for name in ("learning_rate", *measured)})


def write_reports(folder, ids):
    splits = [(i, s) for s in ("validation", "test") for i in ids]
    score = dict(iou=0.8, dice=0.9, dsb_score=0.4, ap50=0.7, otsu_iou=0.6, otsu_dsb_score=0.2)
    rows = [
        dict(image_id=i, split=s, image_type=IMAGE_TYPES[n % 3], nuclei=9, predicted_nuclei=8, **score)
        for n, (i, s) in enumerate(splits)
    ]
    pd.DataFrame(rows).to_csv(folder / "per_image.csv", index=False)
    by_type = [
        dict(split=s, image_type=k, n_images=n + 1, **score)
        for s in ("validation", "test")
        for n, k in enumerate(IMAGE_TYPES)
    ]
    pd.DataFrame(by_type).to_csv(folder / "by_type.csv", index=False)
    curves = [f"{split}_{way}" for split in ("validation", "test") for way in ("unet", "otsu")]
    curve = [dict.fromkeys(curves, 0.5) | dict(iou_threshold=t) for t in (0.5, 0.55)]
    pd.DataFrame(curve).to_csv(folder / "ap_by_threshold.csv", index=False)
    history().to_csv(folder / "history.csv", index=False)
    pixel = dict(iou=0.8, dice=0.9, precision=0.85, recall=0.95)
    instance = dict(
        dsb_score=0.4321, dsb_score_low=0.4, dsb_score_high=0.5, ap50=0.7, ap75=0.5, ap90=0.1, pq=0.6, count_error=0.2
    )
    part = dict(pixel=pixel, pixel_pooled=pixel, instance=instance, n_images=5)
    part["otsu"] = dict(iou=0.6, dsb_score=0.2109, ap50=0.3)
    (folder / "scores.json").write_text(json.dumps({"validation": part, "test": part}))
    audit = dict(source="bbbc038", frames=3, fault_counts={"empty_mask": 25, "no_nuclei": 0})
    audit["images"] = audit["nuclei"] = dict(train=10, validation=5, test=5)
    fault = dict(fault="empty_mask", image_id=ids[0], detail="mask <b>x</b>.png is empty", handled="skip")
    (folder / "data_audit.json").write_text(json.dumps(audit | {"faults": [fault] * 25}))
