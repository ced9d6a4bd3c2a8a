"""ONNX files that mean harm, made from a good one."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import helper

from nuclei_unet.network.metadata import KEY, OUTPUT

NOT_LOADED = "not an ONNX file that can be loaded"


def write(good: Path, folder: Path) -> dict[str, str]:
    """Write all files to a new folder; return {file name: regular expression of what has to be said about it}."""
    folder.mkdir()
    for name, (change, _) in HOSTILE.items():
        model = onnx.load_model(good)
        change(model)
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString())
    return {f"{name}.onnx": says for name, (_, says) in HOSTILE.items()}


def _kernel(model: onnx.ModelProto) -> onnx.TensorProto:
    return max(model.graph.initializer, key=lambda part: len(part.raw_data))


def _elsewhere(place: str):
    """Return a change that takes the largest kernel from a file."""

    def change(model: onnx.ModelProto) -> None:
        kernel = _kernel(model)
        fields = {"location": place, "offset": "0", "length": str(len(kernel.raw_data))}
        kernel.ClearField("raw_data")
        kernel.data_location = onnx.TensorProto.EXTERNAL
        for key, value in fields.items():
            kernel.external_data.add(key=key, value=value)

    return change


def _huge(model: onnx.ModelProto) -> None:
    _kernel(model).dims[0] = 2**40


def _other_output(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", [OUTPUT], ["other"]))
    model.graph.output[0].name = "other"


def _metadata(change: Callable[[dict], dict | str]):
    def changed(model: onnx.ModelProto) -> None:
        (entry,) = (entry for entry in model.metadata_props if entry.key == KEY)
        metadata = change(json.loads(entry.value))
        entry.value = metadata if isinstance(metadata, str) else json.dumps(metadata)

    return changed


def _wide(metadata: dict) -> dict:
    wide = {"filters": [2048] * 8, "dropout": [0.0] * 8, "encoder": "none"}
    return metadata | {"network": metadata["network"] | wide}


HOSTILE: dict[str, tuple[Callable[[onnx.ModelProto], None], str]] = {
    "beside": (_elsewhere("good.onnx"), NOT_LOADED),
    "passwords": (_elsewhere("/etc/passwd"), NOT_LOADED),
    "terabytes": (_huge, NOT_LOADED),
    "operator": (lambda model: setattr(model.graph.node[0], "op_type", "Shell"), NOT_LOADED),
    "other-output": (_other_output, "its network is not the one that it describes"),
    "wide": (_metadata(_wide), "a far larger network"),
    "long": (_metadata(lambda metadata: metadata | {"licence": "x" * 2**24}), "larger than 1,048,576 bytes"),
    "deep": (_metadata(lambda metadata: "[" * 10**6), "what it says about itself cannot be read"),
    "terminal": (_metadata(lambda metadata: metadata | {"\x1b]0;pwned\x07\n": 1}), r"\(\\x1b\]0;pwned\\x07"),
}
