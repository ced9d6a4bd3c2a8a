"""Zip archives of images from untrusted sources, checked before use, and the raw data's one format on disk.

Nothing is ever extracted: `repack` copies the files of any container into a zip of canonical form, and the pipeline
reads its images from that. Canonical means: `<ImageId>/images/<ImageId>.png` and `<ImageId>/masks/<name>.png` and
nothing else, sorted by name, stored uncompressed (PNGs do not compress), with fixed dates and attributes. So the
bytes are the same whichever container they came in, and no path can point outside a folder.
"""

import hashlib
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nuclei_unet.errors import InputError
from nuclei_unet.files import fresh_file
from nuclei_unet.formats.png import decode

MAX_FILES = 100_000
MAX_FILE_BYTES = 256 * 2**20
MAX_TOTAL_BYTES = 8 * 2**30
MAX_RATIO = 200
RATIO_FREE_BYTES = 2**20  # a small blank mask may shrink further than MAX_RATIO, and does no harm

CHUNK_BYTES = 2**20
# What zipfile raises, besides OSError, on a damaged or malicious container.
ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip for reading. Raises InputError that names the file if it is missing or not a zip."""
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except ZIP_FAULTS as error:
        raise InputError(f"{path}: not a zip, or cut short ({error}); delete it and download it again") from None


def check_members(archive: zipfile.ZipFile, subfolder: str = "") -> dict[str, zipfile.ZipInfo]:
    """Return canonical name -> member for all files of an archive below `subfolder`, sorted by name.

    Folder entries and what macOS adds (`__MACOSX/`, `.DS_Store`) are dropped. Raises InputError that names archive
    and member for anything that does not belong in this data set: names that leave the folder, links, encryption,
    duplicate names, sizes or compression ratios of a zip bomb, files other than images and masks.
    """
    files: dict[str, zipfile.ZipInfo] = {}
    seen: dict[str, str] = {}
    total = 0
    for member in archive.infolist():
        name = member.orig_filename  # zipfile cuts `filename` at a zero byte and turns backslashes on Windows
        if name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1] == ".DS_Store":
            continue
        fault = _name_fault(name) or _kind_fault(member)
        if not fault and name.casefold() in seen:
            twin = seen[name.casefold()]
            fault = "occurs twice" if twin == name else f"differs only in case from {twin!r}"
        seen[name.casefold()] = name
        if fault:
            raise InputError(f"{archive.filename}: member {name!r} {fault}; this is not the data set, do not use it")
        if member.is_dir() or not name.startswith(subfolder):
            continue
        total += member.file_size
        if len(files) == MAX_FILES or total > MAX_TOTAL_BYTES:
            limits = f"{MAX_FILES:,} files or {MAX_TOTAL_BYTES / 2**30:.0f} GiB"
            raise InputError(f"{archive.filename}: holds more than {limits} (reached at member {name!r})")
        files[name.removeprefix(subfolder)] = member
    _check_layout(files, archive.filename, subfolder)
    return dict(sorted(files.items()))


def _name_fault(name: str) -> str:
    if not (name.isascii() and name.isprintable()):
        return "has characters other than printable ASCII in its name"
    if "\\" in name:
        return "has a backslash in its name"
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        return "has an absolute name"
    if any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        return "has an empty, '.' or '..' part in its name"
    return ""


def _kind_fault(member: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
        return "is a link or another special file"
    if member.flag_bits & 0x1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"has compression method {member.compress_type} (only stored and deflated are read)"
    if member.header_offset < 0:
        return "starts before the archive does"
    if member.file_size > MAX_FILE_BYTES:
        return f"is larger than {MAX_FILE_BYTES / 2**20:.0f} MiB"
    if member.file_size > max(RATIO_FREE_BYTES, MAX_RATIO * member.compress_size):
        return f"grows more than {MAX_RATIO} times when unpacked (a zip bomb?)"
    return ""


def _check_layout(names: Mapping[str, object], where: str | None, subfolder: str) -> None:
    if not names:
        raise InputError(f"{where}: holds no files{f' below {subfolder!r}' if subfolder else ''}")
    for name in names:
        image_id, _, rest = name.partition("/")
        if not re.fullmatch(r"masks/[^/]+\.png", rest) and name != image_member(image_id):
            layout = "<ImageId>/images/<ImageId>.png or <ImageId>/masks/<name>.png"
            raise InputError(f"{where}: member {subfolder + name!r} has an unexpected name; only {layout} belong here")
        if image_member(image_id) not in names:
            raise InputError(f"{where}: member {subfolder + name!r} is a mask without its image")


def content_digest(hashes: Mapping[str, str]) -> str:
    """Return one SHA-256 (hex) over files given as name -> SHA-256 of content, independent of container and order.

    It is the digest of what `sha256sum` prints for the files sorted by name, so a shell can check it:
    `find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum`.
    """
    return hashlib.sha256("".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()).hexdigest()


def repack(source: Path, target: Path, subfolder: str = "") -> str:
    """Write the files of zip `source` below `subfolder` to `target` in canonical form; return their content digest.

    Raises InputError, and leaves no `target`, for a damaged or suspicious archive (see `check_members`).
    """
    hashes: dict[str, str] = {}
    with open_archive(source) as archive, fresh_file(target) as partial:
        files = check_members(archive, subfolder)
        size = sum(member.file_size for member in files.values())
        with (
            zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as packed,
            tqdm(total=size, desc=target.name, unit="B", unit_scale=True, disable=None, leave=False) as bar,
        ):
            for name, member in files.items():
                digest = hashlib.sha256()
                with packed.open(_canonical_entry(name, member.file_size), "w") as file:
                    for chunk in _chunks(archive, member):
                        digest.update(chunk)
                        file.write(chunk)
                        bar.update(len(chunk))
                hashes[name] = digest.hexdigest()
    return content_digest(hashes)


def write(path: Path, files: Mapping[str, bytes]) -> None:
    """Write a zip, by name and without compression: the same files give the same bytes everywhere."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(files):
            archive.writestr(_canonical_entry(name), files[name])


