"""How often does `nuclei_unet.prediction.checks` warn about good images, and how often about blurred ones?

    python -m benchmarks.checks

Reads data/raw and data/processed (run `dvc repro preprocess` first) and takes the true nuclei. Also prints the sizes of
the training nuclei. Writes benchmarks/results/checks.md.
"""

from collections import Counter, defaultdict
from pathlib import Path

import cv2
import numpy as np

from nuclei_unet.prediction import checks
from pipeline import layout
from pipeline.dataset import archives, processed

RESULT = Path("benchmarks/results/checks.md")
SIGMAS = (0, 1, 2, 3, 4, 5, 6)
NOISE = 0.02


def main() -> None:
    """Write the tables as Markdown."""
    samples = [sample for split in layout.SPLITS for sample in processed.read_split(split)]
    training = [checks.diameters(sample.labels) for sample in samples if sample.split == "train"]
    medians = np.array([np.median(sizes) for sizes in training])
    low, high = np.percentile(medians, (1, 99))
    count, warned, blurred = Counter(), Counter(), defaultdict(list)
    random = np.random.default_rng(2018)
    with archives.open_archive(layout.TRAIN_ARCHIVE) as train, archives.open_archive(layout.TEST_ARCHIVE) as test:
        for number, sample in enumerate(samples):
            name = archives.image_member(sample.image_id)
            image, labels = archives.read_image(test if sample.split == "test" else train, name), sample.labels
            group = "test" if sample.split == "test" else sample.image_type
            count[group] += 1
            warned.update((group, text.split()[0]) for text in checks.warnings(image, labels, (low, high)))
            if sample.split == "test" or number % 4:
                continue
            size = float(np.median(checks.diameters(labels)))
            for sigma in SIGMAS:
                soft = cv2.GaussianBlur(image[..., :3].astype(np.float32), (0, 0), sigma) if sigma else image[..., :3]
                noise = random.normal(0, NOISE * np.ptp(np.percentile(image[..., :3], (0.5, 99.8))), soft.shape)
                for name, pixels in (("none", soft), ("noise", soft + noise)):
                    blurred[name, sigma].append(checks.edge_width(pixels, labels, size) > checks.WIDEST_EDGE)
    quantiles = (0, 1, 50, 99, 100)
    lines = [
        "Share of the images that get a warning, with the true nuclei; test images have kinds of their own.",
        "",
        "| images | n | saturated | smaller or larger | blurred |",
        "|---|---|---|---|---|",
        *(
            f"| {group} | {n} | " + " | ".join(f"{warned[group, word] / n:.1%}" for word in ("Saturated:", "The"))
            + f" | {warned[group, 'Blurred:'] / n:.1%} |"
            for group, n in sorted(count.items(), key=lambda row: (row[0] == "test", -row[1]))
        ),
        "",
        f"Share called blurred, of {len(blurred['none', 0])} training and validation images, after a Gaussian blur. "
        f"Noise is added after it, with a standard deviation of {NOISE:.0%} of the image's range.",
        "",
        "| sigma, px | " + " | ".join(map(str, SIGMAS)) + " |",
        "|---" * (len(SIGMAS) + 1) + "|",
        *(
            f"| {title} | " + " | ".join(f"{np.mean(blurred[name, sigma]):.1%}" for sigma in SIGMAS) + " |"
            for name, title in (("none", "no noise"), ("noise", "with noise"))
        ),
        "",
        f"Equivalent diameters of the training nuclei, px, at the percentiles {', '.join(map(str, quantiles))}: single "
        f"nuclei {_listed(np.percentile(np.concatenate(training), quantiles))}; medians of the images "
        f"{_listed(np.percentile(medians, quantiles))}.",
    ]  # fmt: skip
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print(RESULT.read_text())


def _listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


if __name__ == "__main__":
    main()
