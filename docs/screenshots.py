"""Take the pictures of pages that README shows: `python -m docs.screenshots`, after `dvc repro` and `make compare`.

Opens the MLflow UI, as `make ui` starts it, and the two reports in Chromium, and looks for what each page has to show.
The browser is a new visitor's: it follows the printed link, and closes the Assistant that MLflow opens for newcomers.
tests/pipeline/test_dvc.py does the same with a small run. Needs Chromium or Chrome on this machine, and Playwright.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import requests
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from pipeline.process import free_port

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PICTURES = ("ui-runs", "ui-run", "ui-curves", "report", "compare")
SECONDS = 60  # to wait for something to appear
SIZE = {"width": 1440, "height": 900}


class Shown(NamedTuple):
    """A page's address, and texts that have to appear on it; which charts to look for, what to press."""

    address: str
    texts: tuple[str, ...]
    search: str = ""
    press: str = ""


def main() -> None:
    """Write docs/<name>.png for each of PICTURES."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--row", type=int, default=0, help="of the page of all runs: the run to show (0: the newest)")
    row = parser.parse_args().row
    with user_interface() as (server, scores), browser() as chromium:
        page = chromium.new_page(viewport=SIZE)
        run = run_page(page, scores, row)
        pages = mlflow_pages(server, scores, run) | reports(Path("reports"))
        for name in PICTURES:
            visit(page, pages[name])
            target = Path("docs", f"{name}.png")
            page.screenshot(path=target)
            # 256 colours are enough for a page, at a third of the bytes.
            Image.open(target).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(target, optimize=True)
            print(target)


def mlflow_pages(server: str, scores: str, run: str) -> dict[str, Shown]:
    """Return what a person looks at first in MLflow: all runs, one run, its curves, files, and the model."""
    return {
        "ui-runs": Shown(scores, ("validation/instance/dsb_score", "test/instance/dsb_score")),
        "ui-run": Shown(run, ("AP at IoU 0.50", "git_commit", "nuclei-unet"), press="Show more"),
        "ui-curves": Shown(f"{run}/model-metrics", ("curves/more", "val_loss", "val_foreground_iou")),
        "ui-learning": Shown(f"{run}/model-metrics", ("image - truth - prediction",), search="prediction"),
        "ui-system": Shown(f"{run}/system-metrics", ("cpu_utilization_percentage",)),
        "ui-files": Shown(f"{run}/artifacts", ("report.html", "figures", "per_image.csv", "images", "scores.json")),
        "ui-model": Shown(f"{server}/#/models/nuclei-unet", ("Version 1", "champion", "validation_dsb_score")),
    }


def reports(folder: Path) -> dict[str, Shown]:
    """Return the pages that stages and `make compare` write."""
    return {
        "report": Shown((folder / "report.html").absolute().as_uri(), ("By image type", "How to reproduce it")),
        "compare": Shown((folder / "compare.html").absolute().as_uri(), ("Differences, image by image", "Curves")),
    }


def run_page(page: Page, scores: str, row: int = 0) -> str:
    """Go to a run from the page of all runs, as a new visitor does; return its address. Row 0 is the newest one."""
    page.goto(scores)
    # MLflow opens its Assistant once for each browser, over a quarter of the window.
    page.get_by_label("Close", exact=True).click(timeout=SECONDS * 1000)
    page.locator('[role="row"] a[href*="/runs/"]').nth(row).click(timeout=SECONDS * 1000)
    page.wait_for_url("**/runs/*", timeout=SECONDS * 1000)
    return page.url


def visit(page: Page, shown: Shown) -> None:
    """Open a page and wait until it shows all it has to. Raises playwright's TimeoutError if it does not."""
    page.goto("about:blank")
    page.goto(shown.address)
    if shown.search:
        page.get_by_placeholder("Search metric charts").fill(shown.search, timeout=SECONDS * 1000)
    if shown.press:
        page.get_by_text(shown.press).first.click(timeout=SECONDS * 1000)
    for text in shown.texts:
        page.get_by_text(text).first.wait_for(state="attached", timeout=SECONDS * 1000)
    # Charts and pictures come after the text.
    page.wait_for_timeout(2000)
    page.wait_for_function("[...document.images].every(image => image.complete)", timeout=SECONDS * 1000)


def answers(server: str) -> None:
    """Wait until a server answers."""
    for _ in range(SECONDS * 2):
        with contextlib.suppress(requests.ConnectionError):
            requests.get(f"{server}/health", timeout=SECONDS).raise_for_status()
            return
        time.sleep(0.5)
    raise SystemExit(f"{server} does not answer")


@contextmanager
def user_interface(folder: Path = Path(), environment: dict[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """Start the MLflow UI as `make ui` does; yield the server's address and that of the page of all runs."""
    port = free_port()
    command = [sys.executable, "-m", "pipeline.tools.ui", "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
                                   start_new_session=True)  # fmt: skip
        try:
            lines = [process.stdout.readline().strip()]
            while lines[-1] and not lines[-1].startswith("MLflow: "):
                lines.append(process.stdout.readline().strip())
            page = next((line.split()[1] for line in lines if line.startswith("nuclei-unet: ")), None)
            if not page:
                log.seek(0)
                raise SystemExit(f"the MLflow UI has no experiment nuclei-unet\n{log.read()}")
            server = f"http://127.0.0.1:{port}"
            answers(server)
            yield server, page
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # and its workers
            process.wait()


@contextmanager
def browser() -> Iterator[Browser]:
    """Start this machine's Chromium."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not program:
        raise SystemExit("no Chromium or Chrome found; install one (apt install chromium)")
    with sync_playwright() as playwright:
        # Its sandbox does not start for root, as in containers; only this project's own pages are opened.
        yield playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])


if __name__ == "__main__":
    main()
