"""Model files that mean harm, made from good ones.

`python -m benchmarks.fault_injection.hostile_models COMMAND ... MODEL ... -- FILE ...` runs a command in this
process for one file after the other, and prints a line of JSON for each: exit code, stderr, seconds, peak memory.
"""

import contextlib
import io
import json
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import onnx
from onnx import helper, numpy_helper

from nuclei_unet.commands.main import main as nuclei_unet
from nuclei_unet.prediction.engine import CARD, OUTPUT

CONFIG, WEIGHTS, RECIPE = "config.json", "model.weights.h5", "recipe.json"
BOMB = b" " * 2**26


def write(keras_file: Path, onnx_file: Path, folder: Path) -> dict[str, str]:
    """Write all files to a folder; return {file name: regular expression of what has to be said about it}."""
    folder = folder.absolute()
    folder.mkdir()
    said = {}
    with zipfile.ZipFile(keras_file) as archive:
        good = {name: archive.read(name) for name in archive.namelist()}
    (folder / "elsewhere.h5").write_bytes(good[WEIGHTS])
    for name, (change, reason) in KERAS.items():
        members = change(good, folder)
        # Only what shall unpack to more is packed.
        packed = zipfile.ZIP_DEFLATED if BOMB in members.values() else zipfile.ZIP_STORED
        with zipfile.ZipFile(folder / f"{name}.keras", "w", packed) as archive:
            for member, data in (good | members).items():
                archive.writestr(member, data)
        said[f"{name}.keras"] = reason
    for name, (change, reason) in ONNX.items():
        model = onnx.load_model(onnx_file)
        change(model, folder)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
        said[f"{name}.onnx"] = reason
    with zipfile.ZipFile(folder / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.onnx", BOMB)
    return said | {"bomb.zip": "unpack to"}


def _weights(change: Callable[[h5py.File, str, Path], None]):
    """Return a change of a model's first kernel, which is deleted before."""

    def changed(good: dict[str, bytes], folder: Path) -> dict[str, bytes]:
        file = io.BytesIO(good[WEIGHTS])
        with h5py.File(file, "r+") as weights:
            name = weights.visititems(lambda name, found: name if getattr(found, "ndim", 0) == 4 else None)
            value = weights[name][()]
            del weights[name]
            change(weights, name, value, folder / "elsewhere.h5")
        return {WEIGHTS: file.getvalue()}

    return changed


def _external_link(file, name, value, elsewhere):
    file[name] = h5py.ExternalLink(str(elsewhere), name)


def _external_group(file, name, value, elsewhere):
    group = name.rsplit("/", 1)[0]
    del file[group]
    file[group] = h5py.ExternalLink(str(elsewhere), group)


def _soft_link(file, name, value, elsewhere):
    file["else"] = value
    file[name] = h5py.SoftLink("/else")


def _virtual(file, name, value, elsewhere):
    layout = h5py.VirtualLayout(value.shape, value.dtype)
    layout[...] = h5py.VirtualSource(str(elsewhere), name, value.shape)
    file.create_virtual_dataset(name, layout)


def _external(file, name, value, elsewhere):
    file.create_dataset(name, value.shape, value.dtype, external=[(str(elsewhere), 0, value.nbytes)])


def _claim(*shape: int):
    return lambda file, name, value, elsewhere: file.create_dataset(
        name, shape, value.dtype, chunks=(64, 2**10), compression="gzip"
    )


def _filled(number: float):
    return lambda file, name, value, elsewhere: file.create_dataset(name, data=np.full_like(value, number))


def _other(value: object):
    return lambda file, name, *_: file.create_dataset(name, data=value)


def _layer(kind: str, change: Callable[[dict], object]):
    """Return a change of a model's first layer of a kind."""

    def changed(good: dict[str, bytes], folder: Path) -> dict[str, bytes]:
        config = json.loads(good[CONFIG])
        change(next(layer for layer in config["config"]["layers"] if layer["class_name"] == kind))
        return {CONFIG: json.dumps(config).encode()}

    return changed


def _lambda(layer: dict) -> None:
    code = keras.saving.serialize_keras_object(keras.layers.Lambda(lambda x: (open("harm", "w").close(), x)[1]))  # noqa: PTH123
    layer |= code | {"config": code["config"] | {"name": layer["name"]}, "name": layer["name"]}


def _wide(layer: dict) -> None:
    layer["config"]["filters"] = 2**29


def _wide_recipe(good: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    recipe = json.loads(good[RECIPE])
    recipe["network"] |= {"filters": [2048] * 8, "dropout": [0.0] * 8, "encoder": "none"}
    return {RECIPE: json.dumps(recipe).encode()}


KERAS = {
    "external-link": (_weights(_external_link), "are a link"),
    "external-group": (_weights(_external_group), "are a link"),
    "soft-link": (_weights(_soft_link), "are a link"),
    "virtual": (_weights(_virtual), "are in another file"),
    "external": (_weights(_external), "are in another file"),
    "terabytes": (_weights(_claim(2**20, 2**20)), "claim 4,398,046,511,104 bytes"),
    "gigabytes": (_weights(_claim(900, 2**20)), "claim 3,774,873,600 bytes"),
    "nan": (_weights(_filled(np.nan)), "are infinite or not a number"),
    "infinite": (_weights(_filled(np.inf)), "are infinite or not a number"),
    "one-number": (
        _weights(lambda file, name, *_: file.create_dataset(name, data=1.0)),
        "not a model that can be loaded",
    ),
    "text": (_weights(_other("text")), "not a model that can be loaded"),
    "lambda": (_layer("Rescaling", _lambda), "its layers are not those of its recipe"),
    "wide-layer": (_layer("Conv2D", _wide), "its layers are not those of its recipe"),
    "wide-recipe": (_wide_recipe, "a far larger network"),
    "deep-config": (lambda good, folder: {CONFIG: b"[" * 10**6}, "not a model that can be loaded"),
    "deep-recipe": (lambda good, folder: {RECIPE: b"[" * 2**19}, "its recipe cannot be read"),
    "packed-config": (lambda good, folder: {CONFIG: BOMB}, "unpack to"),
    "packed-recipe": (lambda good, folder: {RECIPE: BOMB}, "unpack to"),
    "packed-weights": (lambda good, folder: {WEIGHTS: BOMB}, "unpack to"),
    "up": (lambda good, folder: {"../escaped": b"", "assets/../../escaped": b""}, "not a model that can be loaded"),
    "absolute": (lambda good, folder: {str(folder.parent / "escaped"): b""}, "not a model that can be loaded"),
}


def _kernel(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(part for part in model.graph.initializer if part.name.endswith("/kernel"))


def _elsewhere(place: str):
    """Return a change that takes a kernel from a file; `FOLDER` in its name is where the models are."""

    def change(model: onnx.ModelProto, folder: Path) -> None:
        kernel = _kernel(model)
        (folder / "elsewhere.bin").write_bytes(kernel.raw_data)
        fields = {"location": place.replace("FOLDER", str(folder)), "offset": "0", "length": str(len(kernel.raw_data))}
        kernel.ClearField("raw_data")
        kernel.data_location = onnx.TensorProto.EXTERNAL
        for key, value in fields.items():
            kernel.external_data.add(key=key, value=value)

    return change


def _numbers(number: float):
    def change(model: onnx.ModelProto, folder: Path) -> None:
        kernel = _kernel(model)
        kernel.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(kernel), number), kernel.name))

    return change


