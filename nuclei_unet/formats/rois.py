"""ImageJ's ROI zips, as the ROI Manager of Fiji opens them.

A nucleus in one piece and without holes is a polygon ROI. Any other one is a composite ROI, which ImageJ fills by the
even-odd rule; so nothing is lost. Coordinates are whole numbers, corners of pixels. The name is the nucleus' number.
"""

import stat
import zipfile
import zlib
from pathlib import Path

import numpy as np

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.formats.geometry import Part, label_image, outlines, ring_of
from nuclei_unet.formats.label_image import checked, numbered

# ImageJ's 16-bit coordinates: 65,535 less the 5,000 that it keeps for negative ones.
MAX_SIDE = 60_535
MAX_ROI_BYTES = 256 * 2**20
MAX_TOTAL_BYTES = 8 * 2**30
MOVE_TO, LINE_TO, CLOSE = 0, 1, 4


def write(path: Path, labels: np.ndarray) -> None:
    """Write the outlines of nuclei to a .zip, one ROI each, in ascending order of labels, integer (H, W).

    Raises InputError for an image above 60,535 pixels a side, whose coordinates ImageJ's files cannot hold.
    """
    labels = checked(labels, str(path))
    if max(labels.shape) > MAX_SIDE:
        raise InputError(f"{path}: {labels.shape} pixels; ImageJ's ROIs hold coordinates up to {MAX_SIDE:,}")
    regions = outlines(labels)
    digits = max(len(str(max(regions, default=0))), 4)
    with fresh_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for label, parts in regions.items():
            name = f"{label:0{digits}}"
            # Fixed dates and system, so that the same nuclei give the same bytes.
            entry = zipfile.ZipInfo(f"{name}.roi", (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, _roi(name, parts))


def _roi(name: str, parts: list[Part]) -> bytes:
    from roifile import ROI_TYPE, ImagejRoi

    rings = [ring for part in parts for ring in part]
    corners = np.concatenate(rings)
    (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    roi = ImagejRoi(name=name, left=left, top=top, right=right, bottom=bottom)
    if len(rings) == 1:
        roi.roitype = ROI_TYPE.POLYGON
        roi.integer_coordinates = rings[0] - np.array([left, top])
        roi.n_coordinates = len(rings[0])
    else:
        # A path in absolute coordinates, as java.awt.geom has it: each item is a command and its point.
        path = [np.concatenate([np.insert(ring, 0, LINE_TO, axis=1).ravel(), [CLOSE]]) for ring in rings]
        for ring in path:
            ring[0] = MOVE_TO
        roi.roitype = ROI_TYPE.RECT
        roi.multi_coordinates = np.concatenate(path).astype(np.float32)
        roi.shape_roi_size = len(roi.multi_coordinates)
    return roi.tobytes()


def read(path: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Read the ROIs of a zip, or a single .roi file, as a label image.

    Polygons, freehand outlines, rectangles, ovals (as polygons) and composites; lines and points are left out. A pixel
    belongs to a ROI if its centre lies inside, and to the first of several.

    The labels are uint16 or uint32 (H, W); without `shape`, the image is the smallest that holds all ROIs. If all ROIs
    have different whole numbers as names, these are the labels; otherwise 1, 2 ... in the order of the file. Raises
    InputError if it is not a zip of ROIs, damaged, or with curves.
    """
    rois = [roi for name, data in _files(path) if (roi := _rings(data, f"{path}: {name}"))]
    # One part each: the even-odd rule goes over all rings.
    regions = {number: [rings] for number, (_, rings) in zip(numbered([name for name, _ in rois]), rois, strict=True)}
    return label_image(regions, shape, str(path))


def _files(path: Path) -> list[tuple[str, bytes]]:
    try:
        if path.suffix.lower() == ".roi":
            return [(path.name, path.read_bytes())]
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.lower().endswith(".roi")]
            largest = max((member.file_size for member in members), default=0)
            if largest > MAX_ROI_BYTES or sum(member.file_size for member in members) > MAX_TOTAL_BYTES:
                raise InputError(f"{path}: holds more than {MAX_TOTAL_BYTES / 2**30:.0f} GiB; these are no ROIs")
            return [(member.filename, archive.read(member)) for member in members]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not a zip of ROIs, or damaged ({error})") from None


def _rings(data: bytes, where: str) -> tuple[str, Part] | None:
    """Return name and rings of a ROI; None if it has no area."""
    from roifile import ROI_TYPE, ImagejRoi

    areas = (ROI_TYPE.POLYGON, ROI_TYPE.RECT, ROI_TYPE.OVAL, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED)
    try:
        roi = ImagejRoi.frombytes(data)
        if roi.roitype not in areas or roi.subtype.value:
            return None
        rings = roi.coordinates(multi=True)
    # Lengths in a damaged file lead roifile anywhere.
    except Exception as error:
        raise InputError(f"{where}: not a ROI that can be read ({' '.join(str(error).split())[:200]})") from None
    rings = [ring_of(ring, where) for ring in rings if len(ring) > 2]
    return (roi.name, rings) if rings else None
