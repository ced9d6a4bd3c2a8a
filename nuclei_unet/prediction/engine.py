"""What computes a network: ONNX Runtime, in eight bits on a CPU, in half precision on an NVIDIA GPU."""

import os

import numpy as np
import onnxruntime

from nuclei_unet.errors import InputError
from nuclei_unet.network.metadata import INPUT, KEY, OUTPUT, Metadata, parse
from nuclei_unet.settings import NetworkSettings

GPU, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxNetwork:
    """A network that ONNX Runtime computes. On a CPU the number of threads does not change results.

    `metadata` is what the file says about itself, `computed_by` says with what and how its maps are computed.
    """

    def __init__(self, data: bytes, name: str, *, threads: int | None = None, gpu: bool = False):
        """Read an ONNX file's content.

        Parameters
        ----------
        data : the file's bytes
        name : of the file, for errors
        threads : of the CPU; None: one for each core
        gpu : use an NVIDIA GPU if there is one, and ONNX Runtime's package for it

        Raises
        ------
        InputError : not an ONNX file of ours, or a broken one
        """
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
        on_gpu = gpu and GPU in onnxruntime.get_available_providers() and not hidden
        try:
            self._session = _session(_for_gpu(data) if on_gpu else data, threads, on_gpu)
            properties = self._session.get_modelmeta().custom_metadata_map
        except Exception as error:  # ONNX Runtime's exceptions have no common class
            raise InputError(f"{name}: not an ONNX file that can be loaded ({reason(error)})") from None
        if KEY not in properties:
            raise InputError(f"{name}: an ONNX file of another program; nuclei-unet reads its own only")
        self.metadata: Metadata = parse(properties[KEY], name)
        provider = "CUDA, float16" if self._session.get_providers()[0] == GPU else "CPU"
        self.computed_by = f"ONNX Runtime {onnxruntime.__version__}, {provider}"
        self.channels = self.metadata.normalize.channels
        _check_size(self.metadata.network, len(data), name)
        parts = [*self._session.get_inputs(), *self._session.get_outputs()]
        wanted = [(INPUT, 4, [self.channels]), (OUTPUT, 4, [len(self.metadata.targets)])]
        if [(part.name, len(part.shape), part.shape[-1:]) for part in parts] != wanted:
            raise InputError(f"{name}: its network is not the one that it describes")
        self._try(name)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the maps {target: float32 (N, H, W, 1)} of images, float32 (N, H, W, channels), 0 ... 255."""
        (maps,) = self._session.run([OUTPUT], {INPUT: np.ascontiguousarray(images, np.float32)})
        return {target: maps[..., n : n + 1] for n, target in enumerate(self.metadata.targets)}

    def _try(self, name: str) -> None:
        """Raise InputError if the maps of a small image are no numbers: weights that are none spread to all."""
        side = self.metadata.network.size_multiple
        image = np.linspace(0, 255, side * side * self.channels).reshape(1, side, side, self.channels)
        try:
            maps = self(image)
        except Exception as error:  # as above
            raise InputError(f"{name}: its network cannot be computed ({reason(error)})") from None
        if not all(np.isfinite(values).all() for values in maps.values()):
            raise InputError(f"{name}: its maps are not numbers, so its weights are broken; get the model again")


def reason(error: Exception) -> str:
    """Return the first line of an exception's text, at most 120 characters of it."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:120]


def _session(data: bytes, threads: int | None, on_gpu: bool) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Otherwise it keeps a plan, and memory for it, for each size of image: twice as much for tiles of a few sizes.
    options.enable_mem_pattern = False
    # Without VNNI, a CPU would add two products in 16 bits, which overflow. With this it adds exactly, as others do.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # A model may name files for its weights, which would be looked for in the working folder: there are none.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    return onnxruntime.InferenceSession(data, options, providers=[GPU, CPU] if on_gpu else [CPU])


def _for_gpu(data: bytes) -> bytes:
    """Return the model without its rounding to eight bits, in float16, as GPUs are fast at."""
    from nuclei_unet.network.onnx_file import in_half_precision  # needs more packages, those of the extra `gpu`

    return in_half_precision(data)


def _check_size(settings: NetworkSettings, size: int, name: str) -> None:
    """Raise InputError if `size` bytes, two a weight, cannot hold the weights of such a network."""
    # Every level has a convolution of 3x3 from so many channels to as many.
    if 2 * sum(9 * filters**2 for filters in settings.filters) > size:
        raise InputError(f"{name}: describes a far larger network than it holds; get the model again")
