"""A folder that git refuses."""

import pytest

from nuclei_unet.errors import InputError
from pipeline.git import git
from pipeline.tools import compare, experiments, verify

TOOLS = (lambda: compare.commit_of("HEAD"), lambda: verify.commit_of("HEAD"), experiments.main)


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_say_why_git_refuses_a_folder(tool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(InputError, match="not a git repository"):
        tool()
    git("init", "--quiet")
    # What git does in a checkout of another user.
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(InputError, match=r"dubious ownership.*safe\.directory"):
        tool()


def test_a_repository_without_a_commit_has_no_such_revision(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    for tool in (compare, verify):
        with pytest.raises(InputError, match="main: not a branch"):
            tool.commit_of("main")
