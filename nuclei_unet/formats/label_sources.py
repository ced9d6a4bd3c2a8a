"""Find label images in the files of any format that is read, by the names of their images."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.formats import coco, geojson, kaggle, reading, rois, zarr_labels
from nuclei_unet.formats.imagefile import without_suffix
from nuclei_unet.formats.label_sets import ENDING, SUFFIXES, label_files, read_only
from nuclei_unet.formats.zarr_images import is_zarr

# What files of outlines are called, longest ending first.
ENDINGS = {"geojson": (".geojson", ".json"), "rois": ("_rois.zip", ".zip", ".roi"), "ome-zarr": (".ome.zarr", ".zarr")}
# What a folder holds if it has files with these endings; general ones, such as .zip, say nothing.
TELLING = {"geojson": (".geojson",), "rois": ("_rois.zip", ".roi"), "tiff": SUFFIXES}


@dataclass(frozen=True)
class Source:
    """A label image that can be read."""

    load: Callable[..., np.ndarray]
    """Returns the label image; takes its shape, or None, if `needs_shape`."""
    needs_shape: bool = False
    file: Path | None = None
    """The file that may know the pixel size."""
    title: str = ""
    """What COCO calls the image: its file's name."""


def guess(path: Path) -> str:
    """Return the format of a file or of the files in a folder. Raises InputError if that is not clear."""
    if path.is_dir():
        found = ["ome-zarr"] if is_zarr(path) else _kinds(path)
        if len(found) == 1:
            return found[0]
        what = f"files of several formats ({', '.join(found)})" if found else "no files of a format that is read"
        raise InputError(f"{path}: holds {what}; say which with --from")
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".json":
        with path.open("rb") as file:
            return "geojson" if b'"Feature' in file.read(4096) else "coco"
    by_suffix = dict.fromkeys(SUFFIXES, "tiff") | {".csv": "rle", ".geojson": "geojson", ".zip": "rois", ".roi": "rois"}
    if suffix not in by_suffix:
        raise InputError(f"{path}: not a format that is known by its ending; say which with --from")
    return by_suffix[suffix]


def _kinds(folder: Path) -> list[str]:
    if _walk(folder, _is_masks):
        return ["kaggle"]  # its pictures are no label images
    zarrs = ["ome-zarr"] if _walk(folder, is_zarr) else []
    return zarrs + [
        kind
        for kind, endings in TELLING.items()
        if _walk(folder, lambda path, endings=endings: path.name.lower().endswith(endings) and path.is_file())
    ]


def _walk(folder: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """Return the files and folders below `folder` that are wanted, sorted; no hidden ones, and none in Zarrs."""
    found = []
    for place, folders, files in os.walk(folder):
        here = Path(place)
        names = [name for name in (*folders, *files) if not name.startswith(".")]
        found += [here / name for name in names if wanted(here / name)]
        folders[:] = [name for name in folders if not name.startswith(".") and not is_zarr(here / name)]
    return sorted(found)


def find(path: Path, kind: str) -> dict[str, Source]:
    """Return the label images of a file, or of all files in a folder and its subfolders, in the order of their names.

    Parameters
    ----------
    path : what the format is: for `tiff` (TIFF or PNG), `geojson`, `rois` and `ome-zarr` a file or a folder of them;
        for `kaggle` a folder of NAME/masks/*.png, or one NAME; for `rle` and `coco` a file
    kind : one of these formats

    Raises
    ------
    InputError : no such file, nothing there, a file for all images that cannot be read, or two files for one image
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if kind == "rle":
        items = [(name, Source(load)) for name, load in kaggle.read_csv(path).items()]
    elif kind == "coco":
        images = coco.read(path)
        names = list(map(_image_name, images))
        # a.png and a.tif keep their endings.
        names = names if len(set(names)) == len(names) else list(images)
        items = [(name, Source(images[title], title=title)) for name, title in zip(names, images, strict=True)]
    elif kind == "tiff":
        files = label_files(path) if path.is_dir() else {ENDING.sub("", without_suffix(path).name): [path]}
        items = [(name, Source(partial(read_only, name, same), file=same[0])) for name, same in files.items()]
    elif kind == "kaggle":
        folders = [path / "masks"] if (path / "masks").is_dir() else _walk(path, _is_masks)
        root = path.parent if (path / "masks").is_dir() else path
        items = [
            (folder.parent.relative_to(root).as_posix(), Source(partial(kaggle.read_masks, folder.parent)))
            for folder in folders
        ]
    else:
        single = is_zarr(path) if kind == "ome-zarr" else path.is_file()
        root = path.parent if single else path
        files = [path] if single else _walk(path, partial(_is_one, kind))
        items = [(_name(file.relative_to(root).as_posix(), kind), _source(file, kind)) for file in files]
    names = [name for name, _ in items]
    if not names:
        raise InputError(f"{path}: no label images of the format {kind}")
    if twice := [name for name in names if names.count(name) > 1][:1]:
        raise InputError(f"{path}: holds two images called {twice[0]}; rename one")
    return dict(sorted(items))


def _is_masks(path: Path) -> bool:
    return path.name == "masks" and path.is_dir()


def _is_one(kind: str, path: Path) -> bool:
    if kind == "ome-zarr":
        return is_zarr(path)
    return path.name.lower().endswith(ENDINGS[kind]) and path.is_file()


def _name(name: str, kind: str) -> str:
    ending = next((ending for ending in ENDINGS[kind] if name.lower().endswith(ending)), "")
    return name.removesuffix(name[len(name) - len(ending) :]) if ending else name


def _image_name(file_name: str) -> str:
    path = PurePosixPath(file_name)
    return str(path.with_suffix("")) if path.suffix.lower() in reading.SUFFIXES else file_name


def _source(file: Path, kind: str) -> Source:
    if kind == "ome-zarr":
        return Source(partial(zarr_labels.read, file), file=file)
    return Source(partial({"geojson": geojson, "rois": rois}[kind].read, file), needs_shape=True)
