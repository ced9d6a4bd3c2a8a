"""Pictures of images, true and predicted nuclei, drawn with matplotlib; nothing here reads a file."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nuclei_unet.evaluation.metrics import overlap_matrix
from nuclei_unet.evaluation.outcomes import Outcome, errors
from pipeline.report.style import COLOURS, rgb

MAX_SIDE = 512  # px on screen; larger images are shrunk
ROW = 2.35  # inches that a panel of a row is wide


@dataclass(frozen=True)
class Example:
    """One image to show: native pixels uint8 or uint16 (H, W, 3), and label images uint16 (H, W)."""

    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    caption: tuple[str, ...]  # short id, image_type, and more in order of importance


def error_map(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the Outcome of each pixel's nucleus, uint8 (H, W), 0 = background.

    Where a true and a predicted nucleus overlap, the predicted one is shown; a missed nucleus covers all others.
    """
    of_truth, of_predicted = errors(truth, predicted)
    true_pixels = _by_label(truth, of_truth)
    pixels = _by_label(predicted, of_predicted)
    # A correct nucleus is drawn as predicted; a rim that only the truth has is not another nucleus.
    behind = (pixels == 0) & (true_pixels != Outcome.CORRECT)
    pixels[behind] = true_pixels[behind]
    pixels[true_pixels == Outcome.MISSED] = Outcome.MISSED
    return pixels


