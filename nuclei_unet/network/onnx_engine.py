"""Networks computed by ONNX Runtime: a light installation that starts in a fraction of a second."""

import numpy as np
import onnxruntime

from nuclei_unet import card
from nuclei_unet.card import Card
from nuclei_unet.errors import InputError

CARD = "nuclei_unet.card"  # the key in the file's metadata
INPUT, OUTPUT = "image", "maps"


class OnnxNetwork:
    """A network that ONNX Runtime computes on the CPU, in float32. The number of threads does not change results."""

    def __init__(self, data: bytes, name: str, threads: int | None = None):
        """Read an ONNX file's content; `name` is for errors. Raises InputError if it is not one of ours."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            properties = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # ONNX Runtime's exceptions have no common class
            raise InputError(f"{name}: not an ONNX file that can be loaded ({reason(error)})") from None
        if CARD not in properties:
            raise InputError(f"{name}: an ONNX file of another program; nuclei-unet writes its own with `make release`")
        self.card: Card = card.parse(properties[CARD], name)
        shapes = [part.shape for part in (*self._session.get_inputs(), *self._session.get_outputs())]
        wanted = [4, self.card.recipe.normalize.channels], [4, len(self.card.recipe.targets)]
        if [[len(shape), shape[-1]] for shape in shapes] != [*wanted]:
            raise InputError(f"{name}: its network does not fit its recipe")
        self.channels = self.card.recipe.normalize.channels

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the maps {target: float32 (N, H, W, 1)} of images, float32 (N, H, W, channels), 0 ... 255."""
        (maps,) = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(images, np.float32)})
        return {target: maps[..., n : n + 1] for n, target in enumerate(self.card.recipe.targets)}


def reason(error: Exception) -> str:
    """Return the first line of an exception's text, at most 120 characters of it."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]
