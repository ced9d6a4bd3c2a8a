"""The download stage against a local server that misbehaves, and against folders of archives."""

import hashlib
import os
import socket
import threading
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from nuclei_unet.errors import InputError
from nuclei_unet.formats import kaggle
from pipeline import download, params
from pipeline.dataset import archives

DATA = bytes(range(256)) * 4000
FILES = {"a/images/a.png": b"image a", "a/masks/m.png": b"mask", "b/images/b.png": b"image b"}
SOLUTION = b"ImageId,EncodedPixels,Height,Width,Usage\nt,1 1,3,2,Public\n"
REAL = Path(os.environ.get(download.ARCHIVES_VARIABLE) or "absent")


@pytest.fixture
def server():
    """A file server for DATA; its attributes say how it behaves, `asked` is the Range header of each request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            http = self.server
            asked = self.headers.get("Range")
            http.asked.append(asked)
            if http.failures:
                self.send_error(http.failures.pop(0))
                return
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and http.ranges else 0
            if start >= len(DATA):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(DATA)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if asked and http.ranges else 200)
            if asked and http.ranges:
                self.send_header("Content-Range", f"bytes {start + http.shift}-{len(DATA) - 1}/{len(DATA)}")
            if http.sends_length:
                self.send_header("Content-Length", str(len(DATA) - start))
            self.end_headers()
            stop = start + http.cuts.pop(0) if http.cuts else len(DATA)
            self.wfile.write(DATA[start:stop])

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.asked, http.failures, http.cuts = [], [], []
    http.ranges, http.sends_length, http.shift = True, True, 0
    http.url = f"http://127.0.0.1:{http.server_port}/data.bin"
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield http
    http.shutdown()
    http.server_close()


@pytest.fixture
def no_server() -> str:
    """The address of a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/data.bin"


def fetched(url: str, tmp_path: Path) -> bytes:
    download.fetch(url, tmp_path / "in" / "data.bin", pause=0)
    assert [path.name for path in tmp_path.glob("in/*")] == ["data.bin"]
    return (tmp_path / "in" / "data.bin").read_bytes()


def test_fetch(server, tmp_path):
    assert fetched(server.url, tmp_path) == DATA
    assert server.asked == [None]


def test_fetch_without_a_length(server, tmp_path):
    server.sends_length = False
    assert fetched(server.url, tmp_path) == DATA


def test_broken_connections_are_resumed(server, tmp_path):
    chunk = download.CHUNK_BYTES
    server.cuts = [3 * chunk, 1, 5 * chunk + 1]
    assert fetched(server.url, tmp_path) == DATA
    assert server.asked == [None, f"bytes={3 * chunk}-", f"bytes={3 * chunk}-", f"bytes={8 * chunk}-"]


def test_an_earlier_run_is_resumed(server, tmp_path):
    server.cuts = [download.CHUNK_BYTES] * download.TRIES
    with pytest.raises(InputError, match="tried 5 times.*Run again to continue"):
        fetched(server.url, tmp_path)
    assert [path.name for path in tmp_path.glob("in/*")] == ["data.bin.part"]
    assert fetched(server.url, tmp_path) == DATA
    assert server.asked[-1] == f"bytes={download.TRIES * download.CHUNK_BYTES}-"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges, server.cuts = False, [300_000]
    assert fetched(server.url, tmp_path) == DATA
    assert len(server.asked) == 2


def test_a_whole_part_needs_no_more(server, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data.bin.part").write_bytes(DATA)
    assert fetched(server.url, tmp_path) == DATA
    assert len(server.asked) == 1


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "data.bin.part").write_bytes(DATA + b"more")
    assert fetched(server.url, tmp_path) == DATA
    assert server.asked == [f"bytes={len(DATA) + 4}-", None]


def test_another_range_than_asked_for_is_not_appended(server, tmp_path):
    server.cuts, server.shift = [download.CHUNK_BYTES], 1
    assert fetched(server.url, tmp_path) == DATA
    assert server.asked == [None, f"bytes={download.CHUNK_BYTES}-", None]


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.failures = [503, 500, 429]
    assert fetched(server.url, tmp_path) == DATA


def test_a_missing_file_is_not_asked_for_again(server, tmp_path):
    server.failures = [404] * download.TRIES
    with pytest.raises(InputError, match="answered 404.*DSB2018_ARCHIVES"):
        fetched(server.url, tmp_path)
    assert len(server.asked) == 1 and not any(tmp_path.glob("in/*"))


def test_an_endless_file_is_stopped(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="sends more than"):
        fetched(server.url, tmp_path)


def test_without_network_the_message_says_what_to_do(no_server, tmp_path):
    with pytest.raises(InputError, match="cannot be downloaded") as caught:
        fetched(no_server, tmp_path)
    message = str(caught.value)
    assert no_server in message and "set DSB2018_ARCHIVES" in message and "README" in message and "\n" not in message


# The stage


