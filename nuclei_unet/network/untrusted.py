"""Look at a model file that somebody else made, before anything is unpacked, built or computed from it.

Keras runs no code of a model and follows no link in it, but it believes what a file says about its size: one of 100 kB
can fill the memory. Weights that are not numbers it takes as they are.
"""

import contextlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.recipe import Recipe
from nuclei_unet.settings import NetworkSettings

# What a member of our files and packages may take when it is unpacked: weights hardly shrink, texts are small.
EXPANSION, SMALL = 4, 2**24
HARM = "do not use it; get the model again from where it was published"
# Of a layer's settings in Keras' config.json: those that decide how many weights it makes.
SHAPE = ("name", "batch_shape", "filters", "kernel_size", "strides", "pool_size", "size", "depth_multiplier", "axis")


def check(path: Path, threads: int | None = None) -> None:
    """Raise InputError that names the file if a model would take far more memory than its file, or is no U-Net of ours.

    Looks into .keras files and packages; an ONNX file is looked at when it is opened. For a .keras file TensorFlow
    starts, with so many threads, which cannot change later.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError):
        return  # an ONNX file, or one that is missing or damaged, which is said when it is opened
    size = path.stat().st_size
    if unpacked > EXPANSION * size + SMALL:
        raise InputError(f"{path}: {size:,} bytes that unpack to {unpacked:,}; {HARM}")
    if path.suffix == ".keras":
        _check_keras(path, threads)


def check_size(settings: NetworkSettings, size: int, name: str) -> None:
    """Raise InputError if `size` bytes, in two or four a weight, cannot hold the weights of such a network."""
    # Every level has a convolution of 3x3 from so many channels to as many.
    if 2 * sum(9 * filters**2 for filters in settings.filters) > size:
        raise InputError(f"{name}: its recipe is that of a far larger network; {HARM}")


def _check_keras(path: Path, threads: int | None) -> None:
    from nuclei_unet.network import keras_file

    recipe = keras_file.read_recipe(path)
    check_size(recipe.network, path.stat().st_size, str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            weights = archive.read("model.weights.h5")
        if _shapes(config) != _shapes(_expected(recipe, threads)):
            raise InputError(f"{path}: its layers are not those of its recipe; {HARM}")
        wrong = _fault(weights)
    except InputError:
        raise
    except Exception:
        return  # damaged: Keras finds the same, and its loader says where
    if wrong:
        raise InputError(f"{path}: {wrong}; {HARM}")


def _expected(recipe: Recipe, threads: int | None) -> dict:
    """Return the config.json of the network that a recipe describes."""
    import tensorflow as tf

    from nuclei_unet.network import unet

    with contextlib.suppress(RuntimeError):  # it runs already
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)

    return json.loads(unet.build(recipe.normalize.channels, recipe.targets, recipe.network).to_json())


def _shapes(config: dict) -> list[tuple]:
    """Return what decides about the size of each layer: its kind, its settings, its inputs."""
    return [
        (
            layer["module"],
            layer["class_name"],
            {key: layer["config"].get(key) for key in SHAPE},
            (layer.get("build_config") or {}).get("input_shape"),
            list(_inputs(layer["inbound_nodes"])),
        )
        for layer in config["config"]["layers"]
    ]


def _inputs(value: object):
    """Yield the names of the layers whose outputs a layer takes."""
    if isinstance(value, dict):
        if "keras_history" in value:
            yield value["keras_history"][0]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _inputs(part)


def _fault(data: bytes) -> str | None:
    """Return what is wrong with the weights in an HDF5 file, or None."""
    import h5py

    def link(name: str, found: object) -> str | None:
        return None if isinstance(found, h5py.HardLink) else f"its weights {name} are a link"

    def weights(name: str, found: object) -> str | None:
        if not isinstance(found, h5py.Dataset):
            return None
        if found.external or found.is_virtual:
            return f"its weights {name} are in another file"
        if found.nbytes > len(data):
            return f"its weights {name} claim {found.nbytes:,} bytes, more than the file has"
        if found.dtype.kind == "f" and not np.isfinite(found[()]).all():
            return f"its weights {name} are infinite or not a number"
        return None

    with h5py.File(io.BytesIO(data)) as file:
        return file.visititems_links(link) or file.visititems(weights)
