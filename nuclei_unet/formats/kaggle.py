"""The layout of the 2018 Data Science Bowl (BBBC038): run lengths in a CSV, or one PNG per nucleus.

The CSV has the columns of stage1_solution.csv that say something about nuclei, and one more: `Label`, the number that a
nucleus has in every other file. A folder of masks is `ID/masks/*.png`, beside `ID/images/ID.png`.
"""

import csv
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file, fresh_folder
from nuclei_unet.formats import png
from nuclei_unet.formats.label_image import MAX_LABEL, MAX_PIXELS, check_size, checked
from nuclei_unet.formats.run_lengths import encode_labels, pixels_of, whole_numbers

COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width")


def write_csv(path: Path, images: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write label images, (ImageId, integer (H, W)) each, as run lengths: one row per nucleus.

    An image without nuclei has one row without a code.
    """
    with fresh_file(path) as target, target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*COLUMNS, "Label"])
        for name, labels in images:
            codes = encode_labels(checked(labels, name)) or {0: ""}
            writer.writerows((name, code, *labels.shape, label) for label, code in codes.items())


def read_csv(path: Path) -> dict[str, Callable[[], np.ndarray]]:
    """Read a CSV of run lengths.

    A pixel of two nuclei goes to the earlier row. A row with an empty code means an image without nuclei.

    Returns ImageId -> a function that returns its label image, uint16 or uint32 (H, W), 0 = background. The numbers are
    those of the column `Label`; without it, 1, 2 ... in the order of an image's rows. Raises InputError that names
    file, line and fault; the functions raise it for wrong codes and labels.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            images = _rows_by_image(file, path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV table: {' '.join(str(error).split())}") from None
    return {name: partial(_paint, shape, rows) for name, (shape, rows) in images.items()}


# One row: where it stands, its code, its label.
Row = tuple[str, str, str | None]


def _rows_by_image(file: Iterable[str], path: Path) -> dict[str, tuple[tuple[int, int], list[Row]]]:
    # A nucleus of a large image has a code of any length.
    csv.field_size_limit(2**31 - 1)
    table = csv.DictReader(file, restkey="beyond", strict=True)
    names = table.fieldnames or []
    if missing := [column for column in COLUMNS if column not in names]:
        raise InputError(f"{path}: column {', '.join(missing)} is missing; found {', '.join(names)[:200]}")
    images: dict[str, tuple[tuple[int, int], list[Row]]] = {}
    for row in table:
        where = f"{path}, line {table.line_num}"
        if "beyond" in row or None in row.values():
            raise InputError(f"{where}: has not the {len(names)} columns of the first line")
        height, width = (_number(row[column], f"{where}, {column}", MAX_PIXELS) for column in ("Height", "Width"))
        check_size((height, width), where)
        if not row["ImageId"]:
            raise InputError(f"{where}: ImageId is empty")
        shape, rows = images.setdefault(row["ImageId"], ((height, width), []))
        if shape != (height, width):
            raise InputError(f"{where}: {(height, width)} pixels, but {shape} in an earlier row of this image")
        rows.append((where, row["EncodedPixels"], row.get("Label")))
    return images


def _number(text: str, where: str, largest: int) -> int:
    number = int(whole_numbers([text], where)[0])
    if not 1 <= number <= largest:
        raise InputError(f"{where}: {number} is outside 1 to {largest:,}")
    return number


def _paint(shape: tuple[int, int], rows: list[Row]) -> np.ndarray:
    flat = np.zeros(shape[0] * shape[1], np.uint16)  # column-major, as the code counts
    count = 0
    for where, code, number in rows:
        pixels = pixels_of(code, flat.size, where)
        if pixels.size == 0:
            continue
        count += 1
        label = count if number is None else _number(number, f"{where}, Label", MAX_LABEL)
        if label > np.iinfo(flat.dtype).max:
            flat = flat.astype(np.uint32)
        flat[pixels[flat[pixels] == 0]] = label
    return np.ascontiguousarray(flat.reshape(shape[::-1]).T)


def write(path: Path, labels: np.ndarray) -> None:
    """Write a label image, integer (H, W), to the folder `path`: NUMBER.png, white on black, for each nucleus."""
    labels = checked(labels, str(path))
    numbers = np.unique(labels)
    digits = max(len(str(numbers[-1])), 4)
    with fresh_folder(path) as masks:
        # Without any nucleus, a black 0000.png says how large the image is.
        for number in numbers[numbers > 0].tolist() or [0]:
            mask = ((labels == number) & (labels > 0)).view(np.uint8) * np.uint8(255)
            (masks / f"{number:0{digits}}.png").write_bytes(cv2.imencode(".png", mask)[1].tobytes())


def read_masks(folder: Path) -> np.ndarray:
    """Merge the masks of one image, all PNGs in `folder/masks`, into a label image.

    Mask pixels above half of the dtype's range are nucleus, so grey edges do not enlarge it. A pixel of two masks
    goes to the first by name.

    The labels are uint16 or uint32 (H, W), 0 = background: the masks' names if all are whole numbers, as `write`
    gives them, otherwise 1, 2 ... in the order of names. Raises InputError for no masks, a damaged one, or masks of
    several sizes.
    """
    files = sorted((folder / "masks").glob("*.png"))
    if not files:
        raise InputError(f"{folder}: no masks; there should be {folder.name}/masks/*.png, one for each nucleus")
    numbers = [int(file.stem) if file.stem.isascii() and file.stem.isdigit() else -1 for file in files]
    named = len(set(numbers)) == len(files) and min(numbers) >= 0 and max(numbers) <= MAX_LABEL
    labels = None
    for number, file in zip(numbers if named else range(1, len(files) + 1), files, strict=True):
        mask = png.decode(file.read_bytes(), str(file))
        mask = mask if mask.ndim == 2 else mask[..., :3].max(axis=2)
        if labels is None:
            labels = np.zeros(mask.shape, np.uint32)
        if mask.shape != labels.shape:
            raise InputError(f"{file}: {mask.shape} pixels, but {files[0].name} has {labels.shape}")
        inside = mask > np.iinfo(mask.dtype).max // 2
        if number == 0 and inside.any():
            raise InputError(f"{file}: 0 is the background; give the nucleus another number")
        labels[inside & (labels == 0)] = number
    return checked(labels, str(folder))
