"""Write files and folders completely or not at all, and compute digests of their contents."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`. It replaces `target` at the end, or is deleted on an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
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
    partial = target.with_name(f".partial-{target.name}")
    try:
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
