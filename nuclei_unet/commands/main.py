"""The command `nuclei-unet`: what it understands, and how its errors look."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from nuclei_unet.commands import adapt, convert, info, predict, score
from nuclei_unet.errors import InputError, one_line

COMMANDS = {
    "predict": (predict, "find the nuclei of images: label images, tables, and files for other tools"),
    "adapt": (adapt, "adapt a model to 1 to 100 annotated images (needs TensorFlow)"),
    "score": (score, "compare label images with the truth"),
    "convert": (convert, "write label images in another format"),
    "info": (info, "say what a model is: metadata, scores, commit, data"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 if all went well, 1 if not, 2 if the command was not understood, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="nuclei-unet", description="Find cell nuclei in microscope images.")
    parser.add_argument("--version", action="version", version=f"nuclei-unet {own_version()}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        style = argparse.RawDescriptionHelpFormatter
        command = commands.add_parser(name, help=text, description=module.__doc__, formatter_class=style)
        module.add_arguments(command)
        command.set_defaults(main=module.main)
    chosen = parser.parse_args(arguments)
    # A name on the disk may have bytes, or the terminal a character set, that a line cannot be printed with as it is.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    # The signal of `kill` ends a command as Ctrl-C does: no half-written file remains.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = chosen.main(chosen)
    except InputError as error:
        code = fail(str(error))
    except BrokenPipeError:  # the reader of our output has gone, `| head` for one
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:
        code = fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except MemoryError:
        code = fail("out of memory; close other programs, or use fewer --jobs")
    except KeyboardInterrupt as interrupt:
        done = f"; {interrupt} are done, and the same command goes on from there" if interrupt.args else ""
        print(f"interrupted{done}", file=sys.stderr, flush=True)
        # Threads cannot be stopped, and may be deep in a computation.
        os._exit(130)
    sys.exit(code)


def fail(message: str) -> int:
    """Print one line on stderr; return exit code 1."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    return 1


def own_version() -> str:
    """Return the installed package's version."""
    try:
        return version("nuclei-unet")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "(not installed)"
