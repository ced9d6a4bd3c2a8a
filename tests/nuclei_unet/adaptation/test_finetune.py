"""Fine-tuning: the same bits in any process, replay in every second crop, stops that do not depend on later ones."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from nuclei_unet.adaptation import finetune
from nuclei_unet.errors import InputError
from nuclei_unet.network import unet
from tests import ROOT
from tests.nuclei_unet.training.examples import sample
from tests.metadata import metadata_of


@pytest.fixture(scope="module")
def tiny(settings, model_params):
    """Return settings of a fine-tuning of four steps, and weights to start from."""
    network = model_params().model_copy(update={"normalization": "none"})
    metadata = metadata_of(settings, network)
    made = finetune.settings_for(metadata, 1, 2, 4)
    keras.utils.set_random_seed(5)
    small = made.model_copy(update={"crop_size": 32, "batch_size": 4, "precision": "float32"})
    return small, unet.build(1, metadata.targets, network).get_weights()


def tuner(tiny, replay=(), **changes):
    settings, weights = tiny
    return finetune.Finetuner(weights, settings.model_copy(update=changes), 1, replay)


TWO = [sample(n, (40, 48)) for n in range(2)]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_stops_do_not_depend_on_later_ones_nor_runs_on_earlier_ones(tiny):
    steps, one = [], tuner(tiny)
    found = list(one.run(TWO, (2, 4), lambda: steps.append(1)))
    assert [step for step, _ in found] == [2, 4] and len(steps) == 4
    assert not same(found[0][1], found[1][1]) and not same(found[0][1], tiny[1])
    for other in (one, tuner(tiny)):
        ((_, first),) = other.run(TWO, (2,))
        assert same(found[0][1], first)


def test_every_second_crop_is_a_replay(tiny, monkeypatch):
    one, drawn = tuner(tiny, [sample(9)]), []
    monkeypatch.setattr(one.replay, "draw", lambda n, draw=one.replay.draw: (drawn.append(n), draw(n))[1])
    ((_, found),) = one.run(TWO, (2,))
    assert sorted(drawn) == [0, 1, 2, 3]  # two batches of four
    ((_, other),) = tuner(tiny).run(TWO, (2,))
    assert not same(found, other)


def test_a_loss_that_explodes_is_an_error(tiny):
    with pytest.raises(InputError, match=r"the loss of the fine-tuning became .*; check the labels, or calibrate only"):
        list(tuner(tiny, learning_rate=1e30).run(TWO, (4,)))


def test_crops_fit_any_network(settings):
    deep = settings.train.model.model_copy(update={"encoder": "none", "filters": (2,) * 7, "dropout": (0.0,) * 7})
    assert finetune.settings_for(metadata_of(settings, deep), 1, 2, 4).crop_size == 256
    deeper = settings.train.model.model_copy(update={"encoder": "none", "filters": (2,) * 9, "dropout": (0.0,) * 9})
    assert finetune.settings_for(metadata_of(settings, deeper), 1, 2, 4).crop_size == 512


SCRIPT = """
import hashlib, keras, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(2)
tf.config.threading.set_inter_op_parallelism_threads(2)
from nuclei_unet.network import unet
from nuclei_unet.training import finetune
from pipeline import params
from tests import PARAMS
from tests.nuclei_unet.training.examples import sample
from tests.metadata import metadata_of

settings = params.load(PARAMS)
network = settings.train.model.model_copy(
    update={"filters": (4, 8), "dropout": (0.0, 0.3), "normalization": "none"})
metadata = metadata_of(settings, network)
made = finetune.settings_for(metadata, 1, 2, 3).model_copy(
    update={"crop_size": 64, "batch_size": 4, "precision": "float32"})
keras.utils.set_random_seed(5)
weights = unet.build(1, metadata.targets, network).get_weights()
one = finetune.Finetuner(weights, made, 1, [sample(n, (70, 80)) for n in range(3, 6)])
(found,) = one.run([sample(n, (70, 80)) for n in range(3)], (3,))
print(hashlib.sha256(b"".join(part.tobytes() for part in found[1])).hexdigest())
"""


def test_two_processes_give_the_same_bits():
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    digests = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()[-1]
        for _ in range(2)
    ]
    assert digests[0] == digests[1]
