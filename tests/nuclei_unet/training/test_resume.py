"""The state of a training that is stopped; see test_fit.py, too."""

import keras
import numpy as np
import pytest

from nuclei_unet.training import resume
from tests.nuclei_unet.training import hostile_states
from tests.nuclei_unet.training.examples import Stopped, same_training, stop_at, trained


@pytest.mark.slow
def test_early_stopping_stays_where_it_was(train_params, model_params, tmp_path):
    # Nothing gets better: the first epoch is the best, and the third is the last.
    plain = {"model": model_params(normalization="none"), "targets": ("foreground",), "learning_rate": 1e-12}
    params = train_params(epochs=6, early_stopping=2, **plain)
    state = tmp_path / "train-1.npz"
    with pytest.raises(Stopped):
        trained(params, state=state, log_epoch=stop_at(3))
    whole = trained(params, state=state)
    assert whole[1].epoch.tolist() == [1, 2, 3]
    # It had stopped; after a kill before the model was written it does not go on.
    same_training(trained(params, state=state), whole)


@pytest.mark.parametrize("kind", hostile_states.STATES)
def test_a_state_that_means_harm_is_left_aside(kind, here, capsys):
    variables = [keras.Variable(np.ones(3, np.float32))]
    np.savez("train-1.npz", state='{"epoch": 1, "best_weights": 0, "best": {}, "rows": []}', variable0=np.ones(3))
    state, rows = here / "train-1.npz", []
    assert resume.KeepState(state, variables, None, rows).epoch == 1
    hostile_states.STATES[kind](state)
    assert resume.KeepState(state, variables, None, rows).epoch == 0 and not rows
    assert "train-1.npz is damaged; starting from the first epoch" in capsys.readouterr().err
    assert list(here.iterdir()) == [state]


def test_the_state_is_reused_only_if_settings_files_and_machine_are_unchanged(long_training, here):
    data, code, folder = here / "data", here / "code.py", here / "states"
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
