"""Figures of a training run and its predictions, drawn with matplotlib; nothing here reads a file.

Charts take tables, pictures take `Example`s; each returns a matplotlib Figure. `write` turns one into a small PNG
whose bytes depend on the pixels alone. Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from PIL import Image

from nuclei_unet.metrics import iou_matrix, overlap_matrix

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

MAX_SIDE = 512  # px on screen; larger images are shrunk


class Outcome(IntEnum):
    """What became of a nucleus, true or predicted; the numbers index an error map, where 0 is background."""

    CORRECT = 1
    MISSED = 2
    FALSE = 3
    SPLIT = 4
    MERGED = 5


# These five are the choice of Okabe and Ito's colours that stays farthest apart (CIELAB) in simulated deuteranopia,
# protanopia and tritanopia; what is right gets the least conspicuous one.
COLOURS = {
    Outcome.CORRECT: "#0072B2",
    Outcome.MISSED: "#D55E00",
    Outcome.FALSE: "#F0E442",
    Outcome.SPLIT: "#56B4E9",
    Outcome.MERGED: "#CC79A7",
}


@dataclass(frozen=True)
class Example:
    """One image to show: native pixels uint8 or uint16 (H, W, 3), and label images uint16 (H, W)."""

    image: np.ndarray
    truth: np.ndarray
    predicted: np.ndarray
    caption: tuple[str, ...]  # short id, kind, and more in order of importance


def errors(truth: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say what became of each nucleus of two label images (H, W).

    correct : a true and a predicted nucleus whose IoU is above 0.5
    merged : an unmatched prediction that holds more than half of each of two or more true nuclei, and those nuclei
    split : an unmatched true nucleus that holds more than half of each of two or more predictions, and those
    missed : any other true nucleus
    false : any other prediction

    A nucleus that is part of a merger and of a split counts as merged.

    Returns
    -------
    Outcomes of the true and of the predicted nuclei, uint8 (n_truth,) and (n_predicted,), labels in ascending order.
    """
    overlap = overlap_matrix(truth, predicted)
    matched = iou_matrix(truth, predicted) > 0.5
    in_prediction = overlap[1:, 1:] * 2 > overlap[1:].sum(axis=1, keepdims=True)  # most of the true nucleus
    in_truth = overlap[1:, 1:] * 2 > overlap[:, 1:].sum(axis=0, keepdims=True)  # most of the predicted one
    merging = ~matched.any(axis=0) & (in_prediction.sum(axis=0) >= 2)
    divided = ~matched.any(axis=1) & (in_truth.sum(axis=1) >= 2)

    of_truth = np.full(matched.shape[0], Outcome.MISSED, np.uint8)
    of_truth[divided] = Outcome.SPLIT
    of_truth[in_prediction[:, merging].any(axis=1)] = Outcome.MERGED
    of_truth[matched.any(axis=1)] = Outcome.CORRECT
    of_predicted = np.full(matched.shape[1], Outcome.FALSE, np.uint8)
    of_predicted[in_truth[divided].any(axis=0)] = Outcome.SPLIT
    of_predicted[merging] = Outcome.MERGED
    of_predicted[matched.any(axis=0)] = Outcome.CORRECT
    return of_truth, of_predicted


