"""DVC stage: merge the masks (one per nucleus) of each image into a label image, and normalize images for the network.

    python -m pipeline.preprocess

Reads data/raw/ (stage1_train.zip, stage1_test.zip, stage1_solution.csv) and the `preprocess` section of params.yaml.
Writes data/processed/ (see `pipeline/dataset/processed.py`) and reports/data_audit.json: the faults
found in the data.
"""

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei_unet.batch import pool as workers
from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file, fresh_folder
from nuclei_unet.formats import kaggle
from nuclei_unet.images import normalize, to_rgb
from nuclei_unet.labels import renumber
from pipeline import layout, params, stage
from pipeline.dataset import archives, frames, processed
from pipeline.dataset.image_types import image_type_of
from pipeline.machine import cpus
from pipeline.params import FaultSettings, PreprocessSettings


@dataclass(frozen=True)
class Fault:
    """Something wrong in the data: its kind (a key of preprocess.on_fault), where, and what exactly."""

    fault: str
    image_id: str
    detail: str


@dataclass(frozen=True)
class Work:
    """What is the same for all images of an archive; paths are absolute, for workers on other machines."""

    archive: Path
    folder: Path
    settings: PreprocessSettings


@dataclass(frozen=True)
class Image:
    """What is kept in memory of one image after it was written; of its pixels, only the borders."""

    image_id: str
    image_type: str
    nuclei: int
    digest: str
    borders: frames.Borders


def main() -> None:
    """Write data/processed/ and reports/data_audit.json."""
    settings = params.load()
    solution = {name: read() for name, read in kaggle.read_csv(layout.SOLUTION).items()}
    with (
        fresh_folder(layout.PROCESSED) as folder,
        fresh_file(layout.AUDIT) as audit,
        workers.open_pool(scheduler=workers.address(settings.run.scheduler), threads=cpus()) as pool,
    ):
        train, train_faults = process(layout.TRAIN_ARCHIVE, folder, settings.preprocess, pool)
        test, test_faults = process(layout.TEST_ARCHIVE, folder, settings.preprocess, pool, solution)
        manifest = make_manifest(train, test, settings.preprocess)
        manifest.to_csv(folder / processed.MANIFEST, index=False, lineterminator="\n")
        summary = audit_of(settings.download.source, manifest, train_faults + test_faults, settings.preprocess.on_fault)
        audit.write_text(json.dumps(summary, indent=2) + "\n")
    for split, count in summary["images"].items():
        print(f"{split}: {count} images, {summary['nuclei'][split]} nuclei")
    if summary["faults"]:
        print(f"{len(summary['faults'])} faults in the data were skipped; {layout.AUDIT} names them")


def process(
    archive: Path,
    folder: Path,
    settings: PreprocessSettings,
    pool: workers.Pool,
    solution: dict[str, np.ndarray] | None = None,
) -> tuple[list[Image], list[Fault]]:
    """Read, check, normalise and write all images of a canonical zip, several at a time.

    `solution` holds label images by id for a zip without masks. Returns the images written, in the order of their
    ids, and the faults that were skipped; a fault that on_fault does not skip raises InputError.
    """
    masks = archives.mask_members(opened(archive.absolute()))
    if solution is not None and (wrong := sorted(set(masks) ^ set(solution))):
        raise InputError(f"{archive.parent}: {archive.name} and stage1_solution.csv do not agree on {wrong[0]}")
    tasks = ((image_id, solution[image_id] if solution else masks[image_id]) for image_id in masks)
    images, faults, by_digest = [], [], {}
    # On this machine threads: OpenCV takes most of the time and lets others run, and no thread is killed on its own.
    results = workers.in_order(pool.run(process_image, tasks, Work(archive.absolute(), folder.absolute(), settings)))
    bar = tqdm(results, archive.stem, len(masks), unit="image", disable=None)
    for image_id, result in zip(masks, bar, strict=True):
        if isinstance(result, workers.Lost):
            raise InputError(f"{archive}: image {image_id}: {result.reason}")
        image, its_faults = result
        if image is not None and image.digest in by_digest:
            twin = by_digest[image.digest]
            its_faults.append(Fault("duplicate_image", image.image_id, f"has the same pixels as {twin}"))
            for name in ("images", "labels"):
                (folder / name / f"{image.image_id}.png").unlink()
        elif image is not None:
            by_digest[image.digest] = image.image_id
            images.append(image)
        for fault in its_faults:
            if getattr(settings.on_fault, fault.fault) == "fail":
                raise InputError(
                    f"{archive}: image {fault.image_id}: {fault.detail}; fix it, or set "
                    f"preprocess.on_fault.{fault.fault} to skip to leave it out"
                )
        faults += its_faults
    return images, faults


