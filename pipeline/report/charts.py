"""Charts of a training run and its scores, drawn with matplotlib; nothing here reads a file.

Each function takes tables and returns a matplotlib Figure. `style.write` turns one into a small PNG whose bytes depend
only on the pixels. Colours are Okabe and Ito's, which colour-blind readers can tell apart.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from pipeline import layout
from pipeline.report.style import BLUE, GREY, ORANGE


def compared_curves(tables: dict[str, tuple[pd.DataFrame, pd.DataFrame]], dpi: int) -> Figure:
    """Draw validation loss and IoU over the epochs, and AP over IoU thresholds, of two trainings.

    `tables` are name -> (history, average precision by threshold); the first one is drawn grey and dashed.
    """
    figure = Figure(figsize=(8, 5), dpi=dpi)
    axes = figure.subplots(2, 2).ravel()
    for (name, (history, precision)), colour, line in zip(tables.items(), (GREY, BLUE), ("--", "-"), strict=True):
        style = {"color": colour, "linestyle": line, "marker": "o", "markersize": 2.5, "label": name}
        for ax, column in zip(axes[:2], ("val_loss", "val_foreground_iou"), strict=True):
            ax.plot(history["epoch"], history[column], **style)
        for ax, split in zip(axes[2:], layout.SCORED_SPLITS, strict=True):
            ax.plot(precision["iou_threshold"], precision[f"{split}_unet"], **style)
            ax.set(title=f"Average precision, {split}", xlabel="IoU that a match needs", ylim=(0, 1))
    for ax, title in zip(axes[:2], ("Loss, validation", "Foreground IoU, validation"), strict=True):
        ax.set(title=title, xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].legend()
    return figure


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
    for ax, split in zip(axes, layout.SCORED_SPLITS, strict=True):
        threshold, unet, otsu = (by_threshold[name] for name in ("iou_threshold", f"{split}_unet", f"{split}_otsu"))
        ax.plot(threshold, unet, color=BLUE, marker="o", markersize=4, label="U-Net")
        ax.plot(threshold, otsu, color=ORANGE, marker="s", markersize=4, linestyle="--", label="Otsu")
        ax.set(title=split, xlabel="IoU that a match needs", ylim=(0, 1))
    axes[0].set_ylabel("average precision")
    axes[0].legend()
    return figure


def scores_by_type(by_type: pd.DataFrame, per_image: pd.DataFrame, dpi: int) -> Figure:
    """Draw mean pixel IoU and DSB score by image type: U-Net as bar, its images as dots, Otsu as line."""
    sizes = by_type.groupby("image_type").n_images.sum()
    image_types = sorted(sizes.index, key=lambda image_type: (-sizes[image_type], image_type))
    figure = Figure(figsize=(8, 1.6 + 0.75 * len(image_types)), dpi=dpi)
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for row, (score, title) in zip(axes, {"iou": "pixel IoU", "dsb_score": "DSB score"}.items(), strict=True):
        for ax, split in zip(row, layout.SCORED_SPLITS, strict=True):
            for place, image_type in enumerate(image_types):
                mean = by_type[(by_type.split == split) & (by_type.image_type == image_type)]
                images = per_image[(per_image.split == split) & (per_image.image_type == image_type)]
                _kind_bar(ax, place, mean[score], mean[f"otsu_{score}"], np.sort(images[score].to_numpy()))
                ax.text(1.02, place, f"n = {mean.n_images.sum()}", va="center", fontsize=7.5, color=GREY)
            ax.set_title(f"{title}, {split}")
            ax.grid(visible=False, axis="y")
    axes[0, 0].set(yticks=range(len(image_types)), yticklabels=image_types, xlim=(0, 1))
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
    # Spread over the bar's height in a fixed pattern: equal scores stay apart, and the figure is reproducible.
    heights = place + (np.arange(images.size) * 0.618034 % 1 - 0.5) * 0.5
    ax.scatter(images, heights, s=5, color=BLUE, linewidths=0, clip_on=False)
    ax.vlines(otsu, place - 0.38, place + 0.38, color=ORANGE, linewidth=2.5)
