"""The environment of other people's programs: what happens where it cannot be set up."""

import pytest

from tests import guests


@pytest.mark.slow
def test_without_a_package_index_tests_are_skipped_but_not_on_ci(tmp_path, monkeypatch):
    lock = tmp_path / "guests.lock"
    lock.write_text(f"nuclei-unet-no-such-guest==1 --hash=sha256:{'0' * 64}\n")
    for name, path in (("LOCK", lock), ("FOLDER", tmp_path / "venv"), ("PYTHON", tmp_path / "venv/bin/python")):
        monkeypatch.setattr(guests, name, path)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    for ci, outcome in (("", pytest.skip.Exception), ("true", pytest.fail.Exception)):
        monkeypatch.setenv("CI", ci)
        with pytest.raises(outcome, match="cannot be installed: .*no-such-guest"):
            guests.environment()
    # Half an environment is not taken for a whole one.
    assert not list((tmp_path / "venv").glob(".installed-*"))
