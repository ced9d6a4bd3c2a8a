"""Find and open a model, whatever it is: a file, a package, a name in a registry, or the one that ships with us."""

import hashlib
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from nuclei_unet.card import Card
from nuclei_unet.errors import InputError
from nuclei_unet.network import hardware, untrusted
from nuclei_unet.prediction.predictor import Network
from nuclei_unet.recipe import Recipe

PRETRAINED = Path(__file__).parents[1] / "pretrained/model.onnx"
MAX_BYTES = 2**30  # of a model
# Packages that register a function from an address such as models:/name@champion to a local model file.
REGISTRIES = "nuclei_unet.models"

Engine = Literal["auto", "tensorflow", "onnx"]


@dataclass(frozen=True)
class Model:
    """An opened model: its network, what it says about itself, its name, its file's SHA-256, and what computes it."""

    network: Network
    card: Card
    name: str
    digest: str
    engine: str


def load(
    model: Path | str | None = None, *, engine: Engine = "auto", precision: str = "auto", threads: int | None = None
) -> Model:
    """Open a model.

    Parameters
    ----------
    model : a .keras or .onnx file, a BioImage Model Zoo package (.zip) of ours, an address such as
        `models:/nuclei-unet@champion` if a package that knows such addresses is installed, or None: the pretrained
        model of this package
    engine : what computes it. `auto` is TensorFlow where it is installed and faster, else ONNX Runtime
    precision : float32, mixed_bfloat16 or auto, for TensorFlow; ONNX Runtime computes in float32
    threads : number of CPU threads; None: one for each core

    Raises
    ------
    InputError : names the model if it is missing, damaged or not ours, or if what it needs is not installed
    """
    path, name, data, digest = _located(model)
    if path.suffix == ".keras":
        return _keras_model(path, name, digest, engine, precision, threads)
    if zipfile.is_zipfile(path):
        data = _packed(path, name)
    if engine_for(path, engine) == "tensorflow":
        return _converted(data, name, digest, precision, threads)
    from nuclei_unet.prediction.engine import OnnxNetwork

    network = OnnxNetwork(data, name, threads)
    return Model(network, network.card, name, digest, "ONNX Runtime, float32")


def engine_for(path: Path, engine: Engine) -> Engine:
    """Return what `auto` means for a model file on this machine; any other engine is returned as it is."""
    if engine != "auto":
        return engine
    # Elsewhere ONNX Runtime is as quick, needs less memory, and starts in a second (benchmarks.prediction).
    quick = hardware.has_amx() or hardware.has_nvidia_gpu()
    fast = quick and _installed("tensorflow", "keras", "onnx")
    return "tensorflow" if fast or path.suffix == ".keras" else "onnx"


def find(model: Path | str | None) -> Path:
    """Return the local file of a model; see `load`."""
    if model is None:
        return PRETRAINED
    scheme = re.match(r"([a-z][a-z0-9+.-]+):/", str(model))
    if not scheme:
        return Path(model)
    for found in entry_points(group=REGISTRIES, name=scheme[1]):
        fetch: Callable[[str], Path] = found.load()
        return fetch(str(model))
    raise InputError(f"{model}: nothing installed knows such addresses; for MLflow: pip install 'nuclei-unet[train]'")


def describe(model: Path | str | None) -> tuple[Card, str, str]:
    """Return what a model says about itself, its name and its SHA-256, without preparing its network."""
    path, name, data, digest = _located(model)
    if path.suffix == ".keras":
        from nuclei_unet.network import keras_file

        return _card(keras_file.read_recipe(path)), name, digest
    from nuclei_unet.prediction.engine import OnnxNetwork

    return OnnxNetwork(_packed(path, name) if zipfile.is_zipfile(path) else data, name, 1).card, name, digest


