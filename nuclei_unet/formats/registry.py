"""All formats of label images: what they are called, who reads and writes them, and where they are found.

A module of a format has two functions. For one file an image: `read(path) -> labels`, with `shape=None` behind if the
format does not say how large the image is, and `write(path, labels)`, with what else it takes. For one file for all
images: `read(path) -> {name: function that returns the labels}` and `write(path, [(name, labels), ...])`.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.formats.imagefile import SUFFIXES, without_suffix
from nuclei_unet.formats.zarr_images import is_zarr


@dataclass(frozen=True)
class Format:
    """A format of label images. Its module is imported when it is used: together they would take half a second."""

    name: str
    # Of what is written: behind an image's name; for one file for all images, what a run calls it.
    ending: str
    reader: str = ""  # module and function, such as coco.read; empty if the format is only written
    writer: str = ""
    takes: tuple[str, ...] = ()  # what else the writer can use: pixel_size, image, channels, measurements
    together: bool = False  # one file holds all images
    needs_shape: bool = False  # the format does not say how large an image is
    endings: tuple[str, ...] = ()  # of files that are read, the longest first
    telling: tuple[str, ...] = ()  # those of them that no other files have, if not all: they tell what a folder holds
    needs: str = ""  # the extra of a package that is not always installed

    def write(self, folder: Path, name: str, labels: np.ndarray, **known) -> None:
        """Write one image's labels (H, W) to `folder`; of what is `known`, the format takes what it can hold."""
        taken = {key: known[key] for key in self.takes if key in known}
        _function(self.writer)(folder / f"{name}{self.ending}", labels, **taken)

    def write_all(self, path: Path, images: Iterable[tuple[str, np.ndarray]]) -> None:
        """Write all images to one file; one at a time is in memory."""
        _function(self.writer)(path, images)

    def is_one(self, path: Path, surely: bool = False) -> bool:
        """Tell whether a path may be a file, or folder, of this format by its name; or surely is."""
        if self.name == "kaggle":
            return (path / "masks").is_dir()
        if self.name == "ome-zarr":
            return is_zarr(path)
        return path.name.lower().endswith((surely and self.telling) or self.endings) and path.is_file()


TIFF = (".tif", ".tiff", ".png")
# In the order in which they are listed.
FORMATS = {
    one.name: one
    for one in (
        Format("tiff", "_labels.tif", "label_tiff.read_labels", "label_tiff.write_labels", ("pixel_size",),
               endings=TIFF),
        Format("kaggle", "/masks", "kaggle.read_masks", "kaggle.write"),
        Format("geojson", ".geojson", "geojson.read", "geojson.write", ("measurements",), needs_shape=True,
               endings=(".geojson", ".json"), telling=(".geojson",)),
        Format("rois", "_rois.zip", "rois.read", "rois.write", needs_shape=True,
               endings=("_rois.zip", ".zip", ".roi"), telling=("_rois.zip", ".roi")),
        Format("ome-zarr", ".ome.zarr", "zarr_labels.read", "zarr_labels.write", ("pixel_size", "channels"),
               endings=(".ome.zarr", ".zarr"), needs="zarr"),
        Format("overlay", "_overlay.png", "", "overlay.write", ("image",)),
        Format("rle", "nuclei_rle.csv", "kaggle.read_csv", "kaggle.write_csv", together=True, endings=(".csv",)),
        Format("coco", "coco.json", "coco.read", "coco.write", together=True),
        # A table of the nuclei; who has the measurements writes it.
        Format("parquet", "measurements.parquet", together=True, needs="parquet"),
    )
}  # fmt: skip
READ = tuple(name for name, one in FORMATS.items() if one.reader)
PACKAGES = {"zarr": "zarr", "parquet": "pyarrow"}  # of extras
# What tools put behind an image's name: Cellpose _cp_masks, QuPath -labels, others _label, _mask, _seg ...
BEHIND = re.compile(r"(?<=.)[-_. ](cp_masks|labels?|labell?ed|masks?|seg|segmentation|instances?)$", re.IGNORECASE)


def _function(name: str) -> Callable:
    module, function = name.split(".")
    return getattr(import_module(f"nuclei_unet.formats.{module}"), function)


