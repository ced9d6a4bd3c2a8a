"""The gate: a score that fell too far, and revisions to compare with."""

import json
import subprocess

import pytest

from pipeline import layout
from pipeline.tools.gate import compared
from tests.refusals import refused


def git(folder, *arguments):
    identity = ("-c", "user.name=tests", "-c", "user.email=tests@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone, made the current folder, that has a branch of its own and knows main as origin/main."""
    origin, folder = tmp_path / "origin", tmp_path / "clone"
    (origin / layout.REPORTS).mkdir(parents=True)
    git(origin, "init", "-q", "-b", "main")
    git(origin, "commit", "-q", "--allow-empty", "-m", "without results")
    git(origin, "tag", "empty")
    (origin / layout.MAIN_SCORES).write_text(json.dumps({"validation": {"dsb_score": 0.55}}))
    git(origin, "add", ".")
    git(origin, "commit", "-q", "-m", "results")
    git(tmp_path, "clone", "-q", str(origin), str(folder))
    git(folder, "checkout", "-q", "-b", "other")
    git(folder, "branch", "-q", "-D", "main")
    monkeypatch.chdir(folder)


def test_a_score_may_fall_by_the_tolerance(clone):
    assert "0.5500 in main, 0.5410 here" in compared(0.541, "main", 0.01)
    refused(r"0\.5390 here; .*verify.gate_tolerance", compared, 0.539, "main", 0.01)


def test_a_revision_without_results_is_named(clone):
    refused(r"has no reports/metrics\.json", compared, 0.1, "empty", 0.01)
