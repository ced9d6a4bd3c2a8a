"""What git knows of the project."""

import hashlib
import subprocess
from pathlib import Path

from nuclei_unet.errors import InputError


def git(*arguments: str, seconds: float | None = None) -> str:
    """Return what a git command prints. Raises InputError with its message, or if it takes longer than `seconds`."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=seconds)
    except OSError as error:
        raise InputError(f"git: cannot be run ({error.strerror}); install git") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"git {arguments[0]}: no answer within {seconds} s") from None
    if done.returncode:
        raise InputError(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


def ask(*arguments: str) -> str:
    """Return what a git command prints, stripped; nothing if it fails, since not every copy has a repository."""
    try:
        return git(*arguments, seconds=10).strip()
    except InputError:
        return ""


def blob_id(path: Path) -> str:
    """Return the name that git gives to this content: `git log --find-object=<id>` finds the commits that hold it."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
