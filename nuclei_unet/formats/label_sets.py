"""Sets of label images, as tools and data sets store them: a folder of files, a folder of masks, a CSV."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.formats import kaggle, label_tiff
from nuclei_unet.formats.imagefile import without_suffix

SUFFIXES = (".tif", ".tiff", ".png")
# What tools put behind an image's name: Cellpose _cp_masks, QuPath -labels, others _label, _mask, _seg ...
ENDING = re.compile(r"(?<=.)[-_. ](cp_masks|labels?|labell?ed|masks?|seg|segmentation|instances?)$", re.IGNORECASE)


def read_set(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Find the label images of a set; each is read when its function is called.

    Parameters
    ----------
    path : one of
        - a folder of label images, TIFF or PNG, also in subfolders. An image's name is the file's path in the folder
          without suffix and without an ending such as `_labels` or `_cp_masks`. Beside a file with such an ending,
          others that start with the same name are taken for the image, outlines and the like, and are left out.
        - a folder of Kaggle's layout, NAME/masks/*.png
        - a CSV of run lengths (see `kaggle.read_csv`)

    Returns
    -------
    Name -> a function that returns the label image, uint16 or uint32 (H, W), in the order of names. It raises
    InputError if the file is none, or if several files have that name.

    Raises
    ------
    InputError : no such path, a file that is no CSV, or nothing in the folder
    """
    if path.is_dir():
        folders = sorted(folder.parent for folder in path.glob("*/masks") if folder.is_dir())
        found = {folder.name: partial(kaggle.read_masks, folder) for folder in folders} or _files(path)
        if not found:
            raise InputError(f"{path}: holds no label images ({', '.join(SUFFIXES)}) and no NAME/masks/*.png")
    elif path.suffix.lower() == ".csv":
        found = kaggle.read_csv(path)
    else:
        fault = "neither a folder of label images nor a CSV of run lengths" if path.exists() else "no such folder"
        raise InputError(f"{path}: {fault}")
    return dict(sorted(found.items()))


def _files(folder: Path) -> dict[str, Callable[[], np.ndarray]]:
    return {name: partial(read_only, name, same) for name, same in label_files(folder).items()}


def label_files(folder: Path) -> dict[str, list[Path]]:
    """Return the label images in a folder and its subfolders, by the name of their image; see `read_set`."""
    files = {
        file: without_suffix(file.relative_to(folder)).as_posix()
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    }
    with_ending = {ENDING.sub("", name) for name in files.values() if ENDING.search(name)}
    by_name: dict[str, list[Path]] = {}
    for file, name in files.items():
        if ENDING.search(name) or not with_ending.intersection(_beginnings(name)):
            by_name.setdefault(ENDING.sub("", name), []).append(file)
    return by_name


def _beginnings(name: str) -> list[str]:
    """Return a name and what stands before each - _ . or space in it."""
    return [name, *(name[: match.start()] for match in re.finditer("[-_. ]", name))]


def read_only(name: str, files: list[Path]) -> np.ndarray:
    """Read the label image of that name. Raises InputError if there are several, or if it is none."""
    if len(files) > 1:
        raise InputError(f"{name}: several label images, {', '.join(map(str, files))}; keep one")
    return label_tiff.read_labels(files[0])
