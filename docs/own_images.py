"""Draw docs/own-images.png: what `nuclei-unet predict` makes of a sample of scikit-image that nobody trained on.

    python -m docs.own_images

scikit-image downloads the sample once.
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
PART = np.s_[128:384, 128:384]  # what is shown
SIDE = 384  # of a picture, px


def main() -> None:
    """Predict the sample, and its blue stain alone, by the command; draw image and outlines side by side."""
    sample = data.immunohistochemistry()
    pictures = []
    with tempfile.TemporaryDirectory() as temporary:
        images, results = Path(temporary, "images"), Path(temporary, "results")
        images.mkdir()
        cv2.imwrite(str(images / "as-it-is.png"), sample[..., ::-1])
        cv2.imwrite(str(images / "blue-stain.png"), haematoxylin(sample))
        command = [sys.executable, "-m", "nuclei_unet", "predict", str(images), str(results), "--write", "overlay"]
        if subprocess.run(command).returncode:
            raise InputError("nuclei-unet predict failed; see above")
        for item in json.loads((results / "run.json").read_text())["images"]:
            print(f"{item['name']}: {item['count']} nuclei; {' '.join(item['warnings']) or 'no warnings'}")
            for path in (images / f"{item['name']}.png", results / f"{item['name']}_overlay.png"):
                part = cv2.imread(str(path))[PART]
                pictures.append(cv2.resize(part, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
    framed = [np.pad(picture, ((4, 4), (4, 4), (0, 0)), constant_values=255) for picture in pictures]
    figure = np.concatenate([np.concatenate(framed[:2], axis=1), np.concatenate(framed[2:], axis=1)])
    cv2.imwrite(str(FIGURE), figure[4:-4, 4:-4])
    print(f"wrote {FIGURE}")


def haematoxylin(image: np.ndarray) -> np.ndarray:
    """Return the blue stain of an RGB image of a stained section alone, light on dark, uint8 (H, W)."""
    stain = color.rgb2hed(image)[..., 0]
    return np.rint(255 * (stain - stain.min()) / np.ptp(stain)).astype(np.uint8)


if __name__ == "__main__":
    run(main)
