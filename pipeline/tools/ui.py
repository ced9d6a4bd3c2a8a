"""Start the MLflow UI on the runs of this project, and print the addresses of their scores: `make ui`."""

import argparse
import os
import sys

from nuclei_unet.errors import InputError
from pipeline import process, stage
from pipeline.tracking import store


def main() -> None:
    """Print the pages, and become the server; a remote one is already running."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", default="5000")
    text = parser.parse_args().port
    port = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
    if not 0 < port < 2**16:
        raise InputError(f"port {text}: ports are 1 to 65535; choose another one: make ui PORT=5000")
    uri = store.store()
    remote = uri.startswith("http")
    server = uri.rstrip("/") if remote else f"http://127.0.0.1:{port}"
    if not remote and process.is_served(port):
        raise InputError(f"port {port} is in use; choose another one: make ui PORT={port + 1}")
    for name, page in store.pages(server).items():
        print(f"{name}: {page}")
    print(f"MLflow: {server}" + ("" if remote else "   (Ctrl-C ends it)"), flush=True)
    if not remote:
        # One worker is enough for a person, and starts sooner.
        options = f"--workers 1 --host 127.0.0.1 --port {port} --backend-store-uri".split()
        os.execv(sys.executable, [sys.executable, "-m", "mlflow", "ui", *options, uri])


if __name__ == "__main__":
    stage.run(main)
