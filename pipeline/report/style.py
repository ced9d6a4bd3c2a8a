"""Colours and style of all figures, and the form in which they are written.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from collections.abc import Callable
from pathlib import Path
from typing import IO

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from nuclei_unet.evaluation.outcomes import Outcome

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#666666"


# Applied over matplotlib's defaults, so that a user's own matplotlibrc changes nothing.
STYLE = {
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


# The five of Okabe and Ito's colours that stay farthest apart (CIELAB) in simulated deuteranopia, protanopia and
# tritanopia. Correct nuclei get the least conspicuous one.
COLOURS = {
    Outcome.CORRECT: "#0072B2",
    Outcome.MISSED: "#D55E00",
    Outcome.FALSE: "#F0E442",
    Outcome.SPLIT: "#56B4E9",
    Outcome.MERGED: "#CC79A7",
}


def write(figure: Figure, target: Path | IO[bytes]) -> None:
    """Write a figure as PNG of 256 colours: half the bytes, and no date, name or version inside."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    reduced = Image.fromarray(pixels).quantize(248, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    index, palette = np.array(reduced), reduced.getpalette()
    palette += [0] * (3 * 248 - len(palette))
    # Colours that mean something stay exact; only the others are rounded to the best 248 of this figure.
    for number, colour in enumerate(("#FFFFFF", BLUE, ORANGE, *COLOURS.values()), start=248):
        index[(pixels == rgb(colour)).all(axis=2)] = number
        palette += rgb(colour)
    image = Image.fromarray(index)
    image.putpalette(palette)
    image.save(target, "PNG", optimize=True)


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue, 0 ... 255, of a colour like #0072B2."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def write_figure(target: Path | IO[bytes], draw: Callable[..., Figure], *arguments) -> None:
    """Write the figure that `draw(*arguments)` returns, in the project's style, whatever the user's settings are."""
    with matplotlib.style.context(["default", STYLE]):
        write(draw(*arguments), target)
