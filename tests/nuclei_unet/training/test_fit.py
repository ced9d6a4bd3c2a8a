"""Training: the same bits twice, the best epoch, early stopping, several devices."""

import json
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from nuclei_unet.network import imagenet, unet
from nuclei_unet.training import callbacks, crops, fit, losses
from tests import ROOT
from tests.nuclei_unet.training.examples import Stopped, same_training, sample, stop_at, trained
from tests.refusals import refused


@pytest.fixture(scope="module")
def whole(long_training):
    """Return a training that was not stopped, what was logged of its epochs, and its pictures."""
    calls, pictures = [], {}
    return trained(long_training, calls, log_picture=pictures.__setitem__), calls, pictures


def test_the_history_has_a_row_an_epoch_and_some_have_pictures(whole, long_training):
    (_, history), calls, pictures = whole
    assert history.epoch.tolist() == [1, 2, 3, 4] and np.isfinite(history.to_numpy(float)).all()
    metrics = {"loss", "val_loss", "foreground_iou", "val_foreground_iou", "foreground_dice", "learning_rate"}
    assert metrics <= set(history.columns)
    assert [epoch for epoch, _ in calls] == [1, 2, 3, 4] and calls[0][1]["loss"] == history.loss[0]

    # Pictures show the network learn.
    assert list(pictures) == [1, 2, 4]  # and the last of the four
    assert {(pixels.shape, pixels.dtype.name) for pixels in pictures.values()} == {((36, 3 * 36, 3), "uint8")}
    image, truth, predicted = np.split(pictures[4], 3, axis=1)
    expected, maps = crops.Crops([sample(3, (40, 48))], long_training).center_crop(0)
    for part, pixels in ((image, expected), (truth, maps[..., :1])):
        np.testing.assert_array_equal(part[2:-2, 2:-2], np.broadcast_to(pixels, (32, 32, 3)))
    assert (pictures[1] != pictures[4])[:, 72:].any() and (predicted[:2] == 255).all()


def test_a_stopped_training_goes_on_with_the_same_bits(whole, long_training, tmp_path, capsys):
    """So a training twice, and one without pictures, give the same bits, too."""
    state, calls = tmp_path / "train-1.npz", []
    with pytest.raises(Stopped):  # before the state of this epoch is kept
        trained(long_training, state=state, log_epoch=stop_at(3))
    same_training(trained(long_training, calls, state), whole[0])
    assert "going on after epoch 2 of 4" in capsys.readouterr().out
    assert [epoch for epoch, _ in calls] == [1, 2, 3, 4]  # a tracker gets the earlier epochs too
    assert list(tmp_path.iterdir()) == [state]


def test_training_keeps_the_weights_of_the_best_epoch(train_params, capsys):
    # Far too fast after the first epoch, so that a later one is worse.
    params = train_params(epochs=3, learning_rate=0.5, schedule="constant", optimizer="adam", targets=("foreground",))
    model, history = trained(params)
    first, *_, last = capsys.readouterr().out.splitlines()
    said = r"epoch {}/3  loss \d+\.\d{{4}}  validation loss \d+\.\d{{4}}  IoU \d\.\d{{4}}  \d+ s{}"
    assert re.fullmatch(said.format(1, r"  \d+ (s|min) left"), first) and re.fullmatch(said.format(3, ""), last)
    image, maps = crops.Crops([sample(3, (40, 48))], params).center_crop(0)
    predicted = model(image[None].astype(np.float32), training=False)["foreground"]
    loss = losses.bce_dice(maps[None].astype(np.float32) / 255, predicted)
    assert len(history) == 3 and history.val_loss.nunique() > 1
    assert float(loss[0]) == pytest.approx(history.val_loss.min(), rel=1e-4)


@pytest.mark.parametrize("loss", [float("nan"), 1e30])
def test_a_loss_that_explodes_stops(loss):
    stop = callbacks.StopOnExplosion()
    stop.set_model(SimpleNamespace(optimizer=SimpleNamespace(iterations=7, learning_rate=0.5)))
    stop.on_train_batch_end(0, {"loss": 1.0})
    said = r"train.learning_rate: the loss became .* at step 7 with .* 0.5; lower it"
    refused(said, stop.on_train_batch_end, 1, {"loss": loss})


