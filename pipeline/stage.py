"""What all stages and tools share: one clear line for an error, one run at a time, dependencies from dvc.yaml."""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
from ruamel.yaml import YAML, YAMLError

from nuclei_unet.errors import InputError, one_line
from nuclei_unet.quiet import quiet_tensorflow
from pipeline import layout


def run(main: Callable[[], None], part: Callable[[], str] = str, *, tensorflow: bool = False) -> None:
    """Run a stage's `main`: an `InputError` or a failing disk becomes one line on stderr and exit code 1.

    A lock in `.locks/` prevents a second run of the same stage in the same folder. If `dvc repro` is killed, its stage
    goes on running, and the next `dvc repro` would write to the same files. `part` returns what the lock's name ends
    with: processes that share a stage's work may also share its folder. With `tensorflow`, TensorFlow is loaded first,
    without its start-up lines; so modules that need it are imported in functions, not at the top of a stage.
    """
    name = Path(sys.argv[0]).stem
    # The signal of `kill` ends a stage as Ctrl-C does: no half-written file remains.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if tensorflow:
            quiet_tensorflow()
        layout.LOCKS.mkdir(exist_ok=True)
        with filelock.FileLock(layout.LOCKS / f"{name}{part()}.lock", blocking=False):
            check_rights(name)
            main()
    except filelock.Timeout:
        fail(f"{name}: another run of this stage is still going in this folder; wait for it or stop it")
    except InputError as error:
        fail(f"{name}: {error}")
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        fail(f"{name}: {error.strerror or error}{where}; fix this and run it again")
    except MemoryError:
        fail(f"{name}: out of memory; close other programs, or lower train.batch_size")
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)


def running(folder: Path) -> list[str]:
    """Return the names of the stages and tools that are running in another folder, which may not be there."""
    names = []
    for path in sorted((folder / layout.LOCKS).glob("*.lock")):
        try:
            with filelock.FileLock(path, blocking=False):
                pass
        except filelock.Timeout:
            names.append(path.stem)
    return names


def fail(message: str) -> None:
    """Print one line on stderr, even if a name in it has line breaks, and exit with code 1."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    sys.exit(1)


def check_rights(name: str) -> None:
    """Raise OSError if a stage has no right to write where its outputs go; better before than after an hour."""
    for folder in {output.parent for output in outputs(name)}:
        if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def dependencies(name: str) -> list[Path]:
    """Return the files and folders that a stage depends on, as dvc.yaml names them, or raise InputError."""
    try:
        return [Path(dependency) for dependency in _stages()[name]["deps"]]
    except (OSError, YAMLError, TypeError, KeyError) as error:
        raise InputError(f"{layout.DVC_FILE}: does not say what stage {name} depends on ({error!r})") from None


def outputs(name: str) -> list[Path]:
    """Return the files and folders that a stage writes, as dvc.yaml names them; none for a tool."""
    try:
        stage = _stages()[name]
        # An output is a path, or a mapping from its path to options.
        return [Path(path) for key in ("outs", "metrics") for out in stage.get(key, ()) for path in _paths(out)]
    except (OSError, YAMLError, TypeError, KeyError, AttributeError):
        return []


def _paths(output: str | dict) -> list[str]:
    return [output] if isinstance(output, str) else list(output)


def _stages() -> dict:
    return YAML(typ="safe", pure=True).load(layout.DVC_FILE.read_text(encoding="utf-8"))["stages"]
