"""What every command does alike: clear errors, outputs that appear whole or not at all, one run at a time, git."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import filelock

from nuclei_unet.errors import InputError


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
