"""Processes that the project starts: their environment, and the ports that they serve on."""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

# Variables that point a command at other data, other runs or another project.
OUTSIDE = ("DSB2018", "DVC", "MLFLOW")


def environment(without: Sequence[str] = (), **more: str) -> dict[str, str]:
    """Return the variables for a child process: this Python first on PATH, `more` set, prefixes in `without` dropped.

    Stages call plain `python`, which has to be the one that runs now.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(tuple(without))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path} | more


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def is_served(port: int) -> bool:
    """Tell whether somebody answers on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
