"""Other people's programs, which read what this project writes, in an environment of their own: .venv-guests/.

They want other versions of packages than this project. Set up once for each content of guests.lock, in about a minute.
"""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import filelock
import pytest

from nuclei_unet.files import file_digest
from tests import ROOT

LOCK = ROOT / "tests/guests.lock"
FOLDER = ROOT / ".venv-guests"
PYTHON = FOLDER / "bin/python"
# What pip says if there is no package index, or none that has these packages.
UNREACHABLE = "No matching distribution found|Max retries exceeded|Connection|Temporary failure|timed out"


def environment() -> Path:
    """Return the Python of the guests' environment, set up now if it is not there.

    Without a package index the test is skipped; on CI it fails.
    """
    ready = FOLDER / f".installed-{sys.version_info.major}.{sys.version_info.minor}-{file_digest(LOCK)[:16]}"
    (ROOT / ".locks").mkdir(exist_ok=True)
    with filelock.FileLock(ROOT / ".locks/guests.lock"):
        if not ready.exists():
            # First: if this is killed, no stamp says that what is left of another content is whole.
            for stamp in FOLDER.glob(".installed-*"):
                stamp.unlink()
            subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
            pip = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "2"]
            done = subprocess.run([*pip, "--require-hashes", "-r", LOCK], capture_output=True, text=True)
            if done.returncode:
                said = f"other people's programs cannot be installed: {done.stderr.strip()[-500:]}"
                offline = re.search(UNREACHABLE, done.stderr) and not os.environ.get("CI")
                (pytest.skip if offline else pytest.fail)(said)
            ready.touch()
    return PYTHON


def run(script: str, *arguments: object, ours: bool = False) -> str:
    """Run a script in the guests' environment, without a display; return what it prints, or fail with its errors.

    With `ours`, it finds this project's packages after its own: TensorFlow need not be installed twice.
    """
    if ours:
        script = f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n{script}"
    home = FOLDER / "home"  # their settings and caches
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XDG_"))}
    variables = {"HOME": str(home), "QT_QPA_PLATFORM": "offscreen", "KERAS_BACKEND": "tensorflow"}
    command = [PYTHON, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=kept | variables, capture_output=True, text=True, timeout=300)
    assert not done.returncode, f"{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout
