"""Requests to the served model, and variables of make and CI, that come from outside."""

import base64
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager
from pathlib import Path

import requests
from ruamel.yaml import YAML

from benchmarks.fault_injection.project import Failed, Project, alive, fault, wait_for
from pipeline import layout
from pipeline.git import git
from pipeline.process import free_port, is_served
from pipeline.tracking.models import example

JSON = "application/json"
MILLION = 1_000_000


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _claims(side: int) -> bytes:
    """Return a PNG of one byte of pixels whose header claims many more."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(b"\0")), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _records(*images: object, column: str = "image") -> str:
    return json.dumps({"dataframe_records": [{column: image} for image in images]})


GOOD = _base64(example())
# What stands for an image in a request, and what the answer has to say.
NO_IMAGES = {
    "not base64": ("no base64!", "image 1 of 1: neither base64 of a PNG nor an array"),
    "an empty string": ("", "image 1 of 1: the file: not a PNG"),
    "base64 of a text": (_base64(b"a text"), "image 1 of 1: the file: not a PNG"),
    "an SVG": (_base64(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "image 1 of 1: the file: not a PNG"),
    "a GIF": (_base64(b"GIF89a\1\0\1\0\0\0\0;"), "image 1 of 1: the file: not a PNG"),
    "a PNG of 30,000 x 30,000": (_base64(_claims(30_000)), "image 1 of 1: the file: 30000 x 30000 pixels; at most"),
    "a PNG cut short": (_base64(example()[:-20]), "image 1 of 1: the file: PNG is cut short"),
    "NaN": ([[1.0, float("nan")], [2, 3]], "image 1 of 1: the image has NaN or infinite values"),
    "lists of different lengths": ([[1, 2], [3]], "image 1 of 1: lists of different lengths"),
    "null": (None, "image 1 of 1: an array of object; an image must be numbers"),
    "a number": (5, "image 1 of 1: expected a grey or colour image, found an array of shape ()"),
    "true": (True, "image 1 of 1: an array of bool; an image must be numbers"),
    "an array of strings": ([["a", "b"]], "image 1 of 1: an array of <U1; an image must be numbers"),
    "an object": ({"a": 1}, "image 1 of 1: an array of object; an image must be numbers"),
    "four dimensions": ([[[[1]]]], "image 1 of 1: expected a grey or colour image, found"),
    "an empty list": ([], "image 1 of 1: expected a grey or colour image, found an array of shape (0,)"),
    "numbers beyond 64 bits": ([[10**30, 1]], "image 1 of 1: an array of object; an image must be numbers"),
}
# Requests that MLflow cannot read: body and content type.
UNREADABLE = {
    "no JSON": ("this is no JSON", JSON),
    "an empty body": ("", JSON),
    "no UTF-8": (b"\xff\xfe{}", JSON),
    "100,000 brackets": ("[" * 100_000, JSON),
    "50 MB of junk": ("x" * 50 * MILLION, JSON),
    "another column": (_records(GOOD, column="picture"), JSON),
    "no records": (_records(), JSON),
    "an object without records": (json.dumps({"picture": GOOD}), JSON),
    "a string for inputs": (json.dumps({"inputs": GOOD}), JSON),
    "CSV": ("image\nno\n", "text/csv"),
    "broken Parquet": ("junk", "application/vnd.apache.parquet"),
}


@contextmanager
def _served(project: Project):
    """Serve the project's champion as docs/serving.md says; yields a function that sends a body."""
    port = free_port()
    project.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.folder / layout.STORE}"
    process = project.start(
        *(sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/nuclei-unet@champion"),
        *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
    )

    def send(body: str | bytes, kind: str | None = JSON) -> requests.Response:
        headers = {"Content-Type": kind}
        return requests.post(f"http://127.0.0.1:{port}/invocations", body, headers=headers, timeout=120)

    try:
        wait_for(lambda: is_served(port), process)
        if process.poll() is not None:
            raise Failed(f"no server: {project.error()}")
        yield send
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _refused(name: str, answer: requests.Response, says: str, folder: Path) -> None:
    """Fail unless an answer is status 400 and one line, without stack trace, path or echo."""
    if answer.status_code != 400 or not answer.json()["message"].startswith(says):
        raise Failed(f"{name}: status {answer.status_code}, {answer.text[:200]}")
    private = ("Traceback", ".py", str(folder), sys.prefix, GOOD[:20])
    if len(answer.text) > 500 or "\n" in answer.json()["message"] or any(text in answer.text for text in private):
        raise Failed(f"{name}: the answer holds more than a line: {answer.text[:300]}")


@fault("served model: what is no image, and requests that cannot be read", start="undisturbed", outputs=False)
def _(project):
    with _served(project) as send:
        for name, (image, says) in NO_IMAGES.items():
            _refused(name, send(_records(image)), says, project.folder)
        _refused("one of three", send(_records(GOOD, "no base64!", GOOD)), "image 2 of 3: neither", project.folder)
        big = _records("A" * 50 * MILLION)
        _refused("50 MB of base64", send(big), "image 1 of 1: the file: not a PNG", project.folder)
        for name, (body, kind) in UNREADABLE.items():
            _refused(name, send(body, kind), "expected JSON: ", project.folder)
        for kind in (JSON, None):
            answer = send(_records(GOOD), kind)
            if answer.status_code != 200 or "count" not in answer.json()["predictions"][0]:
                raise Failed(f"a good request afterwards: status {answer.status_code}, {answer.text[:200]}")
    number = len(NO_IMAGES) + len(UNREADABLE) + 2
    return f"{number} kinds: each time status 400 and one line that says what is wrong. A good request then succeeds."


HOSTILE = ("a;touch pwned", '"; touch pwned; "', "`touch pwned`$(touch pwned)$(shell touch pwned)", "-h")
# What starts to be run when the shell has split nothing: Git allows it as the name of a branch.
BRANCHES = ("$(touch${IFS}pwned)", "`touch${IFS}pwned`", "-h")


def _cloned(project: Project) -> Project:
    """Return a git clone of this project that counts as set up; its programs are those that run now."""
    clone = project.clone()
    lock = git("-C", str(clone.folder), "hash-object", "requirements.lock").strip()
    (clone.folder / ".venv").mkdir()
    (clone.folder / f".venv/.installed-{lock}").touch()
    return clone


def _not_run(clone: Project, *command: str, says: str) -> None:
    """Fail unless a command ends in one line that says so, ran nothing of what it was given, and left no file."""
    if not clone.run(*command):
        raise Failed(f"{command}: was not noticed")
    _untouched(clone, command)
    lines = [line for line in clone.log().splitlines() if not line.startswith("make: *** [")]
    if len(lines) != 1 or says not in lines[0]:
        raise Failed(f"{command}: no single clear line: {' '.join(clone.log().split())[:300]}")


def _untouched(clone: Project, command: tuple[str, ...]) -> None:
    changed = git("-C", str(clone.folder), "status", "--porcelain", "--untracked-files=all").split("\n")
    left = [line for line in changed if line and not line.endswith(".log")]
    if left or any(clone.folder.parent.rglob("pwned*")):
        raise Failed(f"{command}: ran or left {left}")


def _hostile_revision(target: str):
    def provoke(project: Project) -> str:
        clone = _cloned(project)
        _not_run(clone, "make", target, "REV=a\ntouch pwned", says="one line")
        for value in HOSTILE:
            _not_run(clone, "make", target, f"REV={value}", says=value)
        return f"{len(HOSTILE) + 1} values: nothing is run, one line each: {clone.error()}."

    return provoke


for target in ("compare", "verify", "summary"):
    fault(f"make {target}: REV holds commands, options, a line break", start="fresh", outputs=False)(
        _hostile_revision(target)
    )


@fault("make ui: PORT holds commands, words, numbers that are no port", start="fresh", outputs=False)
def _(project):
    clone = _cloned(project)
    for value in ("99999", "0", "abc", *HOSTILE):
        _not_run(clone, "make", "ui", f"PORT={value}", says="ports are 1 to 65535")
    return f"Nothing is run, one line each: {clone.error()}."


@fault("make adapt: IMAGES, LABELS and OUT hold commands or options", start="fresh", outputs=False)
def _(project):
    clone = _cloned(project)
    for value in HOSTILE[2:]:
        _not_run(clone, "make", "adapt", f"IMAGES={value}", f"LABELS={value}", f"OUT={value}", says="error: ")
    return f"Nothing is run, one line each: {clone.error()}."


@fault("make: LOCKFILE, TUTORIAL and PYTHON hold commands", start="fresh", outputs=False)
def _(project):
    clone = _cloned(project)
    for value in HOSTILE:
        _not_run(clone, "make", "gate", f"LOCKFILE={value}", says="requirements-gpu.lock")
    clone.run("make", "--dry-run", "tutorial", "TUTORIAL=a'; touch pwned; '")
    if "pwned" in clone.log():
        raise Failed("TUTORIAL can be replaced from outside")
    (clone.folder / f".venv/.installed-{git('hash-object', 'requirements.lock').strip()}").unlink()
    for value in HOSTILE:
        clone.run("make", "setup", f"PYTHON={value}")
        _untouched(clone, (f"PYTHON={value}",))
    return "Nothing is run; other lock files than the two are refused; nobody can replace TUTORIAL."


@fault("branches whose names are commands or options", start="fresh", outputs=False)
def _(project):
    clone = _cloned(project)
    for name in BRANCHES:
        git("-C", str(clone.folder), "update-ref", f"refs/heads/{name}", "HEAD")
        if clone.run("make", "summary", f"REV={name}"):
            raise Failed(f"make summary: {clone.error()}")
        _untouched(clone, (name,))
    script = YAML(typ="safe").load((clone.folder / ".gitlab-ci.yml").read_text())["compare"]["script"]
    (fetch,) = [line for line in script if line.startswith("git fetch")]
    for name in (*BRANCHES, "--upload-pack=touch pwned;"):
        clone.environment["CI_MERGE_REQUEST_TARGET_BRANCH_NAME"] = name
        subprocess.run(("bash", "-c", fetch), cwd=clone.folder, env=clone.environment, capture_output=True)
        _untouched(clone, (name,))
    return "Nothing is run: make summary compares with them, and the fetch of GitLab's CI takes them for names."
