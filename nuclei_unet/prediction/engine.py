"""Networks computed by ONNX Runtime: a light installation that starts in a fraction of a second."""

import os

import numpy as np
import onnxruntime

from nuclei_unet import card
from nuclei_unet.card import Card
from nuclei_unet.errors import InputError
from nuclei_unet.network import untrusted

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
        # Otherwise it keeps a plan, and memory for it, for each size of image: twice as much for blocks of a few sizes.
        options.enable_mem_pattern = False
        # A model may name files for its weights, which would be looked for in the working folder: there are none.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            properties = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # ONNX Runtime's exceptions have no common class
            raise InputError(f"{name}: not an ONNX file that can be loaded ({reason(error)})") from None
        if CARD not in properties:
            raise InputError(f"{name}: an ONNX file of another program; nuclei-unet writes its own with `make release`")
        self.card: Card = card.parse(properties[CARD], name)
        recipe = self.card.recipe
        untrusted.check_size(recipe.network, len(data), name)
        parts = [*self._session.get_inputs(), *self._session.get_outputs()]
        wanted = [(INPUT, 4, [recipe.normalize.channels]), (OUTPUT, 4, [len(recipe.targets)])]
        if [(part.name, len(part.shape), part.shape[-1:]) for part in parts] != wanted:
            raise InputError(f"{name}: its network does not fit its recipe")
        self.channels = recipe.normalize.channels
        self._try(name)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the maps {target: float32 (N, H, W, 1)} of images, float32 (N, H, W, channels), 0 ... 255."""
        (maps,) = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(images, np.float32)})
        return {target: maps[..., n : n + 1] for n, target in enumerate(self.card.recipe.targets)}

    def _try(self, name: str) -> None:
        """Raise InputError if the maps of a small image are no numbers: weights that are none spread to all."""
        side = self.card.recipe.network.size_multiple
        image = np.linspace(0, 255, side * side * self.channels).reshape(1, side, side, self.channels)
        try:
            maps = self(image)
        except Exception as error:  # as above
            raise InputError(f"{name}: its network cannot be computed ({reason(error)})") from None
        if not all(np.isfinite(values).all() for values in maps.values()):
            raise InputError(f"{name}: its maps are not numbers, so its weights are broken; {untrusted.HARM}")


def reason(error: Exception) -> str:
    """Return the first line of an exception's text, at most 120 characters of it."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]