def load_weights(model: Path | str | None = None, *, threads: int | None = None):
    """Return a model's network with the weights to go on training from, its card and its SHA-256.

    The network is a Keras model in float32. Its batch normalization is folded into the convolutions, as in the ONNX
    files: it predicts the same, and `card.recipe.network` says so. See `load` for what a model may be; raises
    InputError as it does, and if TensorFlow is not installed.
    """
    path, name, data, digest = _located(model)
    require_tensorflow(f"{name}: going on with its training")
    card = describe(path)[0]
    folded = card.recipe.network.model_copy(update={"normalization": "none"})
    if path.suffix == ".keras":
        runtime, _ = _tensorflow(name, threads)
        untrusted.check(path)
        from nuclei_unet.network import keras_file, unet

        with runtime.precision("float32"):
            network = unet.fold_batch_normalization(keras_file.load(path), card.recipe.network)
    else:
        runtime, _ = _tensorflow(name, threads, "onnx")
        from nuclei_unet.network import onnx_file

        data = _packed(path, name) if zipfile.is_zipfile(path) else data
        with runtime.precision("float32"):
            network = onnx_file.load(data, name, card.recipe.targets, folded)
    return network, card.model_copy(update={"recipe": card.recipe.model_copy(update={"network": folded})}), digest


def _card(recipe: Recipe) -> Card:
    """Return what is known of a `.keras` file, which holds a recipe alone."""
    return Card(recipe=recipe, diameters=recipe.adapted.diameters if recipe.adapted else None)


def _located(model: Path | str | None) -> tuple[Path, str, bytes, str]:
    """Return a model's file, its name, its content and its SHA-256."""
    path, name = find(model), str(model) if model is not None else "pretrained"
    if not path.is_file():
        raise InputError(f"{name}: {'a folder, not a model' if path.is_dir() else 'no such model'}")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{name}: larger than {MAX_BYTES:,} bytes, so not a model of ours")
    data = path.read_bytes()
    return path, name, data, hashlib.sha256(data).hexdigest()


def _packed(path: Path, name: str) -> bytes:
    """Return the ONNX file in a package of the BioImage Model Zoo."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".onnx")]
            if len(members) != 1 or members[0].file_size > MAX_BYTES:
                raise InputError(f"{name}: not a package of nuclei-unet: it holds {len(members)} ONNX files")
            return archive.read(members[0])
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{name}: damaged ({error})") from None


def _installed(*packages: str) -> bool:
    return all(find_spec(package) for package in packages)


def require_tensorflow(what: str) -> None:
    """Raise InputError, which starts with `what`, if TensorFlow is not installed; it is not loaded."""
    if not _installed("tensorflow", "keras", "onnx"):
        raise InputError(f"{what} needs TensorFlow; pip install 'nuclei-unet[train]'")


def _tensorflow(name: str, threads: int | None, *needed: str):
    if not _installed("tensorflow", "keras", *needed):
        raise InputError(f"{name}: needs TensorFlow; pip install 'nuclei-unet[train]', or use an ONNX file without it")
    import tensorflow as tf

    from nuclei_unet.network import runtime, tensorflow_engine

    if threads:
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        except RuntimeError:
            raise InputError("TensorFlow has started already, so its number of threads cannot change") from None
    return runtime, tensorflow_engine.TensorFlowNetwork


def _keras_model(path: Path, name: str, digest: str, engine: Engine, precision: str, threads: int | None) -> Model:
    if engine == "onnx":
        raise InputError(f"{name}: a Keras model runs on TensorFlow alone; `make release` writes it as ONNX, too")
    from nuclei_unet.network import keras_file

    recipe = keras_file.read_recipe(path)
    runtime, network = _tensorflow(name, threads)
    untrusted.check(path)
    try:
        ready = network(keras_file.load(path), recipe.network, precision)
    except InputError as error:
        raise error if str(error).startswith(str(path)) else InputError(f"{name}: {error}") from None
    return Model(ready, _card(recipe), name, digest, f"TensorFlow, {runtime.resolve_precision(precision)}")


def _converted(data: bytes, name: str, digest: str, precision: str, threads: int | None) -> Model:
    """Open an ONNX file's weights in TensorFlow."""
    runtime, network = _tensorflow(name, threads, "onnx")
    from nuclei_unet.network import onnx_file
    from nuclei_unet.prediction.engine import OnnxNetwork

    card = OnnxNetwork(data, name, 1).card
    folded = card.recipe.network.model_copy(update={"normalization": "none"})
    with runtime.precision("float32"):
        model = onnx_file.load(data, name, card.recipe.targets, folded)
    ready = network(model, folded, precision)
    return Model(ready, card, name, digest, f"TensorFlow, {runtime.resolve_precision(precision)}")
