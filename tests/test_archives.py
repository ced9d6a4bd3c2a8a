"""Archives that are damaged or made to do damage, the canonical form, and the run-length code."""

import hashlib
import io
import stat
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from nuclei_unet.errors import InputError
from nuclei_unet.png import PNG_START, decode
from pipeline.dataset import archives, run_lengths


def png(image) -> bytes:
    return cv2.imencode(".png", np.asarray(image, np.uint8))[1].tobytes()


GREY = png([[0, 255], [7, 9], [1, 2]])
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


def refused(tmp_path: Path, files, match: str, subfolder: str = "") -> None:
    source = write_zip(tmp_path / "bad.zip", files)
    with pytest.raises(InputError, match=match) as caught:
        archives.repack(source, tmp_path / "out" / "raw.zip", subfolder)
    assert "bad.zip" in str(caught.value) and "\n" not in str(caught.value)
    assert not any(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("../evil.png", "'..' part"),
        ("a/images/../../../evil.png", "'..' part"),
        ("a//images/a.png", "empty"),
        ("/a/images/a.png", "absolute"),
        ("C:/a/images/a.png", "absolute"),
        ("a\\images\\x.png", "backslash"),
        ("a/masks/\u00e9.png", "printable ASCII"),
        ("a/masks/line\nbreak.png", "printable ASCII"),
        ("a/masks/m1.png", "is there twice"),
        ("a/masks/M1.png", "differs only in case"),
        ("a/masks/m1.txt", "unexpected name"),
        ("a/masks/deeper/m1.png", "unexpected name"),
        ("a/images/b.png", "unexpected name"),
        ("readme.md", "unexpected name"),
        ("c/masks/m.png", "without its image"),
    ],
)
def test_suspicious_names_are_refused(tmp_path, name, match):
    refused(tmp_path, [*FILES.items(), (name, GREY)], match)


def test_links_are_refused(tmp_path):
    refused(tmp_path, [*FILES.items(), (link("a/masks/x.png"), "/etc/passwd")], "link")


def test_names_outside_the_subfolder_are_checked_too(tmp_path):
    refused(tmp_path, [(f"top/{name}", data) for name, data in FILES.items()] + [("../x", b"")], "'..' part", "top/")


