"""The project's revisions, and copies of it in which commands can run without touching it."""

import contextlib
import shutil
from pathlib import Path

from dvc.scm import SCM, SCMError, resolve_rev
from scmrepo.exceptions import SCMError as EmptyError  # of a repository without a commit; DVC lets it through

from nuclei_unet.errors import InputError
from pipeline import layout, stage
from pipeline.git import git


def commit_of(revision: str) -> str:
    """Return the commit of a branch (also a remote one), a tag, a commit or a DVC experiment, or raise InputError."""
    git("rev-parse", "--git-dir")  # whose message says why, if git refuses this folder
    try:
        with contextlib.closing(SCM(".")) as scm:
            return resolve_rev(scm, revision)
    except (SCMError, EmptyError) as error:
        raise InputError(f"{revision}: not a branch, commit or experiment of this repository ({error})") from None


def committed(commit: str, path: Path) -> str:
    """Return the text of a file at a commit. Raises InputError that names it."""
    try:
        return git("show", f"{commit}:{path}")
    except InputError:
        raise InputError(f"{commit[:10]}: has no {path}; choose a commit with this layout and with results") from None


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
