"""COCO: one JSON for many images, with a mask for each nucleus.

COCO's polygons cannot hold holes, so masks are written as run lengths, in the compressed form that pycocotools takes
everywhere. Source of the code: cocoapi, common/maskApi.c (rleToString, rleFrString). A nucleus' number in other files
is the extra key `label` of its annotation.
"""

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.formats.geometry import rasterise, ring_of
from nuclei_unet.formats.label_image import MAX_LABEL, check_size, checked, read_json
from nuclei_unet.formats.run_lengths import ranges, runs_of

MAX_BYTES = 2**32
# Characters for a number: five bits each, and no image has more than 2 ** 31 pixels.
LONGEST = 7


def write(path: Path, images: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write the label images of many images, (file name, integer (H, W)) each, as one COCO file, .json.

    One image at a time is in memory.
    """
    entries, number = [], 0
    with fresh_file(path) as target, target.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"info": {"description": "nuclei-unet"}, "licenses": [],\n')
        file.write('"categories": [{"id": 1, "name": "nucleus", "supercategory": "nucleus"}],\n"annotations": [')
        for image_id, (name, labels) in enumerate(images, start=1):
            labels = checked(labels, name)
            height, width = labels.shape
            entries.append({"id": image_id, "file_name": name, "width": width, "height": height})
            for annotation in annotations(labels):
                file.write("\n" if number == 0 else ",\n")
                number += 1
                file.write(json.dumps({"id": number, "image_id": image_id, **annotation}))
        file.write('],\n"images": [\n' if entries else '],\n"images": [')
        file.write(",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries) + "]}\n")


def annotations(labels: np.ndarray) -> list[dict]:
    """Return the annotations of one label image (H, W), without ids: mask, area and box in pixels, and label."""
    height, width = labels.shape
    described = []
    for label, starts, lengths in runs_of(labels):
        ends = starts + lengths
        # Background and nucleus in turn; the background after the last run is left out if there is none.
        counts = np.diff(np.stack([starts, ends], axis=1).ravel(), prepend=0, append=height * width)
        counts = counts if counts[-1] else counts[:-1]
        left, right = starts[0] // height, (ends[-1] - 1) // height
        # A run that goes on in the next column touches the lower and the upper border.
        wraps = bool(np.any(starts // height != (ends - 1) // height))
        top = 0 if wraps else int((starts % height).min())
        bottom = height if wraps else int(((ends - 1) % height).max()) + 1
        described.append(
            {
                "category_id": 1,
                "segmentation": {"size": [height, width], "counts": compress(counts)},
                "area": int(lengths.sum()),
                "bbox": [int(left), top, int(right - left) + 1, bottom - top],
                "iscrowd": 0,
                "label": label,
            }
        )
    return described


def compress(counts: np.ndarray) -> str:
    """Return COCO's code of run lengths: the difference to the last but one, five bits a character, lowest first."""
    numbers = np.concatenate([counts[:3], counts[3:] - counts[1:-2]]).astype(np.int64)
    code = np.zeros((len(numbers), LONGEST), np.uint8)
    used = np.zeros(code.shape, bool)
    more = np.ones(len(numbers), bool)
    for place in range(LONGEST):
        used[:, place] = more
        bits = numbers & 31
        numbers >>= 5
        # The fifth bit of the last character is the sign.
        more = more & (numbers != np.where(bits & 16, -1, 0))
        code[:, place] = bits + 32 * more + 48
    return code[used].tobytes().decode("ascii")


def decompress(code: str) -> np.ndarray:
    """Return the run lengths, int64, of COCO's code. Raises ValueError if it is malformed."""
    bits = np.frombuffer(code.encode("ascii"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(bits & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if not bits.size or bits.min() < 0 or bits.max() > 63 or ends.size == 0 or ends[-1] != len(bits) - 1:
        raise ValueError("not a run-length code")
    if lengths.max() > LONGEST:
        raise ValueError("a run is too long")
    place = np.arange(len(bits)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((bits & 31) << (5 * place), starts)
    numbers -= np.where(bits[ends] & 16, 1 << (5 * lengths), 0)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def read(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Read a COCO file, of this or of any other program.

    All categories are nuclei. Masks may be run lengths, compressed or not, or polygons; of a polygon, a nucleus has the
    pixels whose centres lie inside. A pixel of two nuclei goes to the first.

    Returns file name -> a function that returns its label image, uint16 or uint32 (H, W). If all annotations of an
    image have the extra key `label`, with different whole numbers, these are the labels; otherwise 1, 2 ... in the
    order of the file. Raises InputError if it is not COCO; the functions raise it for wrong masks.
    """
    content = read_json(path, MAX_BYTES)
    try:
        shapes = {image["id"]: (int(image["height"]), int(image["width"])) for image in content["images"]}
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        by_image: dict[Any, list[dict]] = {image_id: [] for image_id in names}
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"{path}: not COCO with images and annotations ({said})") from None
    if len(set(names.values())) < len(content["images"]):
        raise InputError(f"{path}: two images have the same id or the same file_name")
    for image_id, name in names.items():
        check_size(shapes[image_id], f"{path}, image {name}")
    return {
        name: partial(_paint, shapes[image_id], by_image[image_id], f"{path}, image {name}")
        for image_id, name in names.items()
    }


def _paint(shape: tuple[int, int], annotated: list[dict], where: str) -> np.ndarray:
    numbers: list[Any] = [annotation.get("label") for annotation in annotated]
    own = all(type(number) is int and 0 < number <= MAX_LABEL for number in numbers)
    if not own or len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(annotated) + 1))
    flat = np.zeros(shape[0] * shape[1], np.uint32)  # column-major, as the code counts
    for number, annotation in zip(numbers, annotated, strict=True):
        pixels = _pixels(annotation.get("segmentation"), shape, f"{where}, annotation {annotation.get('id')}")
        flat[pixels[flat[pixels] == 0]] = number
    return checked(flat.reshape(shape[::-1]).T, where)


def _pixels(mask: Any, shape: tuple[int, int], where: str) -> np.ndarray:
    """Return the numbers, from 0 and down the columns, of a mask's pixels."""
    if isinstance(mask, list) and mask and all(isinstance(ring, list) and len(ring) % 2 == 0 for ring in mask):
        return _inside([ring_of(list(zip(ring[::2], ring[1::2], strict=True)), where) for ring in mask], shape)
    try:
        code, size = mask["counts"], mask["size"]
        counts = decompress(code) if isinstance(code, str) else np.array(code, np.int64)
        fits = counts.ndim == 1 and counts.min() >= 0 and counts.max() <= shape[0] * shape[1]
        fits = fits and size == list(shape) and counts.sum() == shape[0] * shape[1]
    except (KeyError, TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise InputError(f"{where}: no mask that fits an image of {shape[0]} x {shape[1]} pixels")
    ends = np.cumsum(counts)
    return ranges(ends[:-1:2], counts[1::2])


def _inside(rings: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    # Only the box around the polygons is drawn.
    corners = np.concatenate(rings)
    left, top = np.clip(np.floor(corners.min(axis=0)), 0, shape[::-1]).astype(int)
    right, bottom = np.clip(np.ceil(corners.max(axis=0)), 0, shape[::-1]).astype(int)
    box = rasterise({1: [[ring - (left, top)] for ring in rings]}, (max(bottom - top, 0), max(right - left, 0)))
    rows, columns = np.nonzero(box)
    return (columns + left) * shape[0] + rows + top
