"""Adapting a model: a style that is found, a random annotator, one image, the metadata, the same bytes twice."""

import numpy as np
import pytest

from nuclei_unet.adaptation import adapt, finetune
from nuclei_unet.errors import InputError
from nuclei_unet.files import file_digest
from nuclei_unet.network import keras_file
from nuclei_unet.prediction import models
from nuclei_unet.prediction.segmenter import Segmenter
from tests.nuclei_unet.adaptation.adapting import QUICK, image, random_labels, write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a function that gives a model's path, its metadata and a segmenter."""
    path = tmp_path_factory.mktemp("model") / "model.keras"
    metadata = write_model(path)
    return path, metadata, Segmenter.load(path, precision="float32")


@pytest.fixture(scope="module")
def wide(model):
    """Return four images whose annotator draws all outlines 1 px wider than the model does."""
    _, metadata, segmenter = model
    wider = metadata.predict.model_copy(update={"outline_offset": 1.0})
    draw = Segmenter(segmenter.predictor._run, segmenter.metadata.model_copy(
        update={"recipe": metadata.model_copy(update={"predict": wider})}))  # fmt: skip
    pixels = [image(seed)[0] for seed in range(4)]
    return [adapt.annotated(f"{n}", one, draw(one), metadata.normalize) for n, one in enumerate(pixels)]


def run(model, samples, **values):
    quick = {"settings": lambda made: made.model_copy(update=QUICK), "precision": "float32", "stops": (1, 2)}
    return adapt.adapt(samples, model=model[0], **quick | values)


def test_an_annotator_who_draws_wide_is_found(model, wide, tmp_path):
    path, metadata, _ = model
    done = []
    adapted = run(model, wide, progress=lambda *row: done.append(row))
    assert adapted.helped and adapted.cross_validated and adapted.chosen == adapt.OFFSET
    assert adapted.metadata.predict.outline_offset == pytest.approx(1, abs=0.3)
    rows = {name: row["dsb_score"] for name, row in adapted.rows.items()}
    assert rows["offset only"] > rows["plain"] + 0.1 and set(adapted.rows["plain"]) == {"iou", "dsb_score", "ap50"}
    assert done == sorted(done) and done[-1][0] == done[-1][1]

    # Its metadata says where it is from; all else stayed.
    made = adapted.metadata.adapted
    assert adapted.metadata.parent == file_digest(path)
    assert (made.images, made.steps, made.before, made.after) == (4, 0, rows["plain"], rows["offset only"])
    assert made.nuclei == sum(int(sample.labels.max()) for sample in wide)
    predict = metadata.predict.model_copy(update={"outline_offset": adapted.metadata.predict.outline_offset})
    same = {"parent": None, "adapted": None, "network": metadata.network}
    assert adapted.metadata.model_copy(update=same) == metadata.model_copy(update={"predict": predict})

    # The model does as the metadata says, and the same call gives the same bytes.
    adapted.save(tmp_path / "a.keras")
    run(model, wide, calibrate_only=True).save(tmp_path / "b.keras")
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    again = Segmenter.load(tmp_path / "a.keras", precision="float32")
    assert again.metadata == adapted.metadata
    found = again.predictor.labels(wide[0].image)
    assert (found > 0).sum() == pytest.approx((wide[0].labels > 0).sum(), rel=0.05)


def test_a_random_annotator_does_not_help(model):
    samples = [adapt.annotated(f"{n}", image(n)[0], random_labels(50 + n), model[1].normalize) for n in range(3)]
    adapted = run(model, samples)
    assert not adapted.helped and adapted.chosen == adapt.PLAIN and adapted.metadata is None
    with pytest.raises(ValueError, match="did not help"):
        adapted.save("never.keras")


def test_fine_tuning_is_cross_validated_and_its_weights_are_kept(model, wide, monkeypatch, tmp_path):
    """As if training brought everything: what it was trained on, and that the last one takes all images."""
    calls = []

    class Learner:
        def __init__(self, weights, settings, channels, replay):
            self.weights, self.replay = weights, len(replay)

        def run(self, samples, stops, on_step):
            calls.append(([sample.image_id for sample in samples], tuple(stops), self.replay))
            for step in stops:
                on_step()
                yield step, [part * (step - 1) for part in self.weights]

    monkeypatch.setattr(finetune, "Finetuner", Learner)
    monkeypatch.setattr(adapt, "choose", lambda rows: adapt.FINE_TUNED if adapt.FINE_TUNED in rows else adapt.PLAIN)
    seen = iter([*[0.1] * 4, *[0.0, 0.0, 0.5, 0.5] * 9])
    monkeypatch.setattr(adapt, "_score_once", lambda *_: next(seen))
    adapted = run(model, wide, replay=wide[:2], frames=["x", "x", "y", "z"])
    held = [{"0", "1", "2", "3"} - set(trained) for trained, *_ in calls[:-1]]
    assert sorted(map(sorted, held)) == [["0", "1"], ["2"], ["3"]]
    assert all(stops == (1, 2) and replay == 2 for _, stops, replay in calls[:-1])
    assert calls[-1][0] == ["0", "1", "2", "3"] and calls[-1][1] == (adapted.metadata.adapted.steps,)
    adapted.save(tmp_path / "a.keras")
    assert keras_file.read_metadata(tmp_path / "a.keras").adapted.steps == calls[-1][1][0]


