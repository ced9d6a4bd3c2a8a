"""Fine-tuning: the same bits in any process, replay in every second crop, stops that do not depend on later ones."""

import keras
import numpy as np
import pytest

from nuclei_unet.adaptation import Settings, finetune
from nuclei_unet.network import onnx_file, unet
from nuclei_unet.prediction.engine import OnnxNetwork
from tests.metadata import metadata_of
from tests.nuclei_unet.training.examples import sample
from tests.refusals import refused

FOUR = Settings(stops=(4,), seed=1, threads=2)
TWO = [sample(n, (40, 48)) for n in range(2)]


@pytest.fixture(scope="module")
def start(settings, model_params, tmp_path_factory):
    """Return the content of an ONNX file of a tiny network, and its metadata."""
    path = tmp_path_factory.mktemp("start") / "model.onnx"
    network = model_params().model_copy(update={"normalization": "none"})
    keras.utils.set_random_seed(5)
    metadata = metadata_of(settings, network)
    onnx_file.save(unet.build(1, metadata.targets, network), path, metadata)
    return path.read_bytes(), metadata


def tuner_of(start, *more):
    """Return a tuner of small crops; its first run takes seconds, later ones do not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "CROP", 32)
        patch.setattr(finetune, "BATCH", 4)
        return finetune.Finetuner(*start, FOUR, *more)


@pytest.fixture(scope="module")
def plain(start):
    return tuner_of(start)


@pytest.fixture(scope="module")
def replaying(start):
    return tuner_of(start, [sample(9)])


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_stops_do_not_depend_on_later_ones_nor_runs_on_earlier_ones(plain, start):
    steps = []
    other = tuner_of(start, (), lambda: steps.append(1))
    before = other.model.get_weights()
    (two, after_two), (four, after_four) = other.run(TWO, (2, 4))
    assert (two, four) == (2, 4) and len(steps) == 4
    assert not same(after_two, after_four) and not same(after_two, before)
    for tuner in (other, plain):
        ((_, again),) = tuner.run(TWO, (2,))
        assert same(after_two, again)


def test_weights_become_an_onnx_file_in_float32_or_eight_bits(replaying, monkeypatch):
    monkeypatch.setattr(finetune, "CROP", 32)
    ((_, weights),) = replaying.run(TWO, (2,))
    pixels = TWO[0].image[None, :40, :48, None].astype(np.float32)
    wanted = replaying.model(pixels)["foreground"]
    for samples, atol in (((), 0.01), (TWO, 0.1)):
        data = replaying.to_onnx(weights, samples)
        assert data == replaying.to_onnx(weights, samples)
        np.testing.assert_allclose(OnnxNetwork(data, "a", threads=2)(pixels)["foreground"], wanted, atol=atol)


def test_every_second_crop_is_a_replay(plain, replaying, monkeypatch):
    numbers, draw = [], replaying._replayed.draw
    monkeypatch.setattr(replaying._replayed, "draw", lambda n: (numbers.append(n), draw(n))[1])
    ((_, with_replay),) = replaying.run(TWO, (2,))
    assert sorted(numbers) == [0, 1, 2, 3]  # two batches of four
    ((_, without),) = plain.run(TWO, (2,))
    assert not same(with_replay, without)


def test_a_loss_that_explodes_is_an_error(plain, monkeypatch):
    monkeypatch.setattr(finetune, "EXPLODED", 0.01)
    refused(r"the loss of the fine-tuning became .*; check the labels, or calibrate only", list, plain.run(TWO, (4,)))


@pytest.mark.parametrize(("levels", "side"), [(7, 256), (10, 512)])
def test_crops_fit_any_network(settings, levels, side):
    deep = {"encoder": "none", "filters": (2,) * levels, "dropout": (0.0,) * levels, "stem_stride": 1}
    network = settings.train.model.model_copy(update=deep)
    assert finetune.train_settings(metadata_of(settings, network), FOUR).crop_size == side


def test_tiles_to_calibrate_on_are_spread_over_all_images():
    tiles = finetune._tiles([sample(n, (600, 700)).image for n in range(4)])
    assert len(tiles) == 12 and max(tile.shape for tile in tiles) == (256, 256)
