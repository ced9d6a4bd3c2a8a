"""Where converted label images go, and what must not be overwritten there."""

from collections.abc import Iterable
from pathlib import Path

from nuclei_unet.errors import InputError

# What an image's file or folder is called in the formats that have one for each.
EACH = {"tiff": "_labels.tif", "kaggle": "/masks", "geojson": ".geojson", "rois": "_rois.zip", "ome-zarr": ".ome.zarr"}
# One file for all.
TOGETHER = ("rle", "coco")


def usable(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the names that can be those of files, on any system, and one line for each that cannot."""
    good: dict[str, str] = {}
    faults = []
    for name in names:
        if not name.isprintable() or set(name) & set('\\:*?"<>|') or {"", ".", ".."} & set(name.split("/")):
            faults.append(f"image {name!r}: cannot be the name of a file; rename it")
        # Many disks do not tell upper from lower case.
        elif (first := good.setdefault(name.casefold(), name)) != name:
            faults.append(f"image {name!r}: differs from {first!r} only in case; rename it")
    return list(good.values()), faults


def check_target(source: Path, origin: str, target: Path, to: str, names: Iterable[str], overwrite: bool) -> None:
    """Raise InputError if something would be overwritten that must not be: what exists, or ever the source itself.

    Parameters
    ----------
    source, target : what is converted, and where to
    origin, to : their formats
    names : of the images
    overwrite : whether what exists in the target may be replaced
    """
    if (to in EACH and target.is_file()) or (to in TOGETHER and target.is_dir()):
        raise InputError(f"{target}: is a {'file' if to in EACH else 'folder'}; {to} needs another TARGET")
    outputs = [target / f"{name}{EACH[to]}" for name in names] if to in EACH else [target]
    read = source.resolve()
    for output in outputs:
        path = output.resolve()
        if path == read or (to == origin and read in path.parents):
            raise InputError(f"{output}: would be written into what is converted, {source}; choose another TARGET")
    there = [output for output in outputs if output.exists()]
    if there and not overwrite:
        more = f", and {len(there) - 1} more" if len(there) > 1 else ""
        raise InputError(f"{there[0]}: exists{more}; --overwrite replaces it")
