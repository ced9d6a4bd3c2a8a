"""The model that ships: what reports/ score, and eight bits that find what floats find."""

import json

import numpy as np
import onnxruntime
import pytest

from nuclei_unet.evaluation import metrics
from nuclei_unet.evaluation.scores import GROUPS
from nuclei_unet.images import normalize
from nuclei_unet.network import onnx_file
from nuclei_unet.prediction import engine, models
from nuclei_unet.prediction.engine import OnnxNetwork
from nuclei_unet.prediction.segmenter import Segmenter
from pipeline import layout
from pipeline.dataset import synthetic
from tests import ROOT

MAX_BYTES = 12e6  # of what everybody downloads


@pytest.fixture(scope="module")
def shipped():
    return Segmenter.load(gpu=False)


def test_its_scores_are_the_committed_ones(shipped, settings):
    scores = json.loads((ROOT / layout.SCORES_FILE).read_text())
    for split in layout.SCORED_SPLITS:
        expected = {group: scores[split][group] for group in GROUPS} | {"n_images": scores[split]["n_images"]}
        assert shipped.metadata.scores[split] == expected
    assert shipped.metadata.predict == settings.evaluate and shipped.metadata.targets == settings.train.targets
    assert shipped.metadata.licence.startswith("MIT") and len(shipped.metadata.commit) == 40
    assert models.PRETRAINED.stat().st_size < MAX_BYTES


def test_products_are_added_exactly(shipped, monkeypatch):
    """CPUs without VNNI would add two products in 16 bits; compared with the same sums in floats, node by node."""
    (_, image, _), *_ = synthetic.held_out_images(1, 2018)
    fast = shipped.predictor.maps(normalize(image, shipped.metadata.normalize))

    def unoptimized(data, threads, on_gpu):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(data, options, providers=[engine.CPU])

    monkeypatch.setattr(engine, "_session", unoptimized)
    exact = Segmenter.load(gpu=False).predictor.maps(normalize(image, shipped.metadata.normalize))
    for target, values in fast.items():
        assert np.abs(values - exact[target]).mean() < 0.001


def test_eight_bits_find_what_floats_find(shipped, tmp_path):
    data, name, _ = models.content(None)
    onnx_file.save(onnx_file.load(data, name, shipped.metadata), tmp_path / "float.onnx", shipped.metadata)
    floats = Segmenter(OnnxNetwork((tmp_path / "float.onnx").read_bytes(), "float"), shipped.metadata)
    scores, changed = [], []
    for _, image, truth in synthetic.held_out_images(4, 2018):
        rounded, labels = shipped(image), floats(image)
        changed.append(((rounded > 0) != (labels > 0)).mean())
        scores.append([metrics.dsb_score(metrics.instance_counts(truth, found)) for found in (rounded, labels)])
    one, other = np.mean(scores, axis=0)
    # A few images; on 102 validation images the means differ by less than 0.01.
    assert abs(one - other) < 0.08 and min(one, other) > 0.35 and np.mean(changed) < 0.02
