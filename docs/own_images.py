"""Draw docs/own-images.png: what `nuclei-unet predict` makes of scikit-image's own samples, which nobody trained on.

    python -m docs.own_images

Downloads the samples that scikit-image does not ship (once); one that cannot be had is left out, and named.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from skimage import color, data

from nuclei_unet.errors import InputError
from pipeline.stage import run

FIGURE = Path("docs/own-images.png")
# Name, how to get it, and the part that is shown, at native size.
SAMPLES = {
    "human_mitosis": (data.human_mitosis, np.s_[:256, :256]),
    "cells3d": (lambda: data.cells3d()[30, 1], np.s_[:256, :256]),
    "immunohistochemistry": (data.immunohistochemistry, np.s_[128:384, 128:384]),
    "immunohistochemistry_haematoxylin": (lambda: haematoxylin(data.immunohistochemistry()), np.s_[128:384, 128:384]),
}
SIDE = 384  # of a picture


def main() -> None:
    """Predict each sample by the command, and draw image and outlines side by side."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        images, results = Path(temporary, "images"), Path(temporary, "results")
        images.mkdir()
        for name, (load, _) in SAMPLES.items():
            try:
                image = load()
            except (OSError, ValueError) as error:  # no internet
                print(f"{name}: left out ({type(error).__name__})", file=sys.stderr)
                continue
            cv2.imwrite(str(images / f"{name}.png"), image[..., ::-1] if image.ndim == 3 else image)
        command = [sys.executable, "-m", "nuclei_unet", "predict", str(images), str(results), "--write", "overlay"]
        if subprocess.run(command).returncode:
            raise InputError("nuclei-unet predict failed; see above")
        for item in json.loads((results / "run.json").read_text())["images"]:
            print(f"{item['name']}: {item['count']} nuclei; {' '.join(item['warnings']) or 'no warnings'}")
            part = SAMPLES[item["name"]][1]
            pictures = (cv2.imread(str(path)) for path in
                        (images / f"{item['name']}.png", results / f"{item['name']}_overlay.png"))  # fmt: skip
            shown = [cv2.resize(picture[part], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for picture in pictures]
            rows.append(np.concatenate([shown[0], np.full((SIDE, 8, 3), 255, np.uint8), shown[1]], axis=1))
    gap = np.full((8, 2 * SIDE + 8, 3), 255, np.uint8)
    cv2.imwrite(str(FIGURE), np.concatenate([part for row in rows for part in (row, gap)][:-1]))
    print(f"wrote {FIGURE}")


def haematoxylin(image: np.ndarray) -> np.ndarray:
    """Return the blue stain of an RGB image of a stained section alone, light on dark, uint8 (H, W)."""
    stain = color.rgb2hed(image)[..., 0]
    return np.rint(255 * (stain - stain.min()) / np.ptp(stain)).astype(np.uint8)


if __name__ == "__main__":
    run(main)
