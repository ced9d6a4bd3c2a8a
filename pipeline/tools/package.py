"""Write the model as a package of the BioImage Model Zoo, to share it: `make package`.

    python -m pipeline.tools.package

Reads models/model.onnx, reports/, params.yaml, and images and labels in data/. Writes nuclei-unet.bioimageio.zip: the
description (rdf.yaml), the model, an image and its maps as test, cover pictures, README.md, LICENSE. The model computes
in floats: in eight bits, other programs would overflow on some CPUs, and find fewer nuclei. The package is read by
`nuclei-unet predict --model nuclei-unet.bioimageio.zip` and by programs that read such packages.
"""

import tempfile
import tomllib
from pathlib import Path

import cv2
import numpy as np

from nuclei_unet.files import file_digest, fresh_file
from nuclei_unet.network.metadata import INPUT, OUTPUT
from nuclei_unet.prediction import models
from nuclei_unet.prediction.engine import OnnxNetwork
from pipeline import layout, params, stage
from pipeline.dataset import archives
from pipeline.report import pictures
from pipeline.report.results import read_example, read_results
from pipeline.tools import release, zoo
from pipeline.visualize import near_median_by_type

LICENSE, PROJECT = Path("LICENSE"), Path("pyproject.toml")
OPSET = 17  # of nuclei-unet.onnx
COVERS = 3
# px; a pair of pictures this high stays below the 500 KB that the Zoo allows, even if it is all noise.
COVER_SIDE = 320
TEST_SIZE = 192, 256  # px at least; sides differ, so that exchanged axes are noticed


def main() -> None:
    """Write the package."""
    from nuclei_unet.network import onnx_file

    settings = params.load()
    results = read_results()
    test = results.per_image[results.per_image.split == "test"]
    examples = [read_example(row) for row in near_median_by_type(test, COVERS).itertuples()]
    with tempfile.TemporaryDirectory() as name, fresh_file(layout.PACKAGE) as target:
        folder = Path(name)
        model = folder / "nuclei-unet.onnx"
        release.copy_model(model)
        model.write_bytes(onnx_file.in_floats(model.read_bytes()))
        network = models.load(model, threads=1).network
        files = {OUTPUT: "test_maps.npy", INPUT: "test_image.npy", "documentation": "README.md"}
        files |= {"attachments": [LICENSE.name], "covers": [f"cover{n}.png" for n, _ in enumerate(examples, 1)]}
        write_test(folder / files[INPUT], folder / files[OUTPUT], network, examples[0].image)
        for cover, example in zip(files["covers"], examples, strict=True):
            write_cover(folder / cover, example)
        text = zoo.readme(network.metadata, results)
        (folder / files["documentation"]).write_text(text, encoding="utf-8")
        (folder / LICENSE.name).write_bytes(LICENSE.read_bytes())
        described = {
            key: [_file(folder, part) for part in value] if isinstance(value, list) else _file(folder, value)
            for key, value in files.items()
        }
        version = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"]
        described["weights"] = _file(folder, model.name) | {"opset_version": OPSET}
        text = zoo.description(network.metadata, settings.train, results, described, version)
        (folder / "rdf.yaml").write_text(text, encoding="utf-8")
        archives.write(target, {path.name: path.read_bytes() for path in folder.iterdir()})
    print(f"{layout.PACKAGE}: {layout.PACKAGE.stat().st_size / 1e6:.1f} MB, for the BioImage Model Zoo")


def write_test(image: Path, maps: Path, network: OnnxNetwork, pixels: np.ndarray) -> None:
    """Write a part of an image (H, W, 3), and its maps."""
    normalize, multiple = network.metadata.normalize, network.metadata.network.size_multiple
    height, width = (-(-side // multiple) * multiple for side in TEST_SIZE)
    missing = [(0, max(wanted - side, 0)) for wanted, side in zip((height, width), pixels.shape, strict=False)]
    pixels = np.pad(pixels, (*missing, (0, 0)), mode="symmetric")[:height, :width].astype(np.float32)
    array = pixels.mean(axis=2, keepdims=True)[None] if normalize.channels == 1 else pixels[None]
    np.save(image, array)
    np.save(maps, np.concatenate([*network(zoo.preprocess(array, normalize)).values()], axis=3))


def write_cover(path: Path, example: pictures.Example) -> None:
    """Write 256 px of an image beside the nuclei that were found in it, twice as wide as high."""
    part = pictures.crop(example, 256)
    image, truth, predicted, _ = pictures.shown(part, COVER_SIDE)
    pair = np.hstack([image, pictures.coloured(image, truth, predicted)])
    if not cv2.imwrite(str(path), pair[..., ::-1], (cv2.IMWRITE_PNG_COMPRESSION, 9)):
        raise OSError(f"cannot write {path}")


def _file(folder: Path, name: str) -> dict[str, str]:
    return {"source": name, "sha256": file_digest(folder / name)}


if __name__ == "__main__":
    stage.run(main, tensorflow=True)