def test_weights_that_are_no_numbers_after_a_last_step_that_was_fine_stop(train_params):
    # The loss of a step is that of the weights before it: of a single step, a finite one. All of it is warm-up.
    rate = {"learning_rate": 1e38, "schedule": "cosine", "optimizer": "adam"}
    params = train_params(targets=("foreground",), steps_per_epoch=1, **rate)
    refused("train.learning_rate: the validation loss became nan at step 1", trained, params)


# Devices can only be set up before TensorFlow's first operation, so in a process of its own.
ON_DEVICES = """
import contextlib, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from nuclei_unet.quiet import quiet_tensorflow
quiet_tensorflow()
import tensorflow as tf
cpu, = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[2]))
from nuclei_unet.errors import InputError
from nuclei_unet.network import runtime
from nuclei_unet.training import fit
from tests.nuclei_unet.training import examples

settings = examples.tiny("mirrored")
runtime.configure(settings)
pictures, state = [], Path("state.npz")
if sys.argv[2] == "2":
    with contextlib.suppress(examples.Stopped):
        fit.train(*examples.images(), settings, 1, examples.stop_at(2), state)
_, history = fit.train(*examples.images(), settings, 1, lambda *_: None, state, lambda *row: pictures.append(row))
try:
    runtime.strategy(settings.model_copy(update={"batch_size": 5}))
except InputError as error:
    print(error, file=sys.stderr)
replicas = runtime.strategy(settings).num_replicas_in_sync
print(json.dumps([replicas, history.to_dict("list"), len(pictures)]))
"""


@pytest.mark.slow
def test_two_devices_train_as_one_does(tmp_path):
    # The training on two is stopped after its first epoch, and goes on.
    histories = []
    for devices in (1, 2):
        (folder := tmp_path / f"{devices}").mkdir()
        command = [sys.executable, "-c", ON_DEVICES, str(ROOT), str(devices)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, done.stderr
        replicas, history, pictures = json.loads(done.stdout.splitlines()[-1])
        assert replicas == devices and pictures
        histories.append(pd.DataFrame(history))
    assert "going on after epoch 1 of 4" in done.stdout
    assert "train.batch_size: 5 crops cannot be shared evenly by 2 devices" in done.stderr
    # Up to rounding: a step of Adam does not care how large a gradient near zero is.
    pd.testing.assert_frame_equal(*histories, rtol=2e-3)


def test_a_pretrained_encoder_learns_more_slowly(train_params, model_params):
    network = model_params(encoder="efficientnet-lite0", stem_stride=2, filters=(2,), dropout=(0.0,))
    params = train_params(targets=("foreground",), learning_rate=1e-3, schedule="constant", model=network)
    model = fit.build(params, 1, 1, 1)
    before = unet.build(1, ("foreground",), params.model)
    imagenet.load(before)
    names = {variable.path for variable in before.trainable_variables if variable.path.startswith("encoder")}
    start = {variable.path: variable.numpy() for variable in model.trainable_variables}
    assert names and names < set(start)
    for variable in before.trainable_variables:
        if variable.path in names:
            np.testing.assert_array_equal(variable, start[variable.path])
    for kind, multiplier in (("adamw", 0), ("adam", 0.1)):
        changes = {"optimizer": kind, "encoder_lr_multiplier": multiplier, "weight_decay": 0.0}
        optimizer = fit.make_optimizer(params.model_copy(update=changes), 1)
        optimizer.build(model.trainable_variables)
        for variable in model.trainable_variables:
            variable.assign(start[variable.path])
        # The first step of Adam is as long as the learning rate, whatever the gradients are.
        optimizer.apply([np.ones(variable.shape, np.float32) for variable in model.trainable_variables])
        for variable in model.trainable_variables:
            step = 1e-3 * (multiplier if variable.path in names else 1)
            np.testing.assert_allclose(start[variable.path] - variable.numpy(), step, atol=1e-6)