def test_bombs_are_refused(tmp_path, monkeypatch):
    refused(tmp_path, FILES | {"a/masks/x.png": bytes(3 * 2**20)}, "zip bomb")
    for limit, value, match in [
        ("MAX_FILES", 3, "holds more than"),
        ("MAX_FILE_BYTES", 60, "larger than"),
        ("MAX_TOTAL_BYTES", 200, "holds more than"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(archives, limit, value)
            refused(tmp_path, FILES, match)


def test_unknown_compression_is_refused(tmp_path):
    source = write_zip(tmp_path / "bad.zip", FILES, zipfile.ZIP_BZIP2)
    with pytest.raises(InputError, match="compression method 12"):
        archives.repack(source, tmp_path / "raw.zip")


def test_encrypted_members_are_refused(tmp_path):
    source = write_zip(tmp_path / "bad.zip", FILES)
    data = bytearray(source.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the flags of the first member in the central directory
    source.write_bytes(data)
    with pytest.raises(InputError, match="'a/images/a.png' is encrypted"):
        archives.repack(source, tmp_path / "raw.zip")


def test_damaged_archives_are_refused(tmp_path):
    source = write_zip(tmp_path / "whole.zip", FILES, zipfile.ZIP_STORED)
    data = source.read_bytes()
    middle = data.index(GREY) + len(GREY) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
    # The size that the central directory declares for the first member, with the CRC that zipfile would find.
    longer = bytearray(data)
    entry = longer.index(b"PK\x01\x02")
    longer[entry + 24 : entry + 28] = struct.pack("<I", len(GREY) + 5)
    for damaged, match in [
        (data[: len(data) // 2], "not a zip, or cut short"),
        (b"<html>sign in</html>", "not a zip"),
        (b"", "not a zip"),
        (flipped, "damaged.*download it again"),
        (bytes(longer), "damaged.*download it again"),
    ]:
        (tmp_path / "bad.zip").write_bytes(damaged)
        with pytest.raises(InputError, match=match):
            archives.repack(tmp_path / "bad.zip", tmp_path / "out" / "raw.zip")
        assert not any(tmp_path.glob("out/*"))
    with pytest.raises(InputError, match="no such file"):
        archives.repack(tmp_path / "absent.zip", tmp_path / "raw.zip")


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


def test_an_empty_subfolder_is_named(tmp_path):
    refused(tmp_path, FILES, "no files below 'top/'", "top/")


def test_canonical_form_does_not_depend_on_the_container(tmp_path):
    one = write_zip(tmp_path / "one.zip", FILES)
    entries = [("__MACOSX/a/._x", b"x"), ("top/data/a/", b""), ("top/data/.DS_Store", b"x"), ("top/readme.md", b"x")]
    for name, data in reversed(FILES.items()):
        entry = zipfile.ZipInfo(f"top/data/{name}", (2018, 1, 16, 12, 0, 0))
        entry.create_system, entry.comment = 0, b"from elsewhere"
        entries.append((entry, data))
    two = write_zip(tmp_path / "two.zip", entries, zipfile.ZIP_STORED)

    digests = [
        archives.repack(one, tmp_path / "raw1.zip"),
        archives.repack(two, tmp_path / "raw2.zip", "top/data/"),
        archives.repack(tmp_path / "raw1.zip", tmp_path / "raw3.zip"),
    ]

    assert len(set(digests)) == 1
    assert len({(tmp_path / f"raw{i}.zip").read_bytes() for i in (1, 2, 3)}) == 1
    lines = "".join(f"{hashlib.sha256(FILES[name]).hexdigest()}  {name}\n" for name in sorted(FILES))
    assert digests[0] == hashlib.sha256(lines.encode()).hexdigest()
    with archives.open_archive(tmp_path / "raw1.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
        assert archive.namelist() == sorted(FILES)
        assert {(m.compress_type, m.date_time) for m in archive.infolist()} == {(0, (1980, 1, 1, 0, 0, 0))}


def test_reading_a_canonical_zip(tmp_path):
    archives.repack(write_zip(tmp_path / "one.zip", FILES), tmp_path / "raw.zip")
    with archives.open_archive(tmp_path / "raw.zip") as archive:
        assert archives.image_ids(archive) == ["a", "b"]
        assert archives.mask_members(archive) == {"a": ["a/masks/m1.png", "a/masks/m2.png"], "b": []}
        image = archives.read_image(archive, archives.image_member("a"))
        assert image.tolist() == [[0, 255], [7, 9], [1, 2]]
        with pytest.raises(InputError, match="no member 'c/images/c.png'"):
            archives.read_image(archive, archives.image_member("c"))


def test_decode_keeps_values_and_channel_order():
    rgba = np.array([[[1, 2, 3, 4], [5, 6, 7, 8]]], np.uint8)
    assert decode(png(cv2.cvtColor(rgba, cv2.COLOR_RGBA2BGRA)), "x").tolist() == rgba.tolist()
    assert decode(png(rgba[..., 2::-1]), "x").tolist() == rgba[..., :3].tolist()
    deep = np.array([[0, 65535]], np.uint16)
    assert decode(cv2.imencode(".png", deep)[1].tobytes(), "x").tolist() == deep.tolist()


def written(image: Image.Image, form: str) -> bytes:
    """Return an image file."""
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def test_decode_takes_palettes_and_bits_for_what_they_show():
    shades = Image.new("L", (3, 1))
    shades.putdata([0, 128, 255])
    for form in ("L", "P", "LA", "RGB", "RGBA"):
        pixels = decode(written(shades.convert(form), "PNG"), "x")
        values = pixels if pixels.ndim == 2 else pixels[..., 0]
        assert values.tolist() == [[0, 128, 255]], form
    assert decode(written(Image.new("1", (1, 1), 1), "PNG"), "x").reshape(-1)[0] == 255


def test_decode_refuses_what_is_no_sound_png():
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    bomb = PNG_START + chunk + GREY[-12:]
    # A chunk that claims two gigabytes.
    place = GREY.index(b"IDAT") - 4
    claims = GREY[:place] + struct.pack(">I", 2**31 - 1) + GREY[place + 4 :]
    wrong = bytearray(GREY)
    wrong[GREY.index(b"IDAT") + 6] ^= 255
    for data, match in [
        (b"GIF89a", "x.png: no PNG"),
        (written(Image.new("CMYK", (3, 2)), "JPEG"), "no PNG"),
        (written(Image.new("F", (3, 2), float("nan")), "TIFF"), "no PNG"),
        (b"", "no PNG"),
        (GREY[:20], "without a header"),
        (GREY[:-5], "cut short"),
        (claims, "cut short"),
        (bomb, "20000 x 20000 pixels"),
        (bytes(wrong), "cannot be decoded"),
    ]:
        with pytest.raises(InputError, match=match):
            decode(data, "x.png")


pictures = npst.arrays(
    st.sampled_from([np.uint8, np.uint16]),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4])),
)


@given(pictures, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4), st.integers(0, 400))
def test_decode_of_a_png_with_other_bytes_is_an_input_error_or_an_image(image, changes, cut):
    data = bytearray(cv2.imencode(".png", image)[1].tobytes())
    for position, value in changes:
        data[position % len(data)] = value
    try:
        pixels = decode(bytes(data[: len(data) - cut % len(data)] if cut % 2 else data), "x.png")
    except InputError as error:
        assert str(error).startswith("x.png: ")
    else:
        assert pixels.dtype in (np.uint8, np.uint16) and pixels.shape[:2] == struct.unpack(">II", data[16:24])[::-1]


# Run lengths. Pixels of a 3 x 2 image are numbered  1 4
#                                                     2 5
#                                                     3 6


def test_run_lengths_count_from_one_and_down_the_columns():
    mask = run_lengths.decode_run_lengths("2 3 6 1", 3, 2, "x")
    assert mask.dtype == bool
    assert mask.tolist() == [[False, True], [True, False], [True, True]]
    assert run_lengths.encode_run_lengths(mask) == "2 3 6 1"


def test_run_lengths_of_nothing_and_all():
    assert run_lengths.encode_run_lengths(np.zeros((3, 2))) == ""
    assert not run_lengths.decode_run_lengths("", 3, 2, "x").any()
    assert run_lengths.encode_run_lengths(np.ones((3, 2), bool)) == "1 6"
    assert run_lengths.decode_run_lengths("1 6", 3, 2, "x").all()


def test_run_lengths_in_any_order_and_back():
    assert run_lengths.encode_run_lengths(run_lengths.decode_run_lengths("6 1 2 1", 3, 2, "x")) == "2 1 6 1"


@given(npst.arrays(bool, npst.array_shapes(min_dims=2, max_dims=2, max_side=12)))
def test_run_lengths_of_any_mask_and_back(mask):
    code = run_lengths.encode_run_lengths(mask)
    assert np.array_equal(run_lengths.decode_run_lengths(code, *mask.shape, "x"), mask)


@given(st.one_of(st.text(), st.lists(st.integers(-3, 9).map(str)).map(" ".join)))
@example("1\x00 2")
@example("\u0663 1")
def test_any_text_is_a_mask_or_an_input_error(code):
    try:
        mask = run_lengths.decode_run_lengths(code, 3, 2, "here")
    except InputError as error:
        assert str(error).startswith("here: ")
    else:
        assert mask.dtype == bool and mask.sum() == sum(map(int, code.split()[1::2]))


BAD_CODES = [
    ("1 2 3", "3 numbers, but run lengths are pairs"),
    ("1 two", "not a list of whole numbers"),
    ("1 1.5", "not a list of whole numbers"),
    ("99999999999999999999 1", "not a list of whole numbers"),
    ("0 2", "starts at 0"),
    ("-3 2", "starts at -3"),
    ("1 0", "length 0"),
    ("1 -1", "length -1"),
    ("6 2", "ends after the image's 6 pixels"),
    ("1 9223372036854775807", "ends after"),
    ("9223372036854775807 1", "ends after"),
    ("1 3 3 1", "starts at 3 overlaps"),
    ("3 1 1 3", "starts at 3 overlaps"),
]


@pytest.mark.parametrize(("code", "match"), BAD_CODES)
def test_wrong_run_lengths_are_named(code, match):
    with pytest.raises(InputError, match=f"^here: .*{match}"):
        run_lengths.decode_run_lengths(code, 3, 2, "here")


def solution(tmp_path: Path, *rows: str, header: str = "ImageId,EncodedPixels,Height,Width,Usage") -> Path:
    path = tmp_path / "solution.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_solution_becomes_label_images(tmp_path):
    path = solution(tmp_path, "a,1 2,3,2,Public", "b,4 1,2,2,Public", "a,2 2 6 1,3,2,Public", "c,,1,2,Public")
    labels = run_lengths.read_solution(path)
    assert {key: image.dtype for key, image in labels.items()} == dict.fromkeys("abc", np.dtype(np.uint16))
    assert labels["a"].tolist() == [[1, 0], [1, 0], [2, 2]]  # pixel 2 stays with the earlier row
    assert labels["b"].tolist() == [[0, 0], [0, 1]]
    assert labels["c"].tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("row", "match"),
    [(f"a,{code},3,2,Public", match) for code, match in BAD_CODES]
    + [
        ("a,1 1,4,2,Public", r"\(4, 2\) pixels, but \(3, 2\)"),
        ("a,1 1,x,2,Public", "Height: not a list"),
        ("a,1 1,3,0,Public", "Width: 0 is outside"),
        ("a,1 1,3,99999999,Public", "Width: 99999999 is outside"),
        ("b,1 1,20000,20000,Public", "at most 200,000,000"),
        (",1 1,3,2,Public", "ImageId is empty"),
        ("a", "line 3"),
    ],
)
def test_faults_of_a_solution_name_file_and_line(tmp_path, row, match):
    path = solution(tmp_path, "a,1 1,3,2,Public", row)
    with pytest.raises(InputError, match=match) as caught:
        run_lengths.read_solution(path)
    assert f"{path}, line 3" in str(caught.value)


def test_faults_of_the_csv_itself(tmp_path):
    with pytest.raises(InputError, match="column Height, Usage is missing"):
        run_lengths.read_solution(solution(tmp_path, header="ImageId,EncodedPixels,Width"))
    with pytest.raises(InputError, match="no such file"):
        run_lengths.read_solution(tmp_path / "absent.csv")
    for data in (b"", b"\x89PNG\xff\xfe,\x00", b"a,b\n1,2,3\n1\n1,2,3,4\n"):
        (tmp_path / "bad.csv").write_bytes(data)
        with pytest.raises(InputError, match="bad.csv"):
            run_lengths.read_solution(tmp_path / "bad.csv")