def error_map(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return the Outcome of each pixel's nucleus, uint8 (H, W), 0 = background.

    Where a true and a predicted nucleus overlap, the predicted one shows; a missed nucleus shows over all others.
    """
    of_truth, of_predicted = errors(truth, predicted)
    true_pixels = _by_label(truth, of_truth)
    pixels = _by_label(predicted, of_predicted)
    # A correct nucleus is drawn as predicted; a rim that only the truth has is no nucleus of its own.
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
    # Steps of the golden ratio never come back to a hue, and neighbours in number, often in space, differ much.
    red, green, blue = colorsys.hls_to_rgb(index * 0.618034 % 1, (0.55, 0.7)[index % 2], 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def coloured_errors(image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, outcomes: np.ndarray) -> np.ndarray:
    """Paint an error map (see `error_map`) over a darkened image; return uint8 (H, W, 3).

    Lines part nuclei that touch: predicted ones, and where the prediction is wrong true ones.
    """
    colours = np.array([_rgb(COLOURS[outcome]) for outcome in Outcome], np.uint8)
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
    """Return what a panel shows, its longer side `side` px: image, truth, prediction, error map.

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
    """Return the square of at most `side` px of which the true nuclei cover most."""
    height, width = example.truth.shape
    side = min(side, height, width)
    sums = cv2.integral((example.truth > 0).astype(np.uint8))  # (H + 1, W + 1): of all pixels above and to the left
    covered = sums[side:, side:] - sums[side:, :-side] - sums[:-side, side:] + sums[:-side, :-side]
    top, left = np.unravel_index(covered.argmax(), covered.shape)
    part = np.s_[top : top + side, left : left + side]
    return replace(example, image=example.image[part], truth=example.truth[part], predicted=example.predicted[part])


def error_rows(examples: Sequence[Example], dpi: int) -> Figure:
    """Draw a row an example: image, truth, prediction, errors."""
    inches = 2.35
    aspects = [float(np.clip(e.truth.shape[0] / e.truth.shape[1], 0.4, 1)) for e in examples]
    figure = Figure(figsize=(4 * inches + 0.3, sum(aspects) * inches + 0.3 * len(examples) + 0.5), dpi=dpi)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    axes = figure.subplots(len(examples), 4, squeeze=False, height_ratios=aspects)
    for row, example in zip(axes, examples, strict=True):
        image, truth, predicted, outcomes = shown(example, round(inches * dpi))
        _picture(row[0], image)
        _picture(row[1], coloured(image, truth, truth))
        _picture(row[2], coloured(image, truth, predicted))
        _picture(row[3], coloured_errors(image, truth, predicted, outcomes))
        _caption(row, example)
    for ax, name in zip(axes[-1], ("image", "truth", "prediction", "errors"), strict=True):
        ax.set_xlabel(name)
    keys = [Patch(color=COLOURS[outcome], label=outcome.name.lower()) for outcome in Outcome]
    figure.legend(handles=keys, loc="outside lower right", ncols=len(keys))
    return figure


def prediction_rows(
    examples: Sequence[Example], others: Sequence[np.ndarray], names: Sequence[str], dpi: int
) -> Figure:
    """Draw a row an example: image, truth, another prediction of it, uint16 (H, W), and its own; `names` of both."""
    inches = 2.35
    figure = Figure(figsize=(4 * inches + 0.3, len(examples) * (inches + 0.3) + 0.3), dpi=dpi)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03, wspace=0, hspace=0)
    axes = figure.subplots(len(examples), 4, squeeze=False)
    for row, example, other in zip(axes, examples, others, strict=True):
        part = crop(example, 256)
        image, truth, predicted, _ = shown(part, round(inches * dpi))
        before = shown(crop(replace(example, predicted=other), 256), round(inches * dpi))[2]
        _picture(row[0], image)
        for ax, labels in zip(row[1:], (truth, before, predicted), strict=True):
            _picture(ax, coloured(image, truth, labels))
        _caption(row, example)
    for ax, name in zip(axes[-1], ("image", "truth", *names), strict=True):
        ax.set_xlabel(name)
    return figure


def compared_curves(tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]], dpi: int) -> Figure:
    """Draw validation loss and IoU over the epochs, and AP over IoU thresholds, of two trainings.

    `tables` are name -> (history, average precision by threshold); the first one is drawn grey and dashed.
    """
    figure = Figure(figsize=(8, 5), dpi=dpi)
    axes = figure.subplots(2, 2).ravel()
    for (name, (history, precision)), colour, line in zip(tables.items(), (GREY, BLUE), ("--", "-"), strict=True):
        style = {"color": colour, "linestyle": line, "marker": "o", "markersize": 2.5, "label": name}
        axes[0].plot(history["epoch"], history["val_loss"], **style)
        axes[1].plot(history["epoch"], history["val_foreground_iou"], **style)
        axes[2].plot(precision["iou_threshold"], precision["validation_unet"], **style)
        axes[3].plot(precision["iou_threshold"], precision["test_unet"], **style)
    axes[0].set(title="Loss, validation", xlabel="epoch")
    axes[1].set(title="Foreground IoU, validation", xlabel="epoch")
    axes[2].set(title="Average precision, validation", xlabel="IoU that a match needs", ylim=(0, 1))
    axes[3].set(title="Average precision, test", xlabel="IoU that a match needs", ylim=(0, 1))
    for ax in axes[:2]:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend()
    return figure


def example_columns(examples: Sequence[Example], dpi: int) -> Figure:
    """Draw a column an example, 256 px of it: image, truth, prediction."""
    inches = 2.4
    figure = Figure(figsize=(inches * len(examples) + 0.3, 3 * inches + 0.5), dpi=dpi)
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    axes = figure.subplots(3, len(examples), squeeze=False)
    for column, example in zip(axes.T, examples, strict=True):
        image, truth, predicted, _ = shown(crop(example, 256), round(inches * dpi))
        _picture(column[0], image)
        _picture(column[1], coloured(image, truth, truth))
        _picture(column[2], coloured(image, truth, predicted))
        column[0].set_title("\n".join(example.caption[1:3]), fontsize=8.5)
    for ax, name in zip(axes[:, 0], ("image", "truth", "prediction"), strict=True):
        ax.set_ylabel(name)
    return figure


def _caption(row: Sequence[Axes], example: Example) -> None:
    """Write an example's caption over all panels of its row."""
    text = row[0].text(0, 1.03, "  ·  ".join(example.caption), fontsize=8.5, transform=row[0].transAxes)
    # Kept out of the layout it does not widen the first panel; an empty title of the second one holds its height.
    text.set_in_layout(False)
    row[1].set_title(" ", fontsize=8.5)


def _picture(ax: Axes, pixels: np.ndarray) -> None:
    ax.imshow(pixels, interpolation="antialiased")
    ax.grid(visible=False)
    ax.set(xticks=[], yticks=[], anchor="W")
    ax.spines[:].set_visible(False)


