"""Find the nuclei of an image with a U-Net. This library needs neither the pipeline around it nor TensorFlow.

from nuclei_unet import Segmenter
segmenter = Segmenter.load()                # the pretrained model; or a file: Segmenter.load("models/model.onnx")
labels = segmenter(image)
table = segmenter.measure(labels, image)
"""

from typing import TYPE_CHECKING

from nuclei_unet.errors import InputError

if TYPE_CHECKING:
    from nuclei_unet.prediction.segmenter import Segmenter

__all__ = ["InputError", "Segmenter"]


def __getattr__(name: str):
    """Import the segmenter only when it is used: that takes half a second."""
    if name == "Segmenter":
        from nuclei_unet.prediction.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
