"""What is printed of names that others chose."""

import onnx
import pytest

from nuclei_unet import errors
from nuclei_unet.commands.main import main
from nuclei_unet.prediction import models
from nuclei_unet.prediction.engine import CARD


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


def test_info_shows_what_a_model_says_in_one_line(tmp_path, capsys):
    model = onnx.load_model(models.PRETRAINED)
    (entry,) = (entry for entry in model.metadata_props if entry.key == CARD)
    metadata = models.describe(None)[0]
    metadata = metadata.model_copy(update={"commit": "\x1b[2J"})
    entry.value = metadata.model_copy(update={"licence": "MIT\nmodel  trusted", "recipe": metadata}).dump()
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SystemExit):
        main(["info", str(tmp_path / "m.onnx")])
    said = capsys.readouterr().out
    assert r"MIT\nmodel  trusted" in said and r"\x1b[2J" in said and "\x1b" not in said
