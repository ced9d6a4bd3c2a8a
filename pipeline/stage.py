"""What every command does alike: clear errors, outputs that appear whole or not at all, one run at a time, git."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock


class InputError(Exception):
    """Something the user gave is wrong. The message names the file or key and says what to do."""


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`: an `InputError` or a failing disk becomes one line on stderr and exit code 1.

    A lock in `.locks/` keeps a second run of the same stage out of the same folder: killing `dvc repro` leaves
    the stage it started running, and the next `dvc repro` would write beside it.
    """
    name = Path(sys.argv[0]).stem
    # What `kill` sends ends a stage as Ctrl-C does: nothing half-written stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        Path(".locks").mkdir(exist_ok=True)
        with filelock.FileLock(f".locks/{name}.lock", blocking=False):
            main()
    except filelock.Timeout:
        fail(f"{name}: another run of this stage is still going in this folder; wait for it or stop it")
    except InputError as error:
        fail(f"{name}: {error}")
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        fail(f"{name}: {error.strerror or error}{where}; set that right and run it again")
    except MemoryError:
        fail(f"{name}: out of memory; close other programs, or lower train.batch_size or evaluate.scales")
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)


def fail(message: str) -> None:
    """Print one line on stderr and exit with code 1."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(1)


def git(*arguments: str) -> str:
    """Return what a git command prints. Raises InputError with its message."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


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
