"""Archives that are damaged or made to do damage, and the canonical form."""

import hashlib
import stat
import struct
import warnings
import zipfile
from pathlib import Path

import pytest

from nuclei_unet.errors import InputError
from pipeline.dataset import archives
from tests.images import GREY, png
from tests.refusals import refused

FILES = {"a/images/a.png": GREY, "a/masks/m2.png": png([[255]]), "a/masks/m1.png": png([[0]]), "b/images/b.png": GREY}


def write_zip(path: Path, files, compression=zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip from name -> bytes, or from pairs of name or ZipInfo and bytes."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # of duplicate names
        for entry, data in files.items() if isinstance(files, dict) else files:
            archive.writestr(entry, data)
    return path


def link(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def unpackable(tmp_path: Path, files, match: str, subfolder: str = "") -> None:
    source = write_zip(tmp_path / "bad.zip", files)
    assert "bad.zip" in refused(match, archives.repack, source, tmp_path / "out" / "raw.zip", subfolder)
    assert not any(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("a/images/../../../evil.png", "'..' part"),
        ("a//images/a.png", "empty"),
        ("/a/images/a.png", "absolute"),
        ("C:/a/images/a.png", "absolute"),
        ("a\\images\\x.png", "backslash"),
        ("a/masks/line\nbreak.png", "printable ASCII"),
        ("a/masks/m1.png", "occurs twice"),
        ("a/masks/M1.png", "differs only in case"),
        ("a/masks/deeper/m1.png", "unexpected name"),
        ("readme.md", "unexpected name"),
        ("c/masks/m.png", "without its image"),
    ],
)
def test_suspicious_names_are_refused(tmp_path, name, match):
    unpackable(tmp_path, [*FILES.items(), (name, GREY)], match)


def test_other_members_are_refused(tmp_path):
    unpackable(tmp_path, [*FILES.items(), (link("a/masks/x.png"), "/etc/passwd")], "link")
    unpackable(tmp_path, FILES, "no files below 'top/'", "top/")
    # Names outside the subfolder are checked, too.
    unpackable(tmp_path, [(f"top/{name}", data) for name, data in FILES.items()] + [("../x", b"")], "'..' part", "top/")


def test_bombs_are_refused(tmp_path, monkeypatch):
    unpackable(tmp_path, FILES | {"a/masks/x.png": bytes(3 * 2**20)}, "zip bomb")
    for limit, value, match in (("MAX_FILES", 3, "holds more"), ("MAX_FILE_BYTES", 60, "larger"),
                                ("MAX_TOTAL_BYTES", 200, "holds more")):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(archives, limit, value)
            unpackable(tmp_path, FILES, match)


def test_encrypted_members_are_refused(tmp_path):
    source = write_zip(tmp_path / "bad.zip", FILES)
    data = bytearray(source.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flags of the first member in the central directory
    source.write_bytes(data)
    refused("'a/images/a.png' is encrypted", archives.repack, source, tmp_path / "raw.zip")


def test_damaged_archives_are_refused(tmp_path):
    data = write_zip(tmp_path / "whole.zip", FILES, zipfile.ZIP_STORED).read_bytes()
    middle = data.index(GREY) + len(GREY) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    # The size that the central directory declares for the first member, with the CRC that zipfile would find.
    longer = bytearray(data)
    entry = longer.index(b"PK\x01\x02")
    longer[entry + 24 : entry + 28] = struct.pack("<I", len(GREY) + 5)
    for damaged, match in [
        *((text, "not a zip, or cut short") for text in (data[: len(data) // 2], b"<html>sign in</html>", b"")),
        *((text, "damaged.*download it again") for text in (flipped, bytes(longer))),
    ]:
        (tmp_path / "bad.zip").write_bytes(damaged)
        refused(match, archives.repack, tmp_path / "bad.zip", tmp_path / "out" / "raw.zip")
        assert not any(tmp_path.glob("out/*"))
    refused("no such file", archives.repack, tmp_path / "absent.zip", tmp_path / "raw.zip")


def test_any_byte_flipped_is_an_input_error_or_the_same_content(tmp_path):
    data = write_zip(tmp_path / "whole.zip", FILES).read_bytes()
    content = archives.repack(tmp_path / "whole.zip", tmp_path / "raw.zip")
    for position in range(len(data)):
        (tmp_path / "bad.zip").write_bytes(data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :])
        try:
            found = archives.repack(tmp_path / "bad.zip", tmp_path / "raw.zip")
        except InputError:
            continue
        if found != content:  # then a name is another one, and the pinned digest catches it
            with zipfile.ZipFile(tmp_path / "raw.zip") as archive:
                assert archive.namelist() != sorted(FILES)


def test_canonical_form_does_not_depend_on_the_container(tmp_path):
    one = write_zip(tmp_path / "one.zip", FILES)
    entries = [("__MACOSX/a/._x", b"x"), ("top/data/a/", b""), ("top/data/.DS_Store", b"x"), ("top/readme.md", b"x")]
    for name, data in reversed(FILES.items()):
        entry = zipfile.ZipInfo(f"top/data/{name}", (2018, 1, 16, 12, 0, 0))
        entry.create_system, entry.comment = 0, b"from elsewhere"
        entries.append((entry, data))
    two = write_zip(tmp_path / "two.zip", entries, zipfile.ZIP_STORED)

    digests = [archives.repack(one, tmp_path / "raw1.zip"), archives.repack(two, tmp_path / "raw2.zip", "top/data/")]
    digests.append(archives.repack(tmp_path / "raw1.zip", tmp_path / "raw3.zip"))
    assert len(set(digests)) == 1
    assert len({(tmp_path / f"raw{i}.zip").read_bytes() for i in (1, 2, 3)}) == 1
    lines = "".join(f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in sorted(FILES))
    assert digests[0] == hashlib.sha256(lines.encode()).hexdigest()
    with archives.open_archive(tmp_path / "raw1.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
        assert archive.namelist() == sorted(FILES)
        assert {(m.compress_type, m.date_time) for m in archive.infolist()} == {(0, (1980, 1, 1, 0, 0, 0))}
        assert archives.mask_members(archive) == {"a": ["a/masks/m1.png", "a/masks/m2.png"], "b": []}
        assert archives.read_image(archive, archives.image_member("a")).tolist() == [[0, 255], [7, 9], [1, 2]]
        refused("no member 'c/images/c.png'", archives.read_image, archive, archives.image_member("c"))
