"""The environment of child processes, and ports."""

import os
import socket
import sys
from pathlib import Path

from pipeline import process


def test_children_find_this_python_first_and_no_other_project(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "elsewhere")
    monkeypatch.setenv("DVC_ROOT", "elsewhere")
    own = process.environment(without=process.OUTSIDE, MLFLOW_TRACKING_URI="here")
    assert own["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert own["MLFLOW_TRACKING_URI"] == "here" and "DVC_ROOT" not in own and own["HOME"] == os.environ["HOME"]
    assert process.environment()["DVC_ROOT"] == "elsewhere"


def test_ports():
    port = process.free_port()
    assert not process.is_served(port)
    with socket.create_server(("127.0.0.1", port)):
        assert process.is_served(port)
