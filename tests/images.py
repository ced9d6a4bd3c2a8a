"""Small images, and PNG files of them."""

import cv2
import numpy as np

RGB = np.array([[[10, 20, 60], [0, 0, 0]]], np.uint8)


def field(background, nucleus, dtype=np.uint8):
    """Return a 20 x 20 field with one nucleus of 16 pixels."""
    image = np.full((20, 20), background, dtype)
    image[4:8, 4:8] = nucleus
    return image


def png(image) -> bytes:
    return cv2.imencode(".png", np.asarray(image, np.uint8))[1].tobytes()


GREY = png([[0, 255], [7, 9], [1, 2]])