def _huge(model: onnx.ModelProto, folder: Path) -> None:
    kernel = _kernel(model)
    del kernel.dims[:]
    kernel.dims.extend([2**20, 2**20, 3, 3])


def _operator(model: onnx.ModelProto, folder: Path) -> None:
    model.graph.node[0].domain, model.graph.node[0].op_type = "elsewhere", "Shell"
    model.opset_import.append(helper.make_opsetid("elsewhere", 1))


def _other_output(model: onnx.ModelProto, folder: Path) -> None:
    model.graph.node.append(helper.make_node("Identity", [OUTPUT], ["other"]))
    model.graph.output[0].name = "other"


def _card(change: Callable[[dict], dict | str]):
    def changed(model: onnx.ModelProto, folder: Path) -> None:
        (entry,) = (entry for entry in model.metadata_props if entry.key == CARD)
        card = change(json.loads(entry.value))
        entry.value = card if isinstance(card, str) else json.dumps(card)

    return changed


def _wide_card(card: dict) -> dict:
    network = card["recipe"]["network"] | {"filters": [2048] * 8, "dropout": [0.0] * 8, "encoder": "none"}
    return card | {"recipe": card["recipe"] | {"network": network}}


ONNX = {
    "beside": (_elsewhere("elsewhere.bin"), "not an ONNX file that can be loaded"),
    "absolute": (_elsewhere("FOLDER/elsewhere.bin"), "not an ONNX file that can be loaded"),
    "up": (_elsewhere("../models-of-others/elsewhere.bin"), "not an ONNX file that can be loaded"),
    "passwords": (_elsewhere("/etc/passwd"), "not an ONNX file that can be loaded"),
    "terabytes": (_huge, "not an ONNX file that can be loaded"),
    "operator": (_operator, "not an ONNX file that can be loaded"),
    "other-output": (_other_output, "its network does not fit its recipe"),
    "nan": (_numbers(np.nan), "its maps are not numbers"),
    "infinite": (_numbers(np.inf), "its maps are not numbers"),
    "wide-card": (_card(_wide_card), "a far larger network"),
    "long-card": (_card(lambda card: card | {"licence": "x" * 2**24}), "larger than 1,048,576 bytes"),
    "deep-card": (_card(lambda card: "[" * 10**6), "what it says about itself (cannot be read|is larger)"),
    "terminal": (_card(lambda card: card | {"\x1b]0;pwned\x07\n": 1}), r"\(\\x1b\]0;pwned\\x07"),
}