def write_zip(path: Path, files: dict[str, bytes]) -> str:
    """Write a zip and return the content digest that download.py would pin for it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return archives.content_digest({name: hashlib.sha256(data).hexdigest() for name, data in files.items()})


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """An empty project folder as working directory, with archives in `given/` that the stage expects."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    given = tmp_path / "given"
    given.mkdir()
    (given / "stage1_solution.csv").write_bytes(SOLUTION.replace(b"\n", b"\r\n"))
    contents = {
        "stage1_train.zip": write_zip(given / "stage1_train.zip", FILES),
        "stage1_test.zip": write_zip(given / "stage1_test.zip", {"t/images/t.png": b"image t"}),
        "stage1_solution.csv": hashlib.sha256(SOLUTION).hexdigest(),
    }
    sources = (download.TRAIN, download.TEST, download.SOLUTION)
    sources = tuple(replace(source, content=contents[source.name]) for source in sources)
    monkeypatch.setattr(download, "SOURCES", {"bbbc038": sources})
    monkeypatch.setenv(download.ARCHIVES_VARIABLE, str(given))
    choose(monkeypatch, "bbbc038")
    return tmp_path


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


def test_the_official_container_is_told_apart(project, capsys):
    path = project / "given" / "stage1_train.zip"
    official = replace(download.SOURCES["bbbc038"][0], container=hashlib.sha256(path.read_bytes()).hexdigest())
    download.write_raw(official, path, project)
    assert capsys.readouterr().out.endswith(", official file\n")


@pytest.mark.parametrize("name", ["stage1_train.zip", "stage1_test.zip", "stage1_solution.csv"])
def test_other_content_is_refused_and_the_old_output_stays(project, name):
    download.main()
    before = (project / "data/raw/stage1_train.zip").read_bytes()
    if name.endswith(".zip"):
        write_zip(project / "given" / name, FILES | {"a/masks/m.png": b"another mask"})
    else:
        (project / "given" / name).write_bytes(SOLUTION + b"t,2 1,3,2,Public\n")
    with pytest.raises(InputError, match=rf"{name}: not the content.*expected [0-9a-f]{{64}}.*delete it and get it"):
        download.main()
    assert in_data(project) == WRITTEN
    assert (project / "data/raw/stage1_train.zip").read_bytes() == before


def test_a_truncated_archive_leaves_nothing(project):
    path = project / "given" / "stage1_test.zip"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="stage1_test.zip: not a zip, or cut short"):
        download.main()
    assert in_data(project) == []


def test_missing_folder_and_file_are_named(project, monkeypatch):
    (project / "given" / "stage1_test.zip").unlink()
    with pytest.raises(InputError, match="given/stage1_test.zip: no such file.*get it from https://data.broad"):
        download.main()
    monkeypatch.setenv(download.ARCHIVES_VARIABLE, str(project / "absent"))
    with pytest.raises(InputError, match="DSB2018_ARCHIVES names .*absent, which is not a folder"):
        download.main()
    assert in_data(project) == []


def test_downloads_are_kept_and_give_the_same_bytes(project, monkeypatch):
    download.main()
    expected = [(project / "data" / name).read_bytes() for name in WRITTEN[1:]]
    monkeypatch.delenv(download.ARCHIVES_VARIABLE)
    asked = []

    def fetch(url: str, target: Path) -> None:
        asked.append(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((project / "given" / target.name).read_bytes())

    monkeypatch.setattr(download, "fetch", fetch)
    download.main()
    download.main()
    assert asked == [source.url for source in download.SOURCES["bbbc038"]]
    assert [(project / "data" / name).read_bytes() for name in WRITTEN[1:]] == expected


def test_without_network_nothing_is_left(project, no_server, monkeypatch):
    monkeypatch.delenv(download.ARCHIVES_VARIABLE)
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    monkeypatch.setattr(download, "SOURCES", {"bbbc038": (replace(download.TRAIN, url=no_server),)})
    with pytest.raises(InputError, match="cannot be downloaded"):
        download.main()
    assert in_data(project) == ["downloads"]


def test_synthetic_needs_no_archives(project, monkeypatch):
    choose(monkeypatch, "synthetic")
    monkeypatch.setenv(download.ARCHIVES_VARIABLE, "absent")
    download.main()
    assert in_data(project) == WRITTEN
    first = [(project / "data" / name).read_bytes() for name in WRITTEN[1:]]
    with archives.open_archive(project / "data/raw/stage1_train.zip") as archive:
        masks = archives.mask_members(archive)
    assert len(masks) == 4 and all(masks.values())
    with archives.open_archive(project / "data/raw/stage1_test.zip") as archive:
        test_ids = archives.image_ids(archive)
    assert set(kaggle.read_csv(project / "data/raw/stage1_solution.csv")) == set(test_ids)
    download.main()
    assert [(project / "data" / name).read_bytes() for name in WRITTEN[1:]] == first


@pytest.mark.skipif(not REAL.is_dir(), reason="DSB2018_ARCHIVES names no folder with the real archives")
def test_real_archives_have_the_pinned_content(tmp_path):
    for source in (download.TEST, download.SOLUTION):
        download.write_raw(source, download.in_folder(source, REAL), tmp_path)
    with archives.open_archive(tmp_path / "stage1_test.zip") as archive:
        names = {key: archives.image_member(key) for key in archives.image_ids(archive)}
        shapes = {key: archives.read_image(archive, name).shape[:2] for key, name in names.items()}
    labels = {name: read() for name, read in kaggle.read_csv(tmp_path / "stage1_solution.csv").items()}
    assert len(shapes) == 65 and {key: image.shape for key, image in labels.items()} == shapes
    assert sum(int(image.max()) for image in labels.values()) == 4152
