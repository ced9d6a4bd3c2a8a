"""Where the store is, and one that does not answer."""

import os
from pathlib import Path

import pytest

from pipeline import layout
from pipeline.tracking.store import connect, pages, store
from tests.refusals import refused


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "no-such://store"])
def test_the_ui_names_a_store_that_does_not_answer(uri, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    refused(f"{uri}: MLflow does not answer", pages, uri)


@pytest.mark.parametrize("name", ["50%25 a?b=c", "Ядро #"])
def test_the_database_and_the_files_are_in_the_project_whatever_its_folder_is_called(
    name, project, tmp_path, monkeypatch
):
    folder = tmp_path / "around" / name
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    # For a process in a folder of the project, as the demo starts one.
    where = Path("demo", store(layout.DEMO).removeprefix("sqlite:///"))
    assert os.path.normpath(folder / where) == str(folder / layout.STORE)
    client, experiment = connect()
    client.log_text(client.create_run(experiment).info.run_id, "text", "file.txt")
    assert (folder / layout.STORE).stat().st_size and len(list(folder.glob("mlruns/*/artifacts/file.txt"))) == 1
    assert list(folder.parent.iterdir()) == [folder]
