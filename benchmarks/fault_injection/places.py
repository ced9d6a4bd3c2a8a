"""Where the project lies, and who runs it: names of folders, states of git, users, their rights and variables."""

import os
import shutil
import sys
from pathlib import Path

from benchmarks.fault_injection.project import SMALL, Failed, Project, fault, obey_file_modes
from pipeline import layout
from pipeline.git import git
from pipeline.tools.verify import hashes

# Together they have all that a shell, make, a URL or a pattern takes for something else.
NAMES = ("a b#c", "50%25?d=e&f;g", "-it's [x]*", 'h" $HOME `i` \\', "Ядро 细胞核 🔬", "n" * 200)
# Writes to MLflow as a stage does, without a training.
LOG = """
from pipeline.tracking import store
client, experiment = store.connect()
client.log_text(client.create_run(experiment).info.run_id, "text", "file.txt")
"""
# Another user, who may read all (the environment may lie in a home folder) and write only what is his.
SOMEBODY = ("setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search")  # fmt: skip


def clone(project: Project, name: str, *options: str) -> Project:
    """Clone the last commit of the checkout into a folder of the project's copy; the clone has its parameters."""
    target = project.folder / "clones" / name
    git("clone", "--quiet", *options, "--", Path.cwd().as_uri(), str(target))
    made = Project(target)
    made.set(SMALL)
    return made


def prepare(made: Project, project: Project, *before: str, **options) -> None:
    """Download and preprocess in a clone, behind the command `before`; the outputs must be those of the copy."""
    if made.run(*before, "dvc", "repro", "preprocess", **options):
        raise Failed(f"{made.folder.name[:20]}: {made.error()}")
    now = hashes(made.folder)
    if other := [output for (stage, output), value in hashes(project.folder).items() if now[stage, output] != value]:
        raise Failed(f"{made.folder.name[:20]}: other bytes: {', '.join(other)}")


@fault("folders with odd names", outputs=False)
def _(project):
    for name in NAMES:
        made = clone(project, name)
        git("-C", str(made.folder), "stash")
        (made.folder / ".venv").symlink_to(sys.prefix)
        if made.run("make", "READY=", "gate"):
            raise Failed(f"{name[:20]}: make gate: {made.error()}")
        made.set(SMALL)
        prepare(made, project)
        if made.run(sys.executable, "-c", LOG):
            raise Failed(f"{name[:20]}: MLflow: {made.error()}")
        if not (made.folder / layout.STORE).exists() or not list(made.folder.glob("mlruns/*/artifacts/file.txt")):
            raise Failed(f"{name[:20]}: MLflow's files are not in the project")
        images = made.folder / "-images #?%25"
        images.mkdir()
        shutil.copy(next((made.folder / layout.PROCESSED / "images").iterdir()), images / "a.png")
        if made.run(sys.executable, "-m", "nuclei_unet", "predict", "--", images.name, "-results #?%25"):
            raise Failed(f"{name[:20]}: predict: {made.error()}")
        if beside := [path.name for path in made.folder.parent.iterdir() if path != made.folder]:
            raise Failed(f"{name[:20]}: something lies beside the project: {beside}")
        shutil.rmtree(made.folder)
    return f"In {len(NAMES)} folders with all signs that a shell or a URL reads, all works and stays inside."


@fault("folders that no .venv works in", outputs=False)
def _(project):
    for name in ("a:b", 'a" b', "a\nb"):
        made = clone(project, name)
        said = made.refused("make", "repro", says="rename or move it")
        if (made.folder / ".venv").exists():
            raise Failed("set-up began")
        shutil.rmtree(made.folder)
    return f"{said}."


