"""Trainings that are stopped and go on."""

import keras
import numpy as np
import pytest

from nuclei_unet.training import resume
from tests.nuclei_unet.training import hostile_states
from tests.nuclei_unet.training.examples import Stopped, same_training, stop_at, trained


def test_a_stopped_training_goes_on_with_the_same_bits(long_training, tmp_path, capsys):
    state = tmp_path / "train-1.npz"
    for last in (3, 4):
        with pytest.raises(Stopped):
            trained(long_training, state=state, log_epoch=stop_at(last))
    calls = []
    same_training(trained(long_training, calls, state), trained(long_training))
    assert "going on after epoch 3 of 4" in capsys.readouterr().out
    # A tracker gets the earlier epochs too.
    assert [epoch for epoch, _ in calls] == [1, 2, 3, 4]
    assert list(tmp_path.iterdir()) == [state]


def test_early_stopping_stays_where_it_was(long_training, tmp_path):
    # Nothing gets better: the first epoch is the best, and the fourth is the last.
    params = long_training.model_copy(update={"epochs": 8, "early_stopping": 3, "learning_rate": 1e-12})
    params = params.model_copy(update={"model": params.model.model_copy(update={"normalization": "none"})})
    whole, state = trained(params), tmp_path / "train-1.npz"
    with pytest.raises(Stopped):
        trained(params, state=state, log_epoch=stop_at(3))
    same_training(trained(params, state=state), whole)
    # It had stopped; after a kill before the model was written it does not go on.
    same_training(trained(params, state=state), whole)
    assert len(whole[1]) < 8


@pytest.mark.parametrize("kind", hostile_states.STATES)
def test_a_state_that_means_harm_is_left_aside(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = [keras.Variable(np.ones(3, np.float32))]
    np.savez("train-1.npz", state='{"epoch": 1, "best_weights": 0, "best": {}, "rows": []}', variable0=np.ones(3))
    state, rows = tmp_path / "train-1.npz", []
    assert resume.KeepState(state, variables, None, rows).epoch == 1
    hostile_states.STATES[kind](state)
    assert resume.KeepState(state, variables, None, rows).epoch == 0 and not rows
    assert "train-1.npz is damaged; starting from the first epoch" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [state]


def test_the_state_is_reused_only_if_settings_files_and_machine_are_unchanged(long_training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, code, folder = tmp_path / "data", tmp_path / "code.py", tmp_path / "states"
    for made in (data, folder):
        made.mkdir()
    (data / "manifest.csv").write_text("a")
    code.write_text("a")

    def state(settings=long_training, machine="float32"):
        return resume.state_file(folder, settings, machine, [data, code])

    first = state()
    first.touch()
    assert state() == first and first.exists()
    others = [state(machine="mixed_bfloat16"), state(long_training.model_copy(update={"seed": 3}))]
    (data / "manifest.csv").write_text("b")
    others.append(state())
    code.write_text("b")
    others.append(state())
    assert len({first, *others}) == 5
    # It can never be taken up again, and goes.
    assert not first.exists()
