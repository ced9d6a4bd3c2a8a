"""Copies of the project in which commands can run without touching it."""

import shutil
from pathlib import Path

from nuclei_unet.errors import InputError
from pipeline import layout, stage
from pipeline.git import git


def copy_project(source: Path, target: Path) -> None:
    """Copy the project's files, those git tracks and new ones it does not ignore, to `target`, which is emptied.

    The copy is a DVC project without git, so that nothing it does reaches the repository around it. Raises InputError
    if a stage is running in `target`: a run that was killed may have left it, and the next one would share its files.
    """
    if names := stage.running(target):
        raise InputError(f"{target}/: {', '.join(names)} is still going there; wait for it or stop it")
    shutil.rmtree(target, ignore_errors=True)
    try:
        listed = git("-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    except InputError as error:
        raise InputError(f"not a git checkout ({error}); clone the repository with git, then run this again") from None
    for name in filter(None, listed.split("\0")):
        # A file that was deleted but not yet committed is still listed.
        if (source / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
    # The copied results were made with other parameters.
    (target / layout.DVC_LOCK).unlink(missing_ok=True)
    (target / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