def training_curves(history: pd.DataFrame, dpi: int) -> Figure:
    """Draw loss, foreground IoU and Dice of training and validation, and the learning rate, over the epochs."""
    figure = Figure(figsize=(8, 5), dpi=dpi)
    axes = figure.subplots(2, 2, sharex=True).ravel()
    style = {"marker": "o", "markersize": 2.5, "linewidth": 1.5}
    titles = {"loss": "Loss", "foreground_iou": "Foreground IoU", "foreground_dice": "Foreground Dice"}
    for ax, (name, title) in zip(axes, titles.items(), strict=False):
        ax.plot(history["epoch"], history[name], color=ORANGE, linestyle="--", label="training", **style)
        ax.plot(history["epoch"], history[f"val_{name}"], color=BLUE, label="validation", **style)
        ax.set_title(title)
    axes[3].plot(history["epoch"], history["learning_rate"], color=GREY, **style)
    axes[3].set_title("Learning rate")
    axes[3].ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    kept = history["epoch"][history["val_loss"].idxmin()]
    for ax in axes:
        ax.axvline(kept, color=GREY, linestyle=":", linewidth=1, label="lowest validation loss")
    axes[0].legend()
    for ax in axes[2:]:
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def average_precision_curves(by_threshold: pd.DataFrame, dpi: int) -> Figure:
    """Draw pooled average precision over the IoU that a match needs, U-Net and Otsu, validation and test."""
    figure = Figure(figsize=(8, 3.2), dpi=dpi)
    axes = figure.subplots(1, 2, sharey=True)
    for ax, split in zip(axes, ("validation", "test"), strict=True):
        threshold, unet, otsu = (by_threshold[name] for name in ("iou_threshold", f"{split}_unet", f"{split}_otsu"))
        ax.plot(threshold, unet, color=BLUE, marker="o", markersize=4, label="U-Net")
        ax.plot(threshold, otsu, color=ORANGE, marker="s", markersize=4, linestyle="--", label="Otsu")
        ax.set(title=split, xlabel="IoU that a match needs", ylim=(0, 1))
    axes[0].set_ylabel("average precision")
    axes[0].legend()
    return figure


def scores_by_kind(by_kind: pd.DataFrame, per_image: pd.DataFrame, dpi: int) -> Figure:
    """Draw mean pixel IoU and DSB score by kind of image: U-Net as bar, its images as dots, Otsu as line."""
    sizes = by_kind.groupby("kind").n_images.sum()
    kinds = sorted(sizes.index, key=lambda kind: (-sizes[kind], kind))
    figure = Figure(figsize=(8, 1.6 + 0.75 * len(kinds)), dpi=dpi)
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for row, (score, title) in zip(axes, {"iou": "pixel IoU", "dsb_score": "DSB score"}.items(), strict=True):
        for ax, split in zip(row, ("validation", "test"), strict=True):
            for place, kind in enumerate(kinds):
                mean = by_kind[(by_kind.split == split) & (by_kind.kind == kind)]
                images = per_image[(per_image.split == split) & (per_image.kind == kind)]
                _kind_bar(ax, place, mean[score], mean[f"otsu_{score}"], np.sort(images[score].to_numpy()))
                ax.text(1.02, place, f"n = {mean.n_images.sum()}", va="center", fontsize=7.5, color=GREY)
            ax.set_title(f"{title}, {split}")
            ax.grid(visible=False, axis="y")
    axes[0, 0].set(yticks=range(len(kinds)), yticklabels=kinds, xlim=(0, 1))
    axes[0, 0].invert_yaxis()
    keys = [
        Patch(color=BLUE, alpha=0.35, label="U-Net, mean"),
        Line2D([], [], color=BLUE, marker="o", markersize=3, linestyle="", label="U-Net, one image"),
        Line2D([], [], color=ORANGE, linewidth=2.5, label="Otsu, mean"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    return figure


def _kind_bar(ax: Axes, place: int, unet: pd.Series, otsu: pd.Series, images: np.ndarray) -> None:
    ax.barh(place, unet, height=0.6, color=BLUE, alpha=0.35)
    # Spread over the bar's height in a fixed pattern, so that equal scores stay apart and figures stay the same.
    heights = place + (np.arange(images.size) * 0.618034 % 1 - 0.5) * 0.5
    ax.scatter(images, heights, s=5, color=BLUE, linewidths=0, clip_on=False)
    ax.vlines(otsu, place - 0.38, place + 0.38, color=ORANGE, linewidth=2.5)


def write(figure: Figure, path: Path) -> None:
    """Write a figure as PNG of 256 colours: half the bytes, and no date, name or version inside."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
    reduced = Image.fromarray(pixels).quantize(248, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    index, palette = np.array(reduced), reduced.getpalette()
    palette += [0] * (3 * 248 - len(palette))
    # Colours that mean something stay exact; only the others are rounded to the best 248 of this figure.
    for number, colour in enumerate(("#FFFFFF", BLUE, ORANGE, *COLOURS.values()), start=248):
        index[(pixels == _rgb(colour)).all(axis=2)] = number
        palette += _rgb(colour)
    image = Image.fromarray(index)
    image.putpalette(palette)
    image.save(path, optimize=True)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
