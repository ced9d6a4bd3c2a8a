import sys

import numpy as np
import pytest
from PIL import Image

from nuclei_unet.formats.reading import find_images, open_images
from tests.refusals import refused

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6)


@pytest.fixture
def tree(here):
    """Files of no content: they are found by name."""
    names = (
        "a/img10.tif a/img2.tif a/img2.TIF a/deep/er/x.png a/notes.txt a/.hidden.tif a/.trash/y.tif b/img2.tif c/z.csv"
    )
    for name in [*names.split(), "a/cells.zarr/.zgroup", "a/cells.zarr/0/picture.png", "a/b[1].jpg"]:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return here


def found(*inputs):
    return [(path.as_posix(), relative.as_posix()) for path, relative in find_images(inputs)]


def test_a_folder_with_all_in_it(tree):
    names = ["b[1].jpg", "cells.zarr", "deep/er/x.png", "img2.TIF", "img2.tif", "img10.tif"]
    assert found("a") == [(f"a/{name}", name) for name in names]
    assert found(f"{tree}/a/") == [(f"{tree}/a/{name}", name) for name in names]
    assert found("a/deep") == [("a/deep/er/x.png", "er/x.png")]


def test_files_keep_their_names(tree):
    assert found("a/img10.tif", "a/deep/er/x.png") == [("a/img10.tif", "img10.tif"), ("a/deep/er/x.png", "x.png")]
    assert found("a/.hidden.tif") == [("a/.hidden.tif", ".hidden.tif")]
    assert found("a/b[1].jpg") == [("a/b[1].jpg", "b[1].jpg")]
    assert found("a/cells.zarr") == [("a/cells.zarr", "cells.zarr")]


def test_patterns(tree):
    assert found("a/*.tif") == [("a/img2.tif", "img2.tif"), ("a/img10.tif", "img10.tif")]
    assert found("a/img?.tif") == [("a/img2.tif", "img2.tif")]
    assert [name for _, name in found("a/*")] == ["b[1].jpg", "cells.zarr", "img2.TIF", "img2.tif", "img10.tif"]
    assert found("**/*.png") == [("a/deep/er/x.png", "a/deep/er/x.png")]
    assert found("a/**/x.png") == [("a/deep/er/x.png", "deep/er/x.png")]
    assert found("a/**") == found("a")
    assert found(f"{tree}/b/*.tif") == [(f"{tree}/b/img2.tif", "img2.tif")]


def test_each_file_once(tree):
    assert found("a/img2.tif", "a/img*.tif", "a/../a/img2.tif") == found("a/img*.tif")
    (tree / "link.tif").symlink_to(tree / "a/img2.tif")
    assert found("a/img2.tif", "link.tif") == [("a/img2.tif", "img2.tif")]
    (tree / "b" / "again").symlink_to(tree / "b")
    assert found("b") == [("b/img2.tif", "img2.tif")]
    # The same name in two folders is told apart.
    assert found("a/img2.tif", "b") == [("a/img2.tif", "a/img2.tif"), ("b/img2.tif", "b/img2.tif")]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nowhere", "nowhere: no such file or folder"),
        ("nowhere.tif", "no such file"),
        ("c", "c: no image there; those that can be read are .bmp, "),
        ("a/*.czi", "no image there"),
        ("a/notes.txt", "a/notes.txt: not an image that can be read; these are .bmp, .* and .zarr"),
    ],
)
def test_what_cannot_be_found(tree, given, said):
    refused(said.replace("*.czi", ""), find_images, ["a", given])


def test_the_content_decides(tmp_path):
    for form, name in (("png", "a.tif"), ("tiff", "b.png"), ("bmp", "c.czi")):
        Image.fromarray(GREY).save(tmp_path / name, form)
        (image,) = open_images(tmp_path / name)
        np.testing.assert_array_equal(image.load(), GREY)


def test_what_is_not_there_a_folder_or_no_image(tmp_path):
    path = tmp_path / "a.tif"
    refused(r"a\.tif: cannot be read \(.*No such file", open_images, path)
    refused("cannot be read", open_images, tmp_path)
    for content, said in ((b"", "the file is empty"), (b"text, " * 9, "not an image that can be read: neither .bmp")):
        path.write_bytes(content)
        refused(rf"{path}: {said}", open_images, path)


@pytest.mark.parametrize(
    "start",
    [
        *(b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"ZISRAWFILE"),
        *(b"\xda\xce\xbe\x0a", b"\0\0\0\x0cjP  \r\n\x87\n", b"\x70\0\0\0\x10\0\0\0\x2a"),
    ],
)
def test_files_with_nothing_behind_their_first_bytes(tmp_path, start, capfd):
    for rest in (b"", b"\0" * 100, bytes(range(256)) * 4):
        (tmp_path / "a.tif").write_bytes(start + rest)
        refused(r"^[^\n]*a\.tif: [^\n]+$", open_images, tmp_path / "a.tif")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "start", "library", "extra"),
    [
        ("a.czi", b"ZISRAWFILE", "pylibCZIrw", "czi"),
        ("a.nd2", b"\xda\xce\xbe\x0a", "nd2", "nd2"),
        ("a.lif", b"\x70\0\0\0\x10\0\0\0\x2a", "liffile", "lif"),
        ("a.zarr", None, "zarr", "zarr"),
    ],
)
def test_a_missing_library_is_named_with_what_installs_it(tmp_path, monkeypatch, name, start, library, extra):
    path = tmp_path / name
    path.mkdir() if start is None else path.write_bytes(start)
    for module in [module for module in sys.modules if module.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    assert refused("needs", open_images, path) == f"{path}: needs {library}: pip install 'nuclei-unet[{extra}]'"
