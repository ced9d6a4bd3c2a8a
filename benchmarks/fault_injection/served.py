"""Requests to the served model that come from outside."""

import base64
import json
import os
import signal
import struct
import sys
import zlib

import requests

from benchmarks.fault_injection.project import Failed, alive, fault, wait_for
from pipeline import layout
from pipeline.process import free_port, is_served
from pipeline.tracking.models import example

JSON = "application/json"
JUNK = 50_000_000  # bytes of it


def claims(side: int) -> bytes:
    """Return a PNG of one byte of pixels whose header claims many more."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _records(*images: object, column: str = "image") -> str:
    return json.dumps({"dataframe_records": [{column: image} for image in images]})


GOOD = _base64(example())
NO_PNG, NO_ARRAY = "image 1 of 1: the file: ", "image 1 of 1: "
# Bodies, how the answer has to start, and the content type if it is not JSON.
REQUESTS = {
    "not base64": (_records("no base64!"), "image 1 of 1: neither base64 of a PNG nor an array"),
    "base64 of a text": (_records(_base64(b"a text")), f"{NO_PNG}not a PNG"),
    "a PNG of 30,000 x 30,000": (_records(_base64(claims(30_000))), f"{NO_PNG}30000 x 30000 pixels; at most"),
    "a PNG cut short": (_records(_base64(example()[:-20])), f"{NO_PNG}PNG is cut short"),
    "50 MB of base64": (_records("A" * JUNK), f"{NO_PNG}not a PNG"),
    "NaN": (_records([[1.0, float("nan")], [2, 3]]), f"{NO_ARRAY}the image has NaN or infinite values"),
    "lists of different lengths": (_records([[1, 2], [3]]), f"{NO_ARRAY}lists of different lengths"),
    "four dimensions": (_records([[[[1]]]]), f"{NO_ARRAY}expected a grey or colour image, found"),
    "one of three": (_records(GOOD, "no base64!", GOOD), "image 2 of 3: neither"),
    "no JSON": ("this is no JSON", "expected JSON: "),
    "no UTF-8": (b"\xff\xfe{}", "expected JSON: "),
    "100,000 brackets": ("[" * 100_000, "expected JSON: "),
    "50 MB of junk": ("x" * JUNK, "expected JSON: "),
    "another column": (_records(GOOD, column="picture"), "expected JSON: "),
    "CSV": ("image\nno\n", "expected JSON: ", "text/csv"),
    "broken Parquet": ("junk", "expected JSON: ", "application/vnd.apache.parquet"),
}


@fault("served model: what is no image, and requests that cannot be read", start="undisturbed", outputs=False)
def _(project):
    port = free_port()
    project.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.folder / layout.STORE}"
    process = project.start(
        *(sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/nuclei-unet@champion"),
        *("--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)),
    )

    def send(body: str | bytes, kind: str = JSON) -> requests.Response:
        address = f"http://127.0.0.1:{port}/invocations"
        return requests.post(address, body, headers={"Content-Type": kind}, timeout=120)

    try:
        wait_for(lambda: is_served(port), process)
        if process.poll() is not None:
            raise Failed(f"no server: {project.error()}")
        for name, (body, says, *kind) in REQUESTS.items():
            _check(name, send(body, *kind), says, ("Traceback", ".py", str(project.folder), sys.prefix, GOOD[:20]))
        answer = send(_records(GOOD))
        if answer.status_code != 200 or "count" not in answer.json()["predictions"][0]:
            raise Failed(f"a good request afterwards: status {answer.status_code}, {answer.text[:200]}")
    finally:
        if alive(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return (
        f"{len(REQUESTS)} kinds: each time status 400 and one line that says what is wrong. Then a good one succeeds."
    )


def _check(name: str, answer: requests.Response, says: str, private: tuple[str, ...]) -> None:
    """Fail unless an answer is status 400 and one line that holds nothing private."""
    if answer.status_code != 400 or not answer.json()["message"].startswith(says):
        raise Failed(f"{name}: status {answer.status_code}, {answer.text[:200]}")
    if len(answer.text) > 500 or "\n" in answer.json()["message"] or any(text in answer.text for text in private):
        raise Failed(f"{name}: the answer holds more than a line: {answer.text[:300]}")
