"""Files that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that replaces `target` at the end, or vanishes on an error."""
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
    """Yield a path beside `target`; what is written there replaces `target` at the end, or vanishes on an error."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # The name's ending stays the last part: writers choose the format by it. A killed run's leftover is written over.
    partial = target.with_name(f".partial-{target.name}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave the new name without the content
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
