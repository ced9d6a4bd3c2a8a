"""Draw how a validation image becomes nuclei: what the network sees, its three maps, and the result.

    python -m benchmarks.maps

Takes the validation image of median dsb_score among those with touching nuclei (the border map of the truth is not
empty almost everywhere). Needs `dvc repro evaluate`. Writes docs/maps.png.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from skimage.segmentation import find_boundaries

from nuclei_unet.network import runtime
from nuclei_unet.prediction.segmenter import Segmenter
from nuclei_unet.training import targets
from pipeline import layout, params
from pipeline.dataset import processed

FIGURE = Path("docs/maps.png")


def main() -> None:
    """Write the figure."""
    settings = params.load()
    runtime.configure(settings.train)
    predictor = Segmenter.load(layout.MODEL, precision=settings.train.precision).predictor
    scores = pd.read_csv(layout.PER_IMAGE, index_col="image_id").dsb_score
    touching = [
        sample
        for sample in processed.read_split("validation")
        if sample.image_type == "small-fluorescent" and targets.target_maps(sample.labels)[..., 1].mean() > 1
    ]
    sample = sorted(touching, key=lambda s: scores[s.image_id])[len(touching) // 2]
    image, truth = sample.image, sample.labels
    maps, found = predictor.maps(image, truth.shape), predictor.labels(image, truth.shape)
    panels = {"image as the network sees it": image, **maps, "nuclei found": outlined(image, found)}
    order = ("image as the network sees it", "foreground", "border", "distance", "nuclei found")
    figure = Figure(figsize=(12.5, 2.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(order)), order, strict=True):
        axes.imshow(panels[name][:192, :192], cmap="gray" if "network" in name else "magma", interpolation="nearest")
        axes.set_title(name, fontsize=10)
        axes.axis("off")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, metadata={"Software": None})
    print(f"{FIGURE}: image {sample.image_id}, dsb_score {scores[sample.image_id]:.3f}")


def outlined(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the image (H, W) as RGB with the outlines of its nuclei in orange."""
    rgb = np.dstack([image if image.ndim == 2 else image.mean(axis=2).astype(np.uint8)] * 3)
    rgb[find_boundaries(labels, mode="inner")] = (255, 140, 0)
    return rgb


if __name__ == "__main__":
    main()