class _Code:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return open, ("harm", "w")


def _replace(path: Path, member: str, data: bytes) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (members | {member: data}).items():
            archive.writestr(name, content)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def _claimed(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**43,)})
    _replace(path, "variable0.npy", header.getvalue())


# Changes of the state that a stopped training keeps.
STATES: dict[str, Callable[[Path], None]] = {
    "code": lambda path: _replace(path, "state.npy", _npy(np.array([_Code()], object))),
    "terabytes": _claimed,
    "no-object": lambda path: _replace(path, "state.npy", _npy(np.array("[]"))),
    "no-epoch": lambda path: _replace(path, "state.npy", _npy(np.array('{"best_weights": 0}'))),
    "deep": lambda path: _replace(path, "state.npy", _npy(np.array("[" * 10**5))),
    "other-shape": lambda path: _replace(path, "variable0.npy", _npy(np.zeros((2, 2, 2, 2, 2), np.float32))),
}


def main() -> None:
    """Run a command of nuclei-unet for each file; `MODEL` in it stands for the file."""
    import tensorflow  # noqa: F401  (its size is not that of the first model)

    split = sys.argv.index("--")
    command, files = sys.argv[1:split], sys.argv[split + 1 :]
    for file in files:
        # Sets the peak to what is in use (Linux).
        Path("/proc/self/clear_refs").write_text("5")
        started, before, code = time.monotonic(), _peak(), "none"
        with contextlib.redirect_stderr(io.StringIO()) as error, contextlib.redirect_stdout(io.StringIO()):
            try:
                nuclei_unet([file if part == "MODEL" else part for part in command])
            except SystemExit as stopped:
                code = stopped.code
            except Exception as unexpected:
                code = repr(unexpected)
        told = {"code": code, "said": error.getvalue(), "seconds": time.monotonic() - started, "MB": _peak() - before}
        print(json.dumps({"file": file, **told}), flush=True)


def _peak() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1e3


if __name__ == "__main__":
    main()
