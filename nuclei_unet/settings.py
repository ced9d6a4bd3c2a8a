"""The settings that functions take: frozen sections whose values are checked. Nothing here reads a file.

Every number has an upper limit far above what is of use: a slip of the finger (`1e9`) is named at once, instead of
filling the memory or running without end.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]

Count = Annotated[int, Field(ge=1, le=1_000_000)]
# NumPy and TensorFlow take no larger ones together.
Seed = Annotated[int, Field(ge=0, lt=2**32)]
# A Gaussian with this sigma, px, is as wide as a crop; the time it takes grows with it.
Sigma = Annotated[float, Field(ge=0, le=50)]
# Weighed against maps in [0, 1]: at the limit, one is all that counts.
Weight = Annotated[float, Field(ge=0, le=100)]


def _ordered(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError("the lower limit comes first")
    return limits


# Zoom and gamma: beyond these, a crop is one pixel of the image or has a single grey level.
Factor = Annotated[float, Field(ge=0.01, le=100)]
Range = Annotated[tuple[Factor, Factor], AfterValidator(_ordered)]
# Height or width, px, of what is held in memory at once.
Side = Annotated[int, Field(ge=16, le=16_384)]


class Section(BaseModel):
    """A group of settings: read-only, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _foreground_first(targets: tuple[str, ...]) -> tuple[str, ...]:
    if not targets or targets[0] != "foreground" or len(set(targets)) != len(targets):
        raise ValueError("targets must start with foreground and name each target once")
    return targets


# The maps that a network predicts. Foreground comes first: everything is measured on it.
Targets = Annotated[tuple[Literal["foreground", "border", "distance"], ...], AfterValidator(_foreground_first)]


class NormalizeSettings(Section):
    """How any image becomes what the network sees; see `nuclei_unet.images.normalize`."""

    image_size: tuple[Side, Side] | None
    channels: Literal[1, 3]
    invert_light_background: bool
    percentiles: tuple[Annotated[float, Field(ge=0, lt=50)], Annotated[float, Field(gt=50, le=100)]] | None
    nucleus_intensity: Annotated[float, Field(gt=0, le=1)] | None


class NetworkSettings(Section):
    """The U-Net's shape; see `nuclei_unet/network/unet.py`."""

    encoder: Literal["none", "efficientnet-lite0"]
    stem_stride: Literal[1, 2]
    # Eight levels halve an image of 256 px down to one.
    filters: Annotated[tuple[Annotated[int, Field(ge=1, le=2048)], ...], Field(min_length=2, max_length=8)]
    dropout: Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], Field(max_length=8)]
    normalization: Literal["batch", "none"]
    upsampling: Literal["bilinear", "nearest", "transposed"]
    join: Literal["concatenate", "add"]

    @model_validator(mode="after")
    def one_dropout_a_level(self):
        """Refuse lists of different length."""
        if len(self.dropout) != len(self.filters):
            raise ValueError("dropout needs one value for each entry of filters")
        if self.encoder != "none" and (self.stem_stride != 2 or len(self.filters) > 4):
            raise ValueError("this encoder needs a stem_stride of 2 and at most four filters")
        return self

    @property
    def size_multiple(self) -> int:
        """The number of pixels that must divide an image's height and width."""
        # A pretrained encoder has one more level than the decoder, whose filters these are.
        levels = len(self.filters) - (self.encoder == "none")
        return self.stem_stride * 2**levels


class AugmentSettings(Section):
    """Random changes of each training crop; see `nuclei_unet.training.augment`. `zoom: [1, 1]` and 0 turn one off."""

    flip: bool
    rotate: bool
    zoom: Range
    gamma: Range
    contrast: Fraction
    noise: Fraction
    blur: Sigma
    invert: Fraction
    cytoplasm: Fraction
    transfer: Fraction
    mix: Fraction


class TrainSettings(Section):
    """How the network is trained."""

    seed: Seed
    threads: Annotated[int, Field(ge=1, le=1024)]
    precision: Literal["auto", "float32", "mixed_bfloat16"]
    strategy: Literal["auto", "single", "mirrored", "multiworker"]
    targets: Targets
    diameter: Annotated[float, Field(ge=4, le=256)] | None
    crop_size: Annotated[int, Field(ge=32, le=4096)]
    type_balance: Fraction
    batch_size: Annotated[int, Field(ge=1, le=4096)]
    epochs: Count
    steps_per_epoch: Count | None
    optimizer: Literal["adam", "adamw"]
    learning_rate: Annotated[float, Field(gt=0, le=10)]
    encoder_lr_multiplier: Fraction
    schedule: Literal["constant", "cosine"]
    weight_decay: Annotated[float, Field(ge=0, le=10)]
    loss: Literal["bce", "bce_dice"]
    early_stopping: Count | None
    model: NetworkSettings
    augment: AugmentSettings

    @model_validator(mode="after")
    def crop_fits_network(self):
        """Refuse crops that the network cannot halve often enough."""
        multiple = self.model.size_multiple
        if self.crop_size % multiple:
            raise ValueError(f"crop_size must be a multiple of {multiple} for this model.stem_stride and model.filters")
        return self


# Of an image at test time: by how much it is scaled, and which of eight orientations it gets.
Augmentation = tuple[Annotated[float, Field(ge=0.1, le=4)], Annotated[int, Field(ge=0, le=7)]]


class PredictSettings(Section):
    """How predicted maps become a label image; see `nuclei_unet.prediction.instances`. Chosen on validation images."""

    augmentations: Annotated[tuple[Augmentation, ...], Field(min_length=1, max_length=64)]
    foreground_threshold: Annotated[float, Field(gt=0, lt=1)]
    outline_range: Annotated[float, Field(ge=0, lt=1)]
    outline_pull: Weight
    border_weight: Weight
    smoothing: Sigma
    prominence: Annotated[float, Field(gt=0, lt=1)]
    outline_offset: Annotated[float, Field(ge=-4, le=4)]
    min_area: Annotated[int, Field(ge=0, le=2**31 - 1)]
