"""What git says."""

import subprocess

from nuclei_unet.errors import InputError


def git(*arguments: str) -> str:
    """Return what a git command prints. Raises InputError with its message."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"git {arguments[0]}: {' '.join(done.stderr.split())}")
    return done.stdout


def _git(*arguments: str) -> str:
    try:
        command = ["git", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
