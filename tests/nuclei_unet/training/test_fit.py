"""Training: the same bits twice, the best epoch, early stopping, several devices."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from nuclei_unet.errors import InputError
from nuclei_unet.network import imagenet, keras_file, unet
from nuclei_unet.training import crops, losses
from tests import ROOT
from tests.nuclei_unet.training.examples import AUGMENTED, same_training, sample, trained
from tests.metadata import metadata_of


def test_training_twice_gives_the_same_weights_and_history(train_params, settings, tmp_path):
    params, calls = train_params(AUGMENTED, type_balance=0.5, targets=("foreground", "border")), []
    (model, history), (again, same) = trained(params, calls), trained(params)
    same_training((model, history), (again, same))
    for name, one in (("a.keras", model), ("b.keras", again)):
        keras_file.save(one, tmp_path / name, metadata_of(settings, params.model))
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()

    assert history.epoch.tolist() == [1] and np.isfinite(history.to_numpy(float)).all()
    metrics = {"loss", "val_loss", "foreground_iou", "val_foreground_iou", "foreground_dice", "learning_rate"}
    assert metrics <= set(history.columns)
    assert [epoch for epoch, _ in calls] == [1] and calls[0][1]["loss"] == history.loss[0]


def test_training_keeps_the_weights_of_the_best_epoch(train_params, capsys):
    # Far too fast after the first epoch, so that a later one is worse.
    params = train_params(epochs=3, learning_rate=0.5, schedule="constant", optimizer="adam", targets=("foreground",))
    model, history = trained(params)
    first, *_, last = capsys.readouterr().out.splitlines()
    said = r"epoch {}/3  loss \d+\.\d{{4}}  validation loss \d+\.\d{{4}}  IoU \d\.\d{{4}}  \d+ s{}"
    assert re.fullmatch(said.format(1, r"  \d+ (s|min) left"), first) and re.fullmatch(said.format(3, ""), last)
    image, maps = crops.Crops([sample(3, (40, 48), image_type="kind1")], params).center_crop(0)
    predicted = model(image[None].astype(np.float32), training=False)["foreground"]
    loss = losses.bce_dice(maps[None].astype(np.float32) / 255, predicted)
    assert len(history) == 3 and history.val_loss.nunique() > 1
    assert float(loss[0]) == pytest.approx(history.val_loss.min(), rel=1e-4)


def test_a_loss_that_is_no_number_stops(train_params, monkeypatch):
    monkeypatch.setattr(losses, "bce_dice", lambda truth, predicted: losses.bce(truth, predicted) * float("nan"))
    with pytest.raises(InputError, match=r"train.learning_rate: the loss became nan at step 1 with .*; lower it"):
        trained(train_params())


def test_weights_that_are_no_numbers_after_a_last_step_that_was_fine_stop(train_params):
    # The loss of a step is that of the weights before it: of a single step, a finite one. All of it is warm-up.
    params = train_params(epochs=1, steps_per_epoch=1, learning_rate=1e38, schedule="cosine", optimizer="adam")
    with pytest.raises(InputError, match="train.learning_rate: the validation loss became nan at step 1"):
        trained(params)


def test_pictures_show_the_network_learn_and_change_nothing(long_training):
    pictures = {}
    same_training(trained(long_training, log_picture=pictures.__setitem__), trained(long_training))
    assert list(pictures) == [1, 2, 4]  # and the last of the four
    assert {(pixels.shape, pixels.dtype.name) for pixels in pictures.values()} == {((36, 3 * 36, 3), "uint8")}
    image, truth, predicted = np.split(pictures[4], 3, axis=1)
    expected, maps = crops.Crops([sample(3, (40, 48), image_type="kind1")], long_training).center_crop(0)
    for part, pixels in ((image, expected), (truth, maps[..., :1])):
        np.testing.assert_array_equal(part[2:-2, 2:-2], np.broadcast_to(pixels, (32, 32, 3)))
    assert (pictures[1] != pictures[4])[:, 72:].any() and (predicted[:2] == 255).all()


# Devices can only be set up before TensorFlow's first operation, so in a process of its own.
ON_DEVICES = """
import json, sys
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
    try:
        fit.train(*examples.images(), settings, 1, examples.stop_at(2), state)
    except examples.Stopped:
        pass
_, history = fit.train(*examples.images(), settings, 1, lambda *_: None, state, lambda *row: pictures.append(row))
try:
    runtime.strategy(settings.model_copy(update={"batch_size": 5}))
except InputError as error:
    print(error, file=sys.stderr)
replicas = runtime.strategy(settings).num_replicas_in_sync
print(json.dumps([replicas, history.to_dict("list"), len(pictures)]))
"""


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


def test_a_pretrained_encoder_learns_more_slowly(train_params):
    network = {"encoder": "efficientnet-lite0", "stem_stride": 2, "filters": (2, 3), "dropout": (0.0, 0.1)}
    moved = {}
    for multiplier in (0, 0.1, 1):
        params = train_params(encoder_lr_multiplier=multiplier, learning_rate=1e-3, targets=("foreground",))
        params = params.model_copy(update={"model": params.model.model_copy(update=network)})
        model, _ = trained(params)
        before = unet.build(1, ("foreground",), params.model)
        imagenet.load(before)
        moved[multiplier] = max(
            np.abs(layer.get_weights()[0] - before.get_layer(layer.name).get_weights()[0]).max()
            for layer in model.layers
            if layer.name.startswith("encoder") and layer.weights
        )
    assert moved[0] == 0 < moved[0.1] < 0.3 * moved[1]
