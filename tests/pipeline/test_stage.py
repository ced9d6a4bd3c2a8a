"""What every stage does alike, and what dvc.yaml says of it."""

from unittest.mock import Mock

import pytest

from nuclei_unet.errors import InputError
from pipeline import stage


@pytest.fixture
def folder(here, monkeypatch):
    """Return the folder of the stage `train`, which is about to run."""
    monkeypatch.setattr("sys.argv", ["pipeline/train.py"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return here


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (InputError("params.yaml: wrong"), "error: train: params.yaml: wrong\n"),
        (InputError("a\nb: no commit"), "error: train: a\\nb: no commit\n"),
        (FileNotFoundError(2, "No such file", "a.png"), "error: train: No such file: a.png; fix this and run it "),
        (MemoryError(), "out of memory; close other programs"),
        (KeyboardInterrupt(), "train: interrupted\n"),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(error, said, folder, capsys):
    with pytest.raises(SystemExit) as caught:
        stage.run(Mock(side_effect=error))
    printed = capsys.readouterr().err
    assert said in printed and printed.count("\n") == 1 and caught.value.code


def test_a_folder_without_the_right_to_write_is_named_before_the_stage_runs(folder, monkeypatch, capsys):
    # Root may write everywhere.
    monkeypatch.setattr("os.access", lambda path, _: str(path) != "reports")
    (folder / "dvc.yaml").write_text("stages:\n  train:\n    outs: [models/a, {reports/b: {cache: false}}]\n")
    stage.run(lambda: None)
    (folder / "reports").mkdir()
    with pytest.raises(SystemExit):
        stage.run(lambda: pytest.fail("ran"))
    assert capsys.readouterr().err == "error: train: Permission denied: reports; fix this and run it again\n"


def test_dependencies_are_those_of_dvc_yaml(folder):
    (folder / "dvc.yaml").write_text("stages:\n  train:\n    deps:\n      - data/processed\n      - a.py\n")
    assert [path.as_posix() for path in stage.dependencies("train")] == ["data/processed", "a.py"]
    assert stage.outputs("evaluate") == []
    for text in ("stages: {}", "stages: [", "stages: 3"):
        (folder / "dvc.yaml").write_text(text)
        with pytest.raises(InputError, match=r"dvc\.yaml: does not say what stage train depends on"):
            stage.dependencies("train")
