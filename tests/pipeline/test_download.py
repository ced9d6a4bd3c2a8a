"""The download stage against a local server that misbehaves, and against folders of archives."""

import hashlib
import os
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from nuclei_unet.formats import kaggle
from pipeline import download, params
from pipeline.dataset import archives
from tests.refusals import refused

FILES = {"a/images/a.png": b"image a", "a/masks/m.png": b"mask", "b/images/b.png": b"image b"}
SOLUTION = b"ImageId,EncodedPixels,Height,Width,Usage\nt,1 1,3,2,Public\n"
REAL = Path(os.environ.get(download.ARCHIVES_VARIABLE) or "absent")


@pytest.fixture
def server(tmp_path_factory, monkeypatch):
    """A server of the files in `folder`; it answers with each of `failures` first, and cuts as many answers short."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            http.asked.append(self.path)
            if http.failures:
                self.send_error(http.failures.pop(0))
                return
            data = (http.folder / self.path.strip("/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            http.cuts, cut = http.cuts - 1, http.cuts > 0
            self.wfile.write(data[: len(data) // 2] if cut else data)

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.folder, http.asked, http.failures, http.cuts = tmp_path_factory.mktemp("served"), [], [], 0
    http.url = f"http://127.0.0.1:{http.server_port}"
    (http.folder / "data.csv").write_bytes(SOLUTION)
    monkeypatch.setattr("pooch.core.time.sleep", lambda _: None)
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


def fetched(server, tmp_path: Path) -> bytes:
    source = download.Archive("data.csv", "data.csv", f"{server.url}/data.csv", None)
    path = download.downloaded(source, tmp_path / "in")
    assert [file.name for file in tmp_path.glob("in/*")] == ["data.csv"]
    return path.read_bytes()


def test_a_busy_server_and_a_broken_connection_are_tried_again_and_then_no_more(server, tmp_path):
    server.failures, server.cuts = [503, 429], 2
    assert fetched(server, tmp_path) == SOLUTION == fetched(server, tmp_path)
    assert len(server.asked) == download.TRIES


@pytest.mark.parametrize("failure", [404, 500])
def test_what_cannot_be_downloaded_is_named_and_leaves_nothing(failure, server, tmp_path):
    server.failures = [failure] * download.TRIES
    message = refused("cannot be downloaded", fetched, server, tmp_path)
    assert server.url in message and download.ARCHIVES_VARIABLE in message
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def write_zip(path: Path, files: dict[str, bytes]) -> str:
    """Write a zip and return the content digest that download.py would pin for it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return archives.content_digest({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})


