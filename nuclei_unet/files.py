"""Write files and folders completely or not at all, and compute digests of their contents."""

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

# A disk, a quota or a limit that leaves no room for a file.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Part of the names of unfinished files, where several processes may write the same one.
_writer = ""
# Less free space than this, in bytes, explains why a library could not write.
NOTHING = 2**16


def tell_apart() -> None:
    """Give unfinished files of this process names that no other process uses."""
    global _writer
    _writer = _writer or f"{uuid.uuid4().hex[:12]}-"


def remove_unfinished(folder: Path) -> None:
    """Remove what is half written in a folder and all below it. Nobody must be writing there."""
    for path in folder.rglob("*"):
        if path.name.startswith(".partial-"):
            path.unlink(missing_ok=True)
        elif path.name.endswith(".partial"):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def naming_what_is_full(target: Path) -> Iterator[None]:
    """Name `target` and the space that is left if a disk is full; the error as it comes says neither.

    Some libraries raise an OSError of their own, without a number. It is taken for a full disk if nothing is free.
    """
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(target.parent).free
        number = errno.ENOSPC if error.errno is None and free < NOTHING else error.errno
        if number not in FULL:
            raise
        raise OSError(number, f"{os.strerror(number)} ({free / 1e6:,.1f} MB free)", str(target)) from error


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`. It replaces `target` at the end, or is deleted on an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{_writer}{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        with naming_what_is_full(target):
            yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


@contextmanager
def fresh_file(target: Path) -> Iterator[Path]:
    """Yield a path beside `target`. The file written there replaces `target` at the end, or is deleted on an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, since writers choose the format by it. A file left by a killed run is overwritten.
    partial = target.with_name(f".partial-{_writer}{target.name}")
    try:
        with naming_what_is_full(target):
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())  # otherwise a power cut could leave the new name without the content
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(paths: Iterable[Path]) -> str:
    """Return one SHA-256 over the names and contents of files and of all files in folders, whatever their order."""
    files = {file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()}
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.as_posix()):
        digest.update(f"{file_digest(file)}  {file.as_posix()}\n".encode())
    return digest.hexdigest()
