"""The MLflow UI: ports that it refuses."""

import socket

import pytest

from pipeline.tools import ui
from tests.refusals import refused


@pytest.mark.parametrize("port", ["0", "-1", "65536", "9" * 5000, "5000.0", "1; touch x", ""])
def test_a_port_that_there_is_not_is_named(port, monkeypatch):
    monkeypatch.setattr("sys.argv", ["ui", f"--port={port}"])
    refused(f"port {port}: ports are 1 to 65535", ui.main)


def test_a_port_in_use_is_named(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setattr("sys.argv", ["ui", f"--port={port}"])
        refused(f"port {port} is in use", ui.main)