def test_one_image_is_cut_into_halves(model, wide):
    # Alone: with this model, a step or two of training help as well.
    adapted = run(model, wide[:1], calibrate_only=True)
    assert adapted.cross_validated and adapted.chosen == adapt.OFFSET and adapted.metadata.adapted.images == 1
    assert adapted.rows[adapt.OFFSET]["dsb_score"] > adapted.rows[adapt.PLAIN]["dsb_score"] + 0.2


def test_one_nucleus_gives_an_offset_that_is_not_cross_validated(model, wide):
    labels = np.where(wide[0].labels == 1, 1, 0).astype(np.uint16)
    rows, columns = np.nonzero(labels)
    part = (slice(max(rows.min() - 12, 0), rows.max() + 12), slice(max(columns.min() - 12, 0), columns.max() + 12))
    one = adapt.annotated("one", wide[0].image[part], labels[part], model[1].normalize)
    adapted = run(model, [one])
    assert not adapted.cross_validated and list(adapted.rows) == ["plain", "offset only"]
    if adapted.helped:
        assert not adapted.metadata.adapted.cross_validated


def test_images_without_nuclei_are_taken_but_not_alone(model, wide):
    empty = adapt.annotated("empty", image(9, count=0)[0], np.zeros((96, 112), int), model[1].normalize)
    assert run(model, [*wide[:2], empty], calibrate_only=True).cross_validated
    with pytest.raises(InputError, match="none of the label images has a nucleus"):
        run(model, [empty])


@pytest.mark.parametrize("count", [0, 101])
def test_there_are_1_to_100_images(model, wide, count):
    with pytest.raises(InputError, match=f"{count} annotated images; adapt takes 1 to 100"):
        run(model, wide[:1] * count)


@pytest.mark.parametrize(
    ("rows", "best"),
    [
        ([0.4, 0.404, 0.404, 0.405], "plain"),
        ([0.4, 0.42, 0.424, 0.424], "offset only"),
        ([0.4, 0.42, 0.43, 0.434], "calibrated"),
        ([0.4, 0.404, 0.408, 0.412], "calibrated"),
        ([0.4, 0.3, 0.3, 0.5], "fine-tuned"),
    ],
)
def test_the_simpler_of_two_that_are_as_good_is_chosen(rows, best):
    assert adapt.choose({name: {"dsb_score": row} for name, row in zip(adapt.ROWS, rows, strict=True)}) == best


def test_an_annotation_must_fit_its_image(model):
    look = model[1].normalize
    with pytest.raises(InputError, match="a: the image has 9 x 7 pixels, but its labels 9 x 8"):
        adapt.annotated("a", np.zeros((9, 7), np.uint8), np.zeros((9, 8), int), look)
    with pytest.raises(InputError, match="a: 65536 nuclei do not fit"):
        adapt.annotated(
            "a", np.zeros((256, 257), np.uint8), np.arange(256 * 257).reshape(256, 257).clip(0, 65536), look
        )
    larger = adapt.annotated("a", *image(1), look, scale=2)
    assert larger.image.shape == (192, 224) and larger.labels.shape == (96, 112)


def test_a_model_that_was_not_evaluated_is_refused(model, wide, tmp_path):
    path = tmp_path / "trained.keras"
    keras_file.copy_with_metadata(model[0], path, model[1].model_copy(update={"predict": None}))
    with pytest.raises(InputError, match="was trained but not evaluated"):
        run((path,), wide)


def test_the_pretrained_model_keeps_its_sizes_of_nuclei(wide):
    network, metadata, digest = models.load_weights(None)
    assert metadata.diameters and digest == file_digest(models.PRETRAINED)
    assert metadata.network.normalization == "none" and network.input_shape[-1] == 1
