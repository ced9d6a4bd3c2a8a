"""`make setup`: packages are installed when the lock file's content changes, and not when its time does."""

import os
import shutil
import subprocess

import pytest

from tests import ROOT

# Stands for Python and makes a .venv whose Python does nothing; both write down how they are called.
FAKE = """#!/bin/sh
echo "$@" >> {log}
[ "$2" != venv ] || (rm -rf .venv && mkdir -p .venv/bin && cp {fake} .venv/bin/python)
"""


@pytest.fixture
def setup(tmp_path):
    """Return a function that runs `make setup` and returns how often it installed packages."""
    log, fake = tmp_path / "log", tmp_path / "fake"
    fake.write_text(FAKE.format(log=log, fake=fake))
    fake.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").write_text("a==1\n")

    def run():
        log.write_text("")
        # What `make test` hands on to its children is not for this one.
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        subprocess.run(["make", "setup", f"PYTHON={fake}"], cwd=tmp_path, check=True, env=variables)
        return sum("pip install" in line for line in log.read_text().splitlines())

    return run


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_set_up_goes_by_content(setup, tmp_path):
    lock = tmp_path / "requirements.lock"
    assert setup() == 1
    assert setup() == 0
    # As after `git switch` to a branch with the same lock file, and back.
    os.utime(lock, (2**31 - 1, 2**31 - 1))
    assert setup() == 0
    lock.write_text("a==2\n")
    assert setup() == 1
    assert setup() == 0
    lock.write_text("a==1\n")
    assert setup() == 1