def _canonical_entry(name: str, size: int = 0) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.create_system = 3  # else Windows writes another one
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    entry.file_size = size
    return entry


def _chunks(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Iterator[bytes]:
    # zipfile stops at the declared size and reports a CRC that is wrong by then, but it accepts fewer bytes.
    left = member.file_size
    try:
        with archive.open(member) as file:
            while chunk := file.read(CHUNK_BYTES):
                left -= len(chunk)
                yield chunk
        if left:
            raise zipfile.BadZipFile(f"{left} bytes fewer than declared")
    except ZIP_FAULTS as error:
        where = f"{archive.filename}: member {member.orig_filename!r}"
        raise InputError(f"{where} is damaged ({error}); delete the archive and download it again") from None


def image_member(image_id: str) -> str:
    """Return the name of an image's file in a canonical zip."""
    return f"{image_id}/images/{image_id}.png"


def mask_members(archive: zipfile.ZipFile) -> dict[str, list[str]]:
    """Return image id -> names of its mask files (maybe none) for all images of a canonical zip, sorted."""
    masks: dict[str, list[str]] = {}
    for name in sorted(archive.namelist()):
        image_id, folder, _ = name.split("/")
        masks.setdefault(image_id, []).extend([name] if folder == "masks" else [])
    return masks


def read_image(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read and decode one PNG of a canonical zip; see `decode`.

    Threads may share a ZipFile; processes may not, since it has one file position.
    """
    try:
        data = archive.read(name)
    except KeyError:
        raise InputError(f"{archive.filename}: no member {name!r}") from None
    except ZIP_FAULTS as error:
        raise InputError(f"{archive.filename}: member {name!r} is damaged ({error})") from None
    return decode(data, f"{archive.filename}: {name}")
