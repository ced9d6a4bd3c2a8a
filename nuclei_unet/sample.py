"""An image with its truth, as training and scoring use it, in memory or on disk."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


class Sample(Protocol):
    """One annotated image. Its pixels may be read from disk at each access."""

    @property
    def image_id(self) -> str:
        """Its name, unique in the data set."""

    @property
    def split(self) -> str:
        """What it is for: train, validation or test."""

    @property
    def image_type(self) -> str:
        """The image type; types can be drawn equally often."""

    @property
    def image(self) -> np.ndarray:
        """What the network sees, uint8 (H, W) or (H, W, 3); see `images.normalize`."""

    @property
    def labels(self) -> np.ndarray:
        """The truth, uint16 (H, W): 0 = background, 1 ... n = nuclei. May differ in size from `image`."""


@dataclass(frozen=True)
class ArraySample:
    """A `Sample` in memory."""

    image_id: str
    split: str
    image_type: str
    image: np.ndarray
    labels: np.ndarray
