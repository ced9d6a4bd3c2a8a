"""Find and open a model, whatever it is: a file, a package, a name in a registry, or the one that ships with us."""

import hashlib
import re
import zipfile
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from nuclei_unet.errors import InputError
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.prediction.engine import OnnxNetwork

PRETRAINED = Path(__file__).parents[1] / "pretrained/model.onnx"
MAX_BYTES = 2**30  # of a model
# Packages that register a function from an address such as models:/name@champion to a local model file.
REGISTRIES = "nuclei_unet.models"


@dataclass(frozen=True)
class Model:
    """An opened model: its network, its name, and its file's SHA-256."""

    network: OnnxNetwork
    name: str
    digest: str

    @property
    def metadata(self) -> Metadata:
        """What the model says about itself."""
        return self.network.metadata


def load(model: Path | str | None = None, *, threads: int | None = None, gpu: bool = False) -> Model:
    """Open a model: an .onnx file, a BioImage Model Zoo package (.zip) of ours, an address such as
    `models:/nuclei-unet@champion` if a package that knows such addresses is installed, or None: the pretrained one.

    `threads` of the CPU are one for each core if None. With `gpu` an NVIDIA GPU is used where there is one; its maps
    differ from those of a CPU. Raises InputError that names the model if it is missing, damaged or not ours.
    """
    data, name, digest = content(model)
    return Model(OnnxNetwork(data, name, threads=threads, gpu=gpu), name, digest)


def describe(model: Path | str | None) -> tuple[Metadata, str, str]:
    """Return what a model says about itself, its name and its SHA-256."""
    opened = load(model, threads=1)
    return opened.metadata, opened.name, opened.digest


def find(model: Path | str | None) -> Path:
    """Return the local file of a model; see `load`."""
    if model is None:
        return PRETRAINED
    scheme = re.match(r"([a-z][a-z0-9+.-]+):/", str(model))
    if not scheme:
        return Path(model)
    for registry in entry_points(group=REGISTRIES, name=scheme[1]):
        try:
            fetch = registry.load()
        except ImportError:  # of a checkout that is not here
            continue
        return fetch(str(model))
    raise InputError(f"{model}: nothing that is installed knows such addresses")


def content(model: Path | str | None) -> tuple[bytes, str, str]:
    """Return the content of a model's ONNX file, the model's name, and the SHA-256 of its file; see `load`."""
    path, name = find(model), str(model) if model is not None else "pretrained"
    if not path.is_file():
        raise InputError(f"{name}: {'a folder, not a model' if path.is_dir() else 'no such model'}")
    if path.suffix == ".keras":
        raise InputError(f"{name}: a Keras model, from which training goes on; the .onnx file beside it predicts")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{name}: larger than {MAX_BYTES:,} bytes, so not a model of ours")
    data = path.read_bytes()
    return _unpacked(path, name) if zipfile.is_zipfile(path) else data, name, hashlib.sha256(data).hexdigest()


def _unpacked(path: Path, name: str) -> bytes:
    """Return the ONNX file in a package of the BioImage Model Zoo."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".onnx")]
            if len(members) != 1 or members[0].file_size > MAX_BYTES:
                raise InputError(f"{name}: not a package of nuclei-unet: it holds {len(members)} ONNX files")
            return archive.read(members[0])
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{name}: damaged ({error})") from None
