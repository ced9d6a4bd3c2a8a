"""Adapt a model to a few annotated images, and measure whether that helps."""

from dataclasses import dataclass
from importlib.util import find_spec

from nuclei_unet.errors import InputError


@dataclass(frozen=True)
class Settings:
    """How to adapt.

    Attributes
    ----------
    calibrate_only : leave the weights as they are
    stops : numbers of training steps after which the fine-tuning may end, ascending
    seed : of the crops that it draws
    threads : of the CPU; None: one for each core to predict, two to train. Equal ones on equal machines give equal bits
    """

    calibrate_only: bool = False
    stops: tuple[int, ...] = (40, 80, 120)
    seed: int = 2018
    threads: int | None = None


DEFAULT = Settings()


def require_tensorflow() -> None:
    """Raise InputError if what trains is not installed; it is not loaded."""
    if not all(map(find_spec, ("tensorflow", "keras", "onnx"))):
        raise InputError("adapting a model needs TensorFlow, which is not installed")