def _by_label(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Replace the i-th label (H, W) in ascending order by values[i], (n, ...), and 0 by zeros."""
    numbers = np.unique(labels[labels > 0])
    table = np.concatenate([np.zeros_like(values, shape=(1, *values.shape[1:])), values])
    return table[np.where(labels > 0, np.searchsorted(numbers, labels) + 1, 0)]


def stretch(image: np.ndarray) -> np.ndarray:
    """Stretch the contrast of an image (H, W, 3) of any real dtype between its 0.5 and 99 percentiles to uint8.

    All channels alike, so that colours keep their hue.
    """
    low, high = np.percentile(image, (0.5, 99))
    return np.rint(np.clip((image - low) / max(high - low, 1e-6), 0, 1) * 255).astype(np.uint8)


def coloured(image: np.ndarray, truth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Paint each nucleus of `labels` over a darkened image; return uint8 (H, W, 3).

    A nucleus has the colour of the true nucleus that it shares most pixels with, so `truth` itself and a perfect
    prediction look alike, and a merger shows as one colour over two nuclei. One that touches no true nucleus is white.
    """
    overlap = overlap_matrix(truth, labels)[:, 1:]
    overlap[0] = 0
    palette = np.array([(255, 255, 255)] + [_hue(i) for i in range(overlap.shape[0] - 1)], np.uint8)
    picture = _darkened(image)
    picture[labels > 0] = _by_label(labels, palette[overlap.argmax(axis=0)])[labels > 0]
    picture[_seams(labels)] //= 3
    return picture


def _hue(index: int) -> tuple[int, int, int]:
    # Steps of the golden ratio never repeat a hue. Consecutive nuclei, which are often neighbours, differ strongly.
    red, green, blue = colorsys.hls_to_rgb(index * 0.618034 % 1, (0.55, 0.7)[index % 2], 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def coloured_errors(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Paint an error map (see `error_map`) over a darkened image; return uint8 (H, W, 3).

    Lines separate touching nuclei: predicted ones, and also true ones where the prediction is wrong.
    """
    colours = np.array([rgb(COLOURS[outcome]) for outcome in Outcome], np.uint8)
    picture = _darkened(image)
    picture[outcomes > 0] = colours[outcomes[outcomes > 0] - 1]
    picture[_seams(predicted) | (_seams(truth) & (outcomes != Outcome.CORRECT))] //= 3
    return picture


def _darkened(image: np.ndarray) -> np.ndarray:
    return np.repeat(image.mean(axis=2, keepdims=True) * 0.35, 3, axis=2).astype(np.uint8)


def _seams(labels: np.ndarray) -> np.ndarray:
    """Mark the pixels (H, W) whose right or lower neighbour belongs to another nucleus."""
    seams = np.zeros(labels.shape, bool)
    seams[:-1] |= (labels[:-1] != labels[1:]) & (labels[:-1] > 0) & (labels[1:] > 0)
    seams[:, :-1] |= (labels[:, :-1] != labels[:, 1:]) & (labels[:, :-1] > 0) & (labels[:, 1:] > 0)
    return seams


def shown(example: Example, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return what a panel shows, with `side` px on its longer side: image, truth, prediction, error map.

    The image is stretched, uint8 (h, w, 3). The errors are found at native size: shrinking could change a match.
    """
    height, width = example.truth.shape
    scale = min(side, MAX_SIDE) / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = cv2.resize(stretch(example.image), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    # Labels are names, not numbers: nearest pixel.
    maps = example.truth, example.predicted, error_map(example.truth, example.predicted)
    return image, *(cv2.resize(m, size, interpolation=cv2.INTER_NEAREST_EXACT) for m in maps)


def crop(example: Example, side: int) -> Example:
    """Return the square of at most `side` px with the largest area of true nuclei."""
    height, width = example.truth.shape
    side = min(side, height, width)
    sums = cv2.integral((example.truth > 0).astype(np.uint8))  # (H + 1, W + 1): of all pixels above and to the left
    covered = sums[side:, side:] - sums[side:, :-side] - sums[:-side, side:] + sums[:-side, :-side]
    top, left = np.unravel_index(covered.argmax(), covered.shape)
    part = np.s_[top : top + side, left : left + side]
    return replace(example, image=example.image[part], truth=example.truth[part], predicted=example.predicted[part])


def error_rows(examples: Sequence[Example], dpi: int) -> Figure:
    """Draw one row per example: image, truth, prediction, errors."""
    aspects = [float(np.clip(e.truth.shape[0] / e.truth.shape[1], 0.4, 1)) for e in examples]
    height = sum(aspects) * ROW + 0.3 * len(examples) + 0.5
    figure, axes = _grid(len(examples), 4, (4 * ROW + 0.3, height), dpi, height_ratios=aspects)
    for row, example in zip(axes, examples, strict=True):
        image, truth, predicted, outcomes = shown(example, round(ROW * dpi))
        errors_shown = coloured_errors(image, truth, predicted, outcomes)
        _fill(row, image, coloured(image, truth, truth), coloured(image, truth, predicted), errors_shown)
        _caption(row, example)
    for ax, name in zip(axes[-1], ("image", "truth", "prediction", "errors"), strict=True):
        ax.set_xlabel(name)
    keys = [Patch(color=COLOURS[outcome], label=outcome.name.lower()) for outcome in Outcome]
    figure.legend(handles=keys, loc="outside lower right", ncols=len(keys))
    return figure


def prediction_rows(
    examples: Sequence[Example], others: Sequence[np.ndarray], names: Sequence[str], dpi: int
) -> Figure:
    """Draw one row per example: image, truth, its prediction in `others`, uint16 (H, W), its own; `names` of both."""
    figure, axes = _grid(len(examples), 4, (4 * ROW + 0.3, len(examples) * (ROW + 0.3) + 0.3), dpi)
    for row, example, other in zip(axes, examples, others, strict=True):
        image, truth, predicted, _ = shown(crop(example, 256), round(ROW * dpi))
        before = shown(crop(replace(example, predicted=other), 256), round(ROW * dpi))[2]
        _fill(row, image, *(coloured(image, truth, labels) for labels in (truth, before, predicted)))
        _caption(row, example)
    for ax, name in zip(axes[-1], ("image", "truth", *names), strict=True):
        ax.set_xlabel(name)
    return figure


def example_columns(examples: Sequence[Example], dpi: int) -> Figure:
    """Draw one column per example, 256 px of it: image, truth, prediction."""
    inches = 2.4
    figure, axes = _grid(3, len(examples), (inches * len(examples) + 0.3, 3 * inches + 0.5), dpi, pad=0.02)
    for column, example in zip(axes.T, examples, strict=True):
        image, truth, predicted, _ = shown(crop(example, 256), round(inches * dpi))
        _fill(column, image, coloured(image, truth, truth), coloured(image, truth, predicted))
        column[0].set_title("\n".join(example.caption[1:3]), fontsize=8.5)
    for ax, name in zip(axes[:, 0], ("image", "truth", "prediction"), strict=True):
        ax.set_ylabel(name)
    return figure


def _grid(
    rows: int, columns: int, inches: tuple[float, float], dpi: int, pad: float = 0.03, **more
) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=inches, dpi=dpi)
    figure.get_layout_engine().set(w_pad=pad, h_pad=pad, wspace=0, hspace=0)
    return figure, figure.subplots(rows, columns, squeeze=False, **more)


def _fill(panels: Sequence[Axes], *pictures: np.ndarray) -> None:
    for ax, pixels in zip(panels, pictures, strict=True):
        ax.imshow(pixels, interpolation="antialiased")
        ax.grid(visible=False)
        ax.set(xticks=[], yticks=[], anchor="W")
        ax.spines[:].set_visible(False)


def _caption(row: Sequence[Axes], example: Example) -> None:
    """Write an example's caption over all panels of its row."""
    text = row[0].text(0, 1.03, "  ·  ".join(example.caption), fontsize=8.5, transform=row[0].transAxes)
    # Outside the layout, it does not widen the first panel. The empty title of the second one reserves its height.
    text.set_in_layout(False)
    row[1].set_title(" ", fontsize=8.5)
