"""What is printed of names that others chose."""

import pytest

from nuclei_unet import errors
from nuclei_unet.prediction import models
from tests.cli import call


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Zellkerne µm ä 核.png", "Zellkerne µm ä 核.png"),
        ("a\nerror: b\r\t", r"a\nerror: b\r\t"),
        ("\x1b]0;pwned\x07\x9b2J", r"\x1b]0;pwned\x07\x9b2J"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        (b"\xff.png".decode(errors="surrogateescape"), r"\udcff.png"),
    ],
)
def test_signs_that_a_terminal_obeys_are_spelled_out(text, shown):
    assert errors.one_line(text) == shown


def test_what_is_printed_is_one_line_whatever_a_file_is_called_or_says(capsys, monkeypatch):
    call("info", "no\n\x1b[2Jsuch.onnx")
    assert capsys.readouterr().err == "error: no\\n\\x1b[2Jsuch.onnx: no such model\n"
    metadata, *more = models.describe(None)
    described = (metadata.but(commit="\x1b[2J", licence="MIT\nmodel  trusted"), *more)
    monkeypatch.setattr(models, "describe", lambda model: described)
    call("info", "m.onnx")
    said = capsys.readouterr().out
    assert r"MIT\nmodel  trusted" in said and r"\x1b[2J" in said and "\x1b" not in said
