"""What label images need to know of the images that they belong to, and that formats of outlines do not say."""

from pathlib import Path

from nuclei_unet.errors import InputError
from nuclei_unet.formats.imagefile import without_suffix
from nuclei_unet.formats.reading import find_images, open_images


def image_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return name -> file, and its path in the folder, of all images; a name is that path with and without suffix."""
    found: dict[str, tuple[Path, str]] = {}
    for file, relative in find_images([str(folder)]):
        for name in (relative, relative.with_suffix(""), without_suffix(relative)):
            found[name.as_posix()] = file, relative.as_posix()
    return found


def size_of(name: str, files: dict[str, tuple[Path, str]], folder: Path) -> tuple[int, int]:
    """Return height and width of an image in `image_files(folder)`. Raises InputError if they are not known."""
    if name not in files:
        raise InputError(f"{name}: no image of that name in {folder}")
    sizes = {(image.sizes["Y"], image.sizes["X"]) for image in open_images(files[name][0])}
    if len(sizes) != 1:
        raise InputError(f"{files[name][0]}: holds images of {len(sizes)} sizes; give --shape")
    return sizes.pop()


def pixel_size_of(file: Path) -> float | None:
    """Return micrometres per pixel of a label image's own file; None if it does not say."""
    images = open_images(file)
    return images[0].pixel_size if images else None