def process_image(task: tuple[str, list[str] | np.ndarray], work: Work) -> tuple[Image | None, list[Fault]]:
    """Read, check, normalise and write one image; None if it has to be left out.

    `task` is its id, and its label image or the names of its masks in the zip.
    """
    image_id, truth = task
    workers.check_seen(work.folder)
    archive = opened(work.archive)
    folder, settings = work.folder, work.settings
    try:
        rgb = to_rgb(archives.read_image(archive, archives.image_member(image_id)))
    except InputError as error:
        return None, [Fault("unreadable_image", image_id, str(error))]
    labels, faults = truth, []
    if isinstance(truth, list):
        labels, faults = merge_masks(archive, truth, image_id, rgb.shape[:2])
    elif labels.shape != rgb.shape[:2]:
        shapes = f"the solution's size {labels.shape} is not the image's {rgb.shape[:2]}"
        return None, [Fault("mask_shape", image_id, shapes)]
    else:
        # A nucleus wholly under an earlier one leaves a gap in the solution's labels.
        labels = renumber(labels)
    nuclei = int(labels.max())
    if nuclei == 0:
        return None, [*faults, Fault("no_nuclei", image_id, "has no nucleus")]
    processed.write_sample(folder, image_id, normalize(rgb, settings), labels)
    image_type = image_type_of(rgb, median_area=float(np.median(np.bincount(labels.ravel())[1:])))
    digest = hashlib.sha256(repr(rgb.shape).encode() + rgb.tobytes()).hexdigest()
    return Image(image_id, image_type, nuclei, digest, frames.borders(rgb)), faults


def opened(path: Path) -> zipfile.ZipFile:
    """Return an archive that stays open until another is asked for: reading its list of files takes long."""
    return _opened(path, path.stat().st_mtime_ns if path.exists() else 0)


@lru_cache(maxsize=1)
def _opened(path: Path, changed: int) -> zipfile.ZipFile:
    return archives.open_archive(path)


def merge_masks(
    archive: zipfile.ZipFile, members: list[str], image_id: str, shape: tuple[int, int]
) -> tuple[np.ndarray, list[Fault]]:
    """Paint masks into one label image, uint16 (H, W): 1 ... n in the order of their names.

    Mask pixels above half of the dtype's range are nucleus, so grey edges do not enlarge it. A pixel of two masks
    goes to the first.
    """
    labels, faults, count = np.zeros(shape, np.uint16), [], 0
    if len(members) > 2**16 - 1:
        raise InputError(f"{archive.filename}: {image_id}: {len(members):,} masks; a label image holds 65,535")
    for member in members:
        name = member.rpartition("/")[2]
        try:
            mask = archives.read_image(archive, member)
        except InputError as error:
            faults.append(Fault("unreadable_mask", image_id, str(error)))
            continue
        if mask.shape[:2] != shape:
            faults.append(Fault("mask_shape", image_id, f"mask {name} is {mask.shape[:2]}, the image {shape}"))
            continue
        mask = mask if mask.ndim == 2 else mask[..., :3].max(axis=2)
        # Only the box around the nucleus is read: most of a mask is empty, and there are thousands of masks.
        x, y, width, height = cv2.boundingRect(mask if mask.dtype == np.uint8 else (mask > 0).view(np.uint8))
        box = np.s_[y : y + height, x : x + width]
        inside = mask[box] > np.iinfo(mask.dtype).max // 2
        free = inside & (labels[box] == 0)
        if not free.any():
            detail = "lies wholly under other masks" if inside.any() else "is empty"
            faults.append(Fault("empty_mask", image_id, f"mask {name} {detail}"))
            continue
        if overlap := int(inside.sum() - free.sum()):
            faults.append(Fault("overlapping_masks", image_id, f"mask {name} shares {overlap} px with others"))
        count += 1
        labels[box][free] = count
    return labels, faults


def make_manifest(train: list[Image], test: list[Image], settings: PreprocessSettings) -> pd.DataFrame:
    """Return the manifest: images in the order of their ids, training images split by source frame."""
    if shared := sorted({image.image_id for image in train} & {image.image_id for image in test}):
        raise InputError(f"{layout.RAW}: image {shared[0]} is in stage1_train.zip and in stage1_test.zip; rename one")
    if not train or not test:
        raise InputError(f"{layout.RAW}: no usable {'test' if train else 'training'} image; every one has a fault")
    frame = frames.group_frames([image.borders for image in train])
    held_out = frames.split_by_frame(
        frame, [image.image_type for image in train], settings.validation_fraction, settings.seed
    )
    if not held_out.any() or held_out.all():
        raise InputError(
            f"preprocess.validation_fraction: {settings.validation_fraction} of {len(train)} images in "
            f"{frame.max() + 1} source frames leaves training or validation empty; choose another fraction"
        )
    # Test images are never compared with others: each counts as a frame of its own.
    numbers = [*frame.tolist(), *range(frame.max() + 1, frame.max() + 1 + len(test))]
    splits = [*np.where(held_out, "validation", "train").tolist(), *["test"] * len(test)]
    rows = [
        (image.image_id, split, image.image_type, number, *image.borders.shape, image.nuclei)
        for image, split, number in zip(train + test, splits, numbers, strict=True)
    ]
    return pd.DataFrame(rows, columns=processed.MANIFEST_COLUMNS).sort_values("image_id", ignore_index=True)


def audit_of(source: str, manifest: pd.DataFrame, faults: list[Fault], handled: FaultSettings) -> dict:
    """Summarise the data set and name its faults, for reports/data_audit.json."""
    by_split = manifest.groupby("split")
    return {
        "source": source,
        "images": {split: int(by_split.size()[split]) for split in layout.SPLITS},
        "nuclei": {split: int(by_split.nuclei.sum()[split]) for split in layout.SPLITS},
        "frames": int(manifest[manifest.split != "test"].frame.nunique()),
        "fault_counts": {name: sum(f.fault == name for f in faults) for name in type(handled).model_fields},
        "faults": [asdict(fault) | {"handled": getattr(handled, fault.fault)} for fault in faults],
    }


if __name__ == "__main__":
    # Under its own name, by which workers of a cluster find its functions.
    from pipeline import preprocess

    stage.run(preprocess.main)
