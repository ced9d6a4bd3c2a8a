"""Find the images among what a user names, and open them: the content decides on the format."""

import glob
import os
import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path, PurePath

from PIL import Image

from nuclei_unet.errors import InputError
from nuclei_unet.formats.imagefile import SUFFIXES, ImageFile, clear_errors, without_suffix
from nuclei_unet.formats.pictures import open_picture
from nuclei_unet.formats.zarr_images import is_zarr, open_zarr

# Largest file that is read into memory whole: pictures.
LARGEST_PICTURE = 2**31


def open_images(path: Path, axes: str | None = None) -> list[ImageFile]:
    """Return the images of a file, or of an OME-Zarr folder, without reading their pixels.

    PNG, JPEG and BMP files are decoded at once. The content decides on the format, whatever the suffix. `axes` are a
    letter for each dimension larger than 1, such as ZYX, for TIFF files that do not say what their dimensions are, or
    say it wrongly. Plain 2-D and colour images are never in doubt and are read as they are; so are all formats but
    TIFF. A file of a multi-file OME-TIFF that does not hold its first plane has no image.

    Raises InputError: not an image, damaged, a library is missing, or the axes are not known; then it lists the
    choices.
    """
    if axes is not None:
        axes = axes.upper()
        if not set(axes) <= set("TCZYXS") or len(set(axes)) < len(axes) or not {"Y", "X"} <= set(axes):
            raise InputError(f"axes {axes}: give a letter of T, C, Z, Y, X and S for each dimension; Y and X always")
    if is_zarr(path):
        return open_zarr(path)
    with clear_errors(path):
        with path.open("rb") as file:
            start = file.read(16)
            size = os.fstat(file.fileno()).st_size
        if not size:
            raise InputError(f"{path}: the file is empty")
        kind = _kind(start)
        if kind is None:
            raise InputError(f"{path}: not an image that can be read: neither {_listed(', ', ' nor ')}")
        if kind == "tiff":
            from nuclei_unet.formats.tiff import open_tiff

            return open_tiff(path, axes)
        if kind in ("czi", "nd2", "lif"):
            from nuclei_unet.formats import vendor

            return getattr(vendor, f"open_{kind}")(path)
        if size > LARGEST_PICTURE:
            raise InputError(f"{path}: too large for a picture; larger images can be read as TIFF")
        return [open_picture(path)]


def _kind(start: bytes) -> str | None:
    """Tell a format from a file's first 16 bytes."""
    signatures = {
        "picture": (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"),
        # Byte order, then 42; BigTIFF has 43.
        "tiff": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        "czi": (b"ZISRAWFILE",),
        # The older one is a JPEG 2000.
        "nd2": (b"\xda\xce\xbe\x0a", b"\0\0\0\x0cjP  \r\n\x87\n"),
    }
    for kind, known in signatures.items():
        if start.startswith(known):
            return kind
    return "lif" if start[:4] == b"\x70\0\0\0" and start[8:9] == b"\x2a" else None


def find_images(inputs: Sequence[str]) -> list[tuple[Path, PurePath]]:
    """Return the images that files, folders and patterns name, each file once, in natural order (2 before 10).

    Folders are searched with all folders in them, but hidden files and folders (.name) are left out, and so are files
    whose suffix is not an image's. A pattern may have `*`, `?`, `[...]`, and `**` for folders at any depth; it names
    files, and like the shell's, no hidden ones. An OME-Zarr folder is one image.

    Each is a file and its path relative to the folder, to the part of the pattern before the first wildcard, or to the
    file's own folder. If two files would have the same, all are relative to their common folder. Raises InputError if
    an input does not exist, holds no image, or is a file with another suffix.
    """
    images: dict[Path, tuple[Path, PurePath]] = {}
    for given in inputs:
        path = Path(given)
        if path.is_file() or is_zarr(path):
            if path.suffix.lower() not in SUFFIXES and not path.is_dir():
                raise InputError(f"{path}: not an image that can be read; these are {_listed()}")
            items = [(path, PurePath(path.name))]
        elif path.is_dir():
            items = [(file, file.relative_to(path)) for file in _walk(path)]
        elif glob.has_magic(given):
            parts = Path(given).parts
            root = Path(*takewhile(lambda part: not glob.has_magic(part), parts))
            # Path.glob would find hidden files and, for **, no files.
            files = [Path(name) for name in glob.glob(given, recursive=True)]  # noqa: PTH207
            inside = {file for file in files if any(is_zarr(p) for p in file.parents if root in p.parents)}
            items = [(file, file.relative_to(root)) for file in files if _is_image(file) and file not in inside]
        else:
            raise InputError(f"{given}: no such file or folder")
        if not items:
            raise InputError(f"{given}: no image there; those that can be read are {_listed()}")
        for file, relative in items:
            images.setdefault(file.resolve(), (file, relative))
    if len({relative for _, relative in images.values()}) < len(images):
        common = os.path.commonpath([file.parent for file in images])
        images = {real: (file, PurePath(real.relative_to(common))) for real, (file, _) in images.items()}
    return sorted(images.values(), key=lambda item: (_natural(item[1].as_posix()), str(item[0])))


class Images:
    """What label images need to know of the images that they belong to: file names, and sizes if not all have one."""

    def __init__(self, folder: Path | None, size: tuple[int, int] | None = None) -> None:
        self.folder, self.size = folder, size
        self.files: dict[str, tuple[Path, str]] = {}
        for file, relative in find_images([str(folder)]) if folder else ():
            for name in (relative, relative.with_suffix(""), without_suffix(relative)):
                self.files[name.as_posix()] = file, relative.as_posix()

    def title(self, name: str) -> str:
        """Return the path of an image in the folder; empty if it is not there. Names may lack the suffix."""
        return self.files.get(name, ("", ""))[1]

    def shape(self, name: str) -> tuple[int, int] | None:
        """Return height and width; None without a folder. Raises InputError if the image is not there or not one."""
        if self.size or not self.folder:
            return self.size
        if name not in self.files:
            raise InputError(f"{name}: no image of that name in {self.folder}")
        path = self.files[name][0]
        if path.suffix.lower() in (".bmp", ".jpeg", ".jpg", ".png"):  # the header is enough
            with clear_errors(path), Image.open(path) as picture:
                return picture.height, picture.width
        sizes = {(image.sizes["Y"], image.sizes["X"]) for image in open_images(path)}
        if len(sizes) != 1:
            raise InputError(f"{path}: holds images of {len(sizes)} sizes; say which")
        return sizes.pop()


def _walk(folder: Path) -> list[Path]:
    files = []
    for place, folders, names in os.walk(folder):
        here = Path(place)
        images = [name for name in folders if is_zarr(here / name)]
        folders[:] = [name for name in folders if not name.startswith(".") and name not in images]
        files += [here / name for name in (*names, *images) if not name.startswith(".") and _is_image(here / name)]
    return files


def _is_image(path: Path) -> bool:
    if path.is_dir():
        return is_zarr(path)
    return path.suffix.lower() in SUFFIXES and path.suffix.lower() != ".zarr" and path.is_file()


def _natural(text: str) -> list:
    return [(int(part), "") if part.isdecimal() else (-1, part.casefold()) for part in re.split(r"(\d+)", text)]


def _listed(comma: str = ", ", last: str = " and ") -> str:
    return comma.join(SUFFIXES[:-1]) + last + SUFFIXES[-1]
