"""What git knows about the project."""

import subprocess

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
    """Return what a git command prints, stripped; "" if it fails, since not every copy has a repository."""
    try:
        return git(*arguments, seconds=10).strip()
    except InputError:
        return ""