@pytest.fixture
def project(here, monkeypatch) -> Path:
    """An empty project folder as working directory, with archives in `given/` that the stage expects."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    given = here / "given"
    given.mkdir()
    (given / "stage1_solution.csv").write_bytes(SOLUTION.replace(b"\n", b"\r\n"))
    contents = {
        "stage1_train.zip": write_zip(given / "stage1_train.zip", FILES),
        "stage1_test.zip": write_zip(given / "stage1_test.zip", {"t/images/t.png": b"image t"}),
        "stage1_solution.csv": hashlib.sha256(SOLUTION).hexdigest(),
    }
    sources = tuple(replace(source, content=contents[source.name]) for source in download.SOURCES["bbbc038"])
    monkeypatch.setattr(download, "SOURCES", {"bbbc038": sources})
    monkeypatch.setenv(download.ARCHIVES_VARIABLE, str(given))
    choose(monkeypatch, "bbbc038")
    return here


def choose(monkeypatch, source: str) -> None:
    settings = params.DownloadSettings(source=source, synthetic={"train": 4, "test": 1, "seed": 0})
    monkeypatch.setattr(params, "load", lambda: SimpleNamespace(download=settings))


def in_data(project: Path) -> list[str]:
    return sorted(path.relative_to(project / "data").as_posix() for path in (project / "data").rglob("*"))


WRITTEN = ["raw", "raw/stage1_solution.csv", "raw/stage1_test.zip", "raw/stage1_train.zip"]


def test_stage_takes_the_folder_of_archives(project, capsys):
    download.main()
    assert in_data(project) == WRITTEN
    assert (project / "data/raw/stage1_solution.csv").read_bytes() == SOLUTION
    assert capsys.readouterr().out.splitlines() == [
        "stage1_train.zip: 2 images, 1 masks, 0.0 MB, content as expected",
        "stage1_test.zip: 1 images, 0 masks, 0.0 MB, content as expected",
        "stage1_solution.csv: 2 lines, 0.0 MB, content as expected",
    ]


def test_a_relative_folder_counts_from_the_project(project, monkeypatch):
    monkeypatch.setenv(download.ARCHIVES_VARIABLE, "given")
    monkeypatch.setenv("DVC_ROOT", str(project))
    (project / "elsewhere").mkdir()
    monkeypatch.chdir(project / "elsewhere")
    download.main()
    assert in_data(project / "elsewhere") == WRITTEN


@pytest.mark.parametrize("name", ["stage1_train.zip", "stage1_test.zip", "stage1_solution.csv"])
def test_other_content_is_refused_and_the_old_output_stays(project, name):
    download.main()
    before = (project / "data/raw/stage1_train.zip").read_bytes()
    if name.endswith(".zip"):
        write_zip(project / "given" / name, FILES | {"a/masks/m.png": b"another mask"})
    else:
        (project / "given" / name).write_bytes(SOLUTION + b"t,2 1,3,2,Public\n")
    refused(rf"{name}: not the content.*expected [0-9a-f]{{64}}.*delete it and get it", download.main)
    assert in_data(project) == WRITTEN
    assert (project / "data/raw/stage1_train.zip").read_bytes() == before


def test_damaged_and_missing_archives_and_folders_are_named_and_leave_nothing(project, monkeypatch):
    path = project / "given" / "stage1_test.zip"
    path.write_bytes(path.read_bytes()[:-30])
    refused("stage1_test.zip: not a zip, or cut short", download.main)
    path.unlink()
    refused("given/stage1_test.zip: no such file.*get it from https://data.broad", download.main)
    monkeypatch.setenv(download.ARCHIVES_VARIABLE, str(project / "absent"))
    refused("DSB2018_ARCHIVES names .*absent, which is not a folder", download.main)
    assert in_data(project) == []


def test_downloads_are_kept_and_give_the_same_bytes(project, server, monkeypatch):
    download.main()
    expected = [(project / "data" / name).read_bytes() for name in WRITTEN[1:]]
    monkeypatch.delenv(download.ARCHIVES_VARIABLE)
    server.folder = project / "given"
    sources = [replace(source, url=f"{server.url}/{source.name}") for source in download.SOURCES["bbbc038"]]
    monkeypatch.setattr(download, "SOURCES", {"bbbc038": sources})
    download.main()
    download.main()
    assert server.asked == [f"/{source.name}" for source in sources]
    assert [(project / "data" / name).read_bytes() for name in WRITTEN[1:]] == expected


def test_synthetic_needs_no_archives(project, monkeypatch):
    choose(monkeypatch, "synthetic")
    monkeypatch.setenv(download.ARCHIVES_VARIABLE, "absent")
    download.main()
    assert in_data(project) == WRITTEN
    first = [(project / "data" / name).read_bytes() for name in WRITTEN[1:]]
    masks = {}
    for name in ("train", "test"):
        with archives.open_archive(project / f"data/raw/stage1_{name}.zip") as archive:
            masks[name] = archives.mask_members(archive)
    assert len(masks["train"]) == 4 and all(masks["train"].values())
    assert set(kaggle.read_csv(project / "data/raw/stage1_solution.csv")) == set(masks["test"])
    download.main()
    assert [(project / "data" / name).read_bytes() for name in WRITTEN[1:]] == first


@pytest.mark.skipif(not REAL.is_dir(), reason="DSB2018_ARCHIVES names no folder with the real archives")
def test_real_archives_have_the_pinned_content(tmp_path):
    for source in (download.TEST, download.SOLUTION):
        download.write_raw(source, download.in_folder(source, REAL), tmp_path)
    with archives.open_archive(tmp_path / "stage1_test.zip") as archive:
        names = {key: archives.image_member(key) for key in archives.mask_members(archive)}
        shapes = {key: archives.read_image(archive, name).shape[:2] for key, name in names.items()}
    labels = {name: read() for name, read in kaggle.read_csv(tmp_path / "stage1_solution.csv").items()}
    assert len(shapes) == 65 and {key: image.shape for key, image in labels.items()} == shapes
    assert sum(int(image.max()) for image in labels.values()) == 4152
