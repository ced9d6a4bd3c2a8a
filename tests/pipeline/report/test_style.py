"""Figures as they are written: the same bytes whatever the user's settings, and colours that stay exact."""

import matplotlib
import numpy as np

from pipeline.dataset import processed as dataset
from pipeline.report import charts as figures
from pipeline.report.pictures import Example, error_rows
from pipeline.report.style import write_figure
from tests.pipeline.examples import history


def test_figures_ignore_the_users_own_settings(tmp_path):
    write_figure(tmp_path / "plain.png", figures.training_curves, history(), 50)
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "lines.linewidth": 9}):
        write_figure(tmp_path / "odd.png", figures.training_curves, history(), 50)
    data = (tmp_path / "plain.png").read_bytes()
    assert data == (tmp_path / "odd.png").read_bytes()
    assert not any(chunk in data for chunk in (b"tEXt", b"iTXt", b"tIME", b"eXIf"))


def test_written_figures_keep_the_colours_that_mean_something(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    truth = np.zeros((40, 40), np.uint16)
    truth[10:20, 10:30] = 1
    write_figure(tmp_path / "rows.png", error_rows, [Example(noise, truth, truth, ("id", "image_type", "score"))], 60)
    colours = {tuple(colour) for colour in dataset.read_image(tmp_path / "rows.png").reshape(-1, 3).tolist()}
    assert {(255, 255, 255), (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0xF0, 0xE4, 0x42)} <= colours