@fault("no git, no commit, a shallow clone, a detached HEAD, a worktree", outputs=False)
def _(project):
    clones = {name: clone(project, name, *options) for name, options in
              {"no git": (), "no commit": (), "shallow": ("--depth=1",), "detached": ()}.items()}  # fmt: skip
    shutil.rmtree(clones["no git"].folder / ".git")
    # Above it is the checkout of nobody.
    clones["no git"].environment["GIT_CEILING_DIRECTORIES"] = str(project.folder.parent)
    (clones["no git"].folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n")
    shutil.rmtree(clones["no commit"].folder / ".git")
    git("init", "--quiet", str(clones["no commit"].folder))
    git("-C", str(clones["detached"].folder), "checkout", "--quiet", "--detach")
    worktree = project.folder / "clones/worktree"
    git("-C", str(clones["detached"].folder), "worktree", "add", "--quiet", str(worktree))
    clones["worktree"] = Project(worktree)
    clones["worktree"].set(SMALL)
    for made in clones.values():
        prepare(made, project)
    for name in ("no git", "no commit"):
        for tool in ("verify", "compare"):
            clones[name].refused(sys.executable, "-m", f"pipeline.tools.{tool}", says=f"error: {tool}: ")
    return "The stages run in all of them; where no commit is, verify and compare say so in one line."


@fault("no HOME, no TMPDIR, umask 077, LANG=C", outputs=False)
def _(project):
    locked = project.folder / "locked"
    locked.mkdir(mode=0o555)
    variables = {
        "no HOME": {"HOME": None, "USER": None, "LOGNAME": None},
        "HOME not writable": {"HOME": str(locked)},
        "TMPDIR missing": {"TMPDIR": str(locked / "absent")},
        "Ядро in LANG=C": {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"},
    }
    for name, changed in variables.items():
        made = clone(project, name)
        merged = made.environment | changed
        made.environment = {key: value for key, value in merged.items() if value is not None}
        prepare(made, project, preexec_fn=obey_file_modes)
    made = clone(project, "umask")
    prepare(made, project, preexec_fn=lambda: os.umask(0o077))
    return "The stages make the same files in all of them."


@fault("another owner of the checkout, another user", outputs=False)
def _(project):
    if os.geteuid() or not shutil.which("setpriv"):
        return "Not tried: only root can be another user."
    made = clone(project, "owned by another")
    for path in (made.folder, *made.folder.rglob("*")):
        os.chown(path, 1234, 1234, follow_symlinks=False)
    prepare(made, project)
    for tool in ("verify", "compare", "experiments"):
        made.refused(sys.executable, "-m", f"pipeline.tools.{tool}", says="dubious ownership.*safe.directory")
    made = clone(project, "owned by root")
    said = made.refused(*SOMEBODY, "dvc", "repro", "preprocess", says="[Pp]ermission denied|not permitted|dubious")
    return (
        "Root runs stages in the checkout of another user; tools that need git name `safe.directory`. "
        f"A user in that of root: {said[:200]}."
    )


@fault("no right to write to data/, models/, reports/ or .dvc/", outputs=False)
def _(project):
    said = {}
    for stage, name in (("download", "data"), ("preprocess", "reports"), ("train", "models"), ("evaluate", "models"),
                        ("visualize", "reports"), ("preprocess", ".")):  # fmt: skip
        folder = project.folder / name
        # A lock that is there could still be taken.
        shutil.rmtree(project.folder / layout.LOCKS, ignore_errors=True)
        mode = folder.stat().st_mode
        folder.chmod(0o555)
        where = layout.LOCKS if name == "." else name
        command = (sys.executable, "-m", f"pipeline.{stage}")
        says = f"error: {stage}: Permission denied: {where}; fix this"
        try:
            said[stage] = project.refused(*command, says=says, preexec_fn=obey_file_modes)
        finally:
            folder.chmod(mode)
    made = clone(project, "locked")
    (made.folder / ".dvc").chmod(0o555)
    dvc = made.refused("dvc", "repro", "preprocess", says=r"[Pp]ermission denied.*\.dvc", preexec_fn=obey_file_modes)
    return f"All stages say so before they start: {said['train']}. .dvc/: {dvc}."
