"""Adapting a model: a style that is found, a random annotator, one image, the metadata, the same bytes twice."""

from types import SimpleNamespace

import numpy as np
import pytest

from nuclei_unet.adaptation import Settings, adapt, calibrate, finetune, study
from nuclei_unet.files import file_digest
from nuclei_unet.network import onnx_file
from nuclei_unet.prediction import models
from nuclei_unet.prediction.segmenter import Segmenter
from tests.nuclei_unet.adaptation.adapting import image, random_labels, wide_annotator
from tests.refusals import refused

CALIBRATE = Settings(calibrate_only=True, threads=2)


@pytest.fixture(scope="module")
def normalization():
    return models.describe(None)[0].normalize


@pytest.fixture(scope="module")
def wide():
    """Return four images whose annotator draws all outlines 1 px wider than the model does."""
    draw, metadata = wide_annotator()
    pixels = [image(seed)[0] for seed in range(4)]
    return [adapt.annotated(f"{n}", one, draw(one), metadata.normalize) for n, one in enumerate(pixels)]


def test_an_annotator_who_draws_wide_is_found(wide, tmp_path):
    parent, done = models.describe(None)[0], []
    adapted = adapt.adapt(wide, settings=CALIBRATE, progress=lambda *row: done.append(row))
    assert adapted.helped and adapted.cross_validated and adapted.chosen == calibrate.OFFSET
    scores = {name: row["dsb_score"] for name, row in adapted.scores.items()}
    assert scores["offset only"] > scores["baseline"] + 0.1
    assert set(adapted.scores["baseline"]) == {"iou", "dsb_score", "ap50"}
    assert done == [(n, 4) for n in range(1, 5)]

    # Its metadata says where it is from; of the rest, only what is said of the parent's file is gone.
    metadata, made = adapted.metadata, adapted.metadata.adapted
    # 1 px of the images, which the network sees enlarged.
    assert metadata.predict.outline_offset == pytest.approx(1.4, abs=0.4)
    assert metadata.parent == file_digest(models.PRETRAINED)
    assert (made.images, made.steps, made.before, made.after) == (4, 0, scores["baseline"], scores["offset only"])
    assert made.nuclei == sum(int(sample.labels.max()) for sample in wide)
    predict = parent.predict.model_copy(update={"outline_offset": metadata.predict.outline_offset})
    of_file = {"scores": {}, "commit": None, "source": None}
    assert metadata.but(parent=None, adapted=None) == parent.but(predict=predict, **of_file)

    # The model does as the metadata says, and the same call gives the same bytes.
    adapted.save(tmp_path / "a.onnx")
    adapt.adapt(wide, settings=CALIBRATE).save(tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    again = Segmenter.load(tmp_path / "a.onnx", gpu=False)
    assert again.metadata == metadata
    assert (again.predictor.labels(wide[0].image) > 0).sum() == pytest.approx((wide[0].labels > 0).sum(), rel=0.05)


def test_a_random_annotator_does_not_help(normalization):
    samples = [adapt.annotated(f"{n}", image(n)[0], random_labels(50 + n), normalization) for n in range(3)]
    adapted = adapt.adapt(samples, settings=CALIBRATE)
    assert not adapted.helped and adapted.chosen == "baseline"
    with pytest.raises(ValueError, match="did not help"):
        adapted.save("never.onnx")


def test_fine_tuning_is_cross_validated_and_its_weights_are_kept(wide, monkeypatch, tmp_path):
    """As if training brought everything: what it was trained on, and that the last one takes all images."""
    trained, calibrated_on, tuned = [], [], tmp_path / "tuned.onnx"
    onnx_file.copy(models.PRETRAINED, tuned, models.describe(None)[0].but(licence="another file"))

    class Learner:
        def __init__(self, data, metadata, settings, replay, on_step):
            self.replay, self.on_step = len(replay), on_step
            self.model = SimpleNamespace(get_weights=lambda: 0)

        def run(self, samples, stops):
            trained.append(([sample.image_id for sample in samples], tuple(stops), self.replay))
            for step in stops:
                self.on_step()
                yield step, step

        def to_onnx(self, weights, samples=()):
            if samples:
                calibrated_on.append((weights, [sample.image_id for sample in samples]))
            return tuned.read_bytes()

    monkeypatch.setattr(finetune, "Finetuner", Learner)
    monkeypatch.setattr(adapt, "choose", lambda variants: variants[-1])
    # After two steps all is right, before nothing.
    monkeypatch.setattr(finetune, "_network", lambda data, study: None)
    monkeypatch.setattr(finetune, "see", lambda network, metadata, part: study.Annotated(
        {"foreground": (part.labels > 0).astype(float)}, part.image, part.labels, 1.0))  # fmt: skip
    monkeypatch.setattr(finetune.Predictor, "labels", lambda self, pixels, shape: next(predicted))
    parts = [sample.labels for sample in wide]
    nothing = np.zeros_like(parts[0])
    predicted = iter([nothing] * 4 + [nothing, nothing, *parts[:2]] + [nothing, parts[2]] + [nothing, parts[3]])
    done = []
    adapted = adapt.adapt(wide, settings=Settings(stops=(1, 2)), replay=wide[:2], frames=["x", "x", "y", "z"],
                          progress=lambda *row: done.append(row))  # fmt: skip
    held_out = [{"0", "1", "2", "3"} - set(names) for names, *_ in trained[:-1]]
    assert sorted(map(sorted, held_out)) == [["0", "1"], ["2"], ["3"]]
    assert all(stops == (1, 2) and replay == 2 for _, stops, replay in trained[:-1])
    assert trained[-1][:2] == (["0", "1", "2", "3"], (2,)) and adapted.chosen == "fine-tuned"
    assert calibrated_on == [(2, names) for names, *_ in trained]  # in eight bits, as it is written
    assert done == [(n, 12) for n in range(1, 12)]
    adapted.save(tmp_path / "a.onnx")
    assert models.describe(tmp_path / "a.onnx")[0].adapted.steps == 2


def test_one_image_is_cut_into_halves_but_one_nucleus_is_not_cross_validated(wide, normalization):
    adapted = adapt.adapt(wide[:1], settings=CALIBRATE)
    assert adapted.cross_validated and adapted.chosen == calibrate.OFFSET and adapted.metadata.adapted.images == 1
    assert adapted.scores[calibrate.OFFSET]["dsb_score"] > adapted.scores["baseline"]["dsb_score"] + 0.05
    labels = np.where(wide[0].labels == 1, 1, 0).astype(np.uint16)
    rows, columns = np.nonzero(labels)
    part = (slice(max(rows.min() - 12, 0), rows.max() + 12), slice(max(columns.min() - 12, 0), columns.max() + 12))
    adapted = adapt.adapt([adapt.annotated("one", wide[0].image[part], labels[part], normalization)])
    assert not adapted.cross_validated and list(adapted.scores) == ["baseline", "offset only"]


def test_images_without_nuclei_are_taken_but_not_alone(wide, normalization):
    empty = adapt.annotated("empty", image(9, count=0)[0], np.zeros((96, 112), int), normalization)
    assert adapt.adapt([*wide[:2], empty], settings=CALIBRATE).cross_validated
    refused("none of the label images has a nucleus", adapt.adapt, [empty])


def test_what_cannot_be_adapted(wide, tmp_path, monkeypatch):
    for count in (0, 101):
        refused(f"{count} annotated images; adapt takes 1 to 100", adapt.adapt, wide[:1] * count)
    path = tmp_path / "trained.onnx"
    onnx_file.copy(models.PRETRAINED, path, models.describe(None)[0].but(predict=None))
    refused(r"trained.onnx: was trained but not evaluated", adapt.adapt, wide, path)
    monkeypatch.setattr("nuclei_unet.adaptation.find_spec", lambda name: None)
    refused("needs TensorFlow", adapt.adapt, wide)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        *(([0.4, 0.404, 0.404, 0.405], 0), ([0.4, 0.42, 0.424, 0.424], 1), ([0.4, 0.42, 0.43, 0.434], 2)),
        *(([0.4, 0.404, 0.408, 0.412], 2), ([0.4, 0.3, 0.3, 0.5], 3)),
    ],
)
def test_the_simpler_of_two_that_are_as_good_is_chosen(scores, best):
    variants = [SimpleNamespace(scores={"dsb_score": score}) for score in scores]
    assert adapt.choose(variants) is variants[best]


def test_enough_annotations_to_choose_more_than_the_offset(wide):
    def enough(*counts):
        parts = [SimpleNamespace(labels=np.arange(count + 1)) for count in counts]
        return study.Study(*[None] * 4, parts, *[None] * 5).enough

    assert enough(49, 1, 0) and not enough(48, 1, 0) and not enough(200, 200)


def test_an_annotation_must_fit_its_image(normalization):
    image, said = np.zeros((9, 7), np.uint8), "a: the image has 9 x 7 pixels, but its labels 9 x 8"
    refused(said, adapt.annotated, "a", image, np.zeros((9, 8), int), normalization)
    many = np.arange(256 * 257).reshape(256, 257).clip(0, 65536)
    refused("a: 65536 nuclei do not fit", adapt.annotated, "a", np.zeros((256, 257), np.uint8), many, normalization)
