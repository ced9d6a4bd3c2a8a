"""The command line, in this process or in one of its own."""

import argparse
import signal
import subprocess
import sys

import pytest

from nuclei_unet.commands.main import main
from tests import ROOT


def call(*arguments):
    """Run `nuclei-unet` in this process; return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, arguments)))
    return stopped.value.code


def output(capsys, run, *arguments):
    """Run a command, which must succeed; return what it prints."""
    capsys.readouterr()
    assert run(*arguments) == 0
    return capsys.readouterr().out


def error(capsys, run, *arguments):
    """Run a command, which must refuse to start; return its one line."""
    capsys.readouterr()
    assert run(*arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


def asked(command, *arguments):
    """Return what one command is asked for, as parsed."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(list(map(str, arguments)))


def start(*arguments):
    """Start Python in a process of its own, which Ctrl-C ends."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell's background jobs, and their children, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def results(folder):
    """Return the content of all files that a run left behind, by name; None for those that name times and folders."""
    files = [path for path in folder.rglob("*") if path.is_file() and ".nuclei-unet" not in path.parts]
    timed = ("run.json", "summary.html")
    return {str(file.relative_to(folder)): None if file.name in timed else file.read_bytes() for file in files}
