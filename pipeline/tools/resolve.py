"""Bring the results of two branches together, after a `git merge` that stopped: `make resolve`.

Merge params.yaml and code by hand first, and `git add` them. What `dvc repro` writes, dvc.lock and reports/, needs no
merging: one side is taken, then `dvc repro` makes it fit the merged parameters; what its cache has is not done again.
"""

import subprocess
import sys
from pathlib import Path

from nuclei_unet.errors import InputError
from pipeline import layout, process, stage
from pipeline.git import ask, git


def main() -> None:
    """Settle all conflicts in results. Raises InputError if others are left, or if there is no merge."""
    conflicts = git("diff", "--name-only", "--diff-filter=U", "-z").split("\0")[:-1]
    results = [name for name in conflicts if name == str(layout.DVC_LOCK) or layout.REPORTS in Path(name).parents]
    if by_hand := sorted(set(conflicts) - set(results)):
        raise InputError(f"merge {', '.join(by_hand)} by hand, `git add` it, then run this again")
    if not results and not ask("rev-parse", "--quiet", "--verify", "MERGE_HEAD"):
        raise InputError("there is nothing to resolve; `git merge BRANCH` comes first")
    if results:
        git("checkout", "--ours", "--", *results)
        git("add", "--", *results)
    if subprocess.run([sys.executable, "-m", "dvc", "repro"], env=process.environment()).returncode:
        raise InputError("`dvc repro` failed; see its message above, then run this again")
    git("add", "--", str(layout.DVC_LOCK), str(layout.REPORTS))
    print(f"{layout.DVC_LOCK} and {layout.REPORTS}/ fit the merged parameters; `git commit` ends the merge")


if __name__ == "__main__":
    stage.run(main)