@dataclass(frozen=True)
class LabelSource:
    """A label image that can be read."""

    read: Callable[..., np.ndarray]
    needs_shape: bool = False
    file: Path | None = None  # that may know the pixel size
    title: str = ""  # what a file of all images calls this one: often its file's name, with the suffix

    def load(self, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Return the labels, uint16 or uint32 (H, W). Raises InputError if they cannot be read.

        `shape` is only used if the format does not say it; without one, the image is the smallest that holds all.
        """
        return self.read(shape) if self.needs_shape else self.read()


def check_writable(names: Sequence[str]) -> None:
    """Raise InputError if a format is unknown, or needs a package that is not installed."""
    for name in names:
        if name not in FORMATS:
            raise InputError(f"{name}: not a format; choose from {', '.join(FORMATS)}")
        extra = FORMATS[name].needs
        if extra and not find_spec(PACKAGES[extra]):
            raise InputError(f"{name}: needs {PACKAGES[extra]}; pip install 'nuclei-unet[{extra}]'")


def find_labels(path: Path, origin: str | None = None) -> dict[str, LabelSource]:
    """Return the label images of a file, or of all files in a folder and its subfolders, in the order of their names.

    `path` is for `tiff` (TIFF or PNG), `geojson`, `rois` and `ome-zarr` a file or a folder of them; for `kaggle` a
    folder of NAME/masks/*.png, or one NAME; for `rle` and `coco` a file. `origin` is the format, one of READ; None:
    what the files look like. An image's name is the path in the folder without endings: suffixes, `_rois.zip`, and of
    label images `_labels`, `_cp_masks` and the like. Beside a label image with such an ending, others that start with
    the same name, pictures of outlines for one, are left out.

    Raises InputError for no such file, no or several formats, nothing there, a file for all images that cannot be read,
    or two files for one image.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    origin = origin or guess(path)
    one = FORMATS[origin]
    read = _function(one.reader)
    if one.together:
        titles = read(path)
        endings = {title: PurePosixPath(title).suffix for title in titles}
        names = [title.removesuffix(end) if end.lower() in SUFFIXES else title for title, end in endings.items()]
        # a.png and a.tif keep their endings.
        names = names if len(set(names)) == len(names) else list(titles)
        items = [(name, LabelSource(titles[title], title=title)) for name, title in zip(names, titles, strict=True)]
    elif origin == "tiff":
        groups = _label_files(path) if path.is_dir() else {BEHIND.sub("", without_suffix(path).name): [path]}
        items = [(name, LabelSource(partial(_only, read, name, same), file=same[0])) for name, same in groups.items()]
    else:
        single = one.is_one(path)
        root = path.parent if single else path
        items = []
        for file in [path] if single else filter(one.is_one, _below(path)):
            name = file.relative_to(root).as_posix()
            ending = next((ending for ending in one.endings if name.lower().endswith(ending)), "")
            source = LabelSource(partial(read, file), one.needs_shape, file if origin == "ome-zarr" else None)
            items.append((name[: len(name) - len(ending)], source))
    names = [name for name, _ in items]
    if not names:
        raise InputError(f"{path}: no label images of the format {origin}")
    if twice := [name for name in names if names.count(name) > 1][:1]:
        raise InputError(f"{path}: holds two images called {twice[0]}; rename one")
    return dict(sorted(items))


def guess(path: Path) -> str:
    """Return the format of a file or of the files in a folder. Raises InputError if that is not clear."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if path.is_dir():
        names = _formats_in(path)
        if len(names) == 1:
            return names[0]
        what = f"files of several formats ({', '.join(names)})" if names else "no files of a format that is read"
        raise InputError(f"{path}: holds {what}; say which format it is")
    if path.suffix.lower() == ".json":
        with path.open("rb") as file:
            return "geojson" if b'"Feature' in file.read(4096) else "coco"
    for name in READ:
        if FORMATS[name].endings and FORMATS[name].is_one(path):
            return name
    raise InputError(f"{path}: not a format that is known by its ending; say which it is")


def _formats_in(folder: Path) -> list[str]:
    if is_zarr(folder):
        return ["ome-zarr"]
    paths = [folder, *_below(folder)]
    if any(map(FORMATS["kaggle"].is_one, paths)):
        return ["kaggle"]  # its pictures are no label images
    if any(BEHIND.search(without_suffix(path).name) for path in paths if FORMATS["tiff"].is_one(path)):
        return ["tiff"]  # other files beside label images that are called so show or tell the same nuclei
    each = [one for one in FORMATS.values() if one.endings and not one.together]
    return [one.name for one in each if any(one.is_one(path, surely=True) for path in paths)]


def _below(folder: Path) -> Iterator[Path]:
    """Yield all files and folders below `folder`, sorted in each; no hidden ones, and none in Zarrs."""
    for place, folders, files in os.walk(folder):
        names = sorted(name for name in (*folders, *files) if not name.startswith("."))
        yield from (Path(place, name) for name in names)
        folders[:] = [name for name in sorted(folders) if name in names and not is_zarr(Path(place, name))]


def _label_files(folder: Path) -> dict[str, list[Path]]:
    """Return the label images in a folder and its subfolders by the name of their image."""
    paths = sorted(filter(FORMATS["tiff"].is_one, _below(folder)))
    names = {path: without_suffix(path.relative_to(folder)).as_posix() for path in paths}
    with_ending = {BEHIND.sub("", name) for name in names.values() if BEHIND.search(name)}
    by_name: dict[str, list[Path]] = {}
    for path, name in names.items():
        # A name, and what stands before each - _ . or space in it.
        beginnings = [name, *(name[: match.start()] for match in re.finditer("[-_. ]", name))]
        if BEHIND.search(name) or not with_ending.intersection(beginnings):
            by_name.setdefault(BEHIND.sub("", name), []).append(path)
    return by_name


def _only(read: Callable[[Path], np.ndarray], name: str, files: list[Path]) -> np.ndarray:
    if len(files) > 1:
        raise InputError(f"{name}: several label images, {', '.join(map(str, files))}; keep one")
    return read(files[0])
