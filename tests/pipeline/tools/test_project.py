"""Revisions, and copies of the project."""

import re
import subprocess
import sys

from pipeline.git import git
from pipeline.tools.project import commit_of, copy_project
from tests.refusals import refused

# Says that it runs, and waits.
STAGE = """
import sys, time
from pipeline import stage
sys.argv = ["train.py"]
stage.run(lambda: print(flush=True) or time.sleep(60))
"""


def test_a_revision_that_is_not_there_is_named():
    for revision in ("no-such-branch", "-h", "--all", "a;b", "$(a)"):
        refused(f"{re.escape(revision)}: not a branch, commit or experiment", commit_of, revision)
    assert git("rev-parse", "HEAD").strip() == commit_of("HEAD")


def test_a_folder_that_git_refuses_is_named_with_the_reason(here, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(here.parent))
    refused("not a git repository", commit_of, "HEAD")
    git("init", "--quiet")
    refused("main: not a branch", commit_of, "main")
    # What git does in a checkout of another user.
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    refused(r"dubious ownership.*safe\.directory", commit_of, "HEAD")


def test_a_copy_in_which_a_stage_is_running_is_left_alone(tmp_path):
    source, target = tmp_path / "source", tmp_path / "demo"
    (source / ".dvc").mkdir(parents=True)
    git("init", "-q", str(source))
    (source / ".dvc/config").write_text("[core]\n")
    git("-C", str(source), "add", ".")
    copy_project(source, target)
    (target / "result").touch()
    # Another process, as the one that a killed `make demo` leaves.
    variables = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, "-c", STAGE], cwd=target, env=variables, stdout=subprocess.PIPE) as orphan:
        orphan.stdout.readline()
        refused(r"demo/: train is still going there; wait for it or stop it", copy_project, source, target)
        assert (target / "result").exists()
        orphan.kill()
    copy_project(source, target)
    assert not (target / "result").exists()
