"""The precision that a machine is good at."""

import pytest
import tensorflow as tf

from nuclei_unet.network import runtime


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [([(7, 5)], "float32"), ([(8, 0)], "mixed_bfloat16"), ([(9, 0), (7, 0)], "float32"), ([None], "float32")],
)
def test_precision_of_gpus(capabilities, precision, monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: capabilities)
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {"compute_capability": gpu})
    assert runtime.resolve_precision("auto") == precision
    assert runtime.resolve_precision("float32") == "float32"
