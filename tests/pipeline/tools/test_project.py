"""Copies of the project."""

import subprocess
import sys

import pytest

from nuclei_unet.errors import InputError
from pipeline.git import git
from pipeline.tools.project import copy_project

# Says that it runs, and waits.
STAGE = """
import sys, time
from pipeline import stage
sys.argv = ["train.py"]
stage.run(lambda: print(flush=True) or time.sleep(60))
"""


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
        with pytest.raises(InputError, match=r"demo/: train is still going there; wait for it or stop it"):
            copy_project(source, target)
        assert (target / "result").exists()
        orphan.kill()
    copy_project(source, target)
    assert not (target / "result").exists()
