"""Choose how much to enlarge an image before the network sees it, from the size of its pixels."""

from nuclei_unet.network.metadata import Diameters

# Nuclei of most animal cells are 5 to 12 micrometres wide.
NUCLEUS = 8.0
LARGEST, SMALLEST = 8.0, 1 / 8


def scale_for(pixel_size: float | None, diameters: Diameters | None) -> float:
    """Return the factor that brings nuclei of 8 micrometres to a size that the model was trained on.

    `pixel_size` is in micrometres, None if unknown. The factor is 1 if that size is among those of the training
    nuclei, or if nothing is known. Otherwise nuclei get the typical size of the training nuclei.
    """
    if pixel_size is None or diameters is None:
        return 1.0
    expected = NUCLEUS / pixel_size  # px
    if diameters.low <= expected <= diameters.high:
        return 1.0
    return round(min(max(diameters.typical / expected, SMALLEST), LARGEST), 3)
