"""Small images that tests of both packages look at."""

import numpy as np

RGB = np.array([[[10, 20, 60], [0, 0, 0]]], np.uint8)


def field(background, nucleus, dtype=np.uint8):
    """Return a 20 x 20 field with one nucleus of 16 pixels."""
    image = np.full((20, 20), background, dtype)
    image[4:8, 4:8] = nucleus
    return image
