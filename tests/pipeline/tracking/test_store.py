"""A store that does not answer."""

import pytest

from nuclei_unet.errors import InputError
from pipeline.tracking.store import pages


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "no-such://store"])
def test_the_ui_names_a_store_that_does_not_answer(uri, project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=f"MLFLOW_TRACKING_URI: {uri} does not answer"):
        pages(uri)
