"""What a model holds besides its weights: how an image becomes nuclei, where the model is from, how good it is."""

from pydantic import Field, ValidationError

from nuclei_unet.errors import InputError
from nuclei_unet.settings import NetworkSettings, NormalizeSettings, PredictSettings, Section, Targets

INPUT, OUTPUT = "image", "maps"  # of an ONNX file
KEY = "nuclei_unet"  # of the metadata in it
MEMBER = "nuclei_unet.json"  # of a .keras file; Keras ignores it
MAX_BYTES = 2**20  # real ones have a few thousand


class Adaptation(Section):
    """How a model was adapted to somebody's annotated images; see `nuclei_unet.adaptation`.

    `images` and `nuclei` count the annotations, `data` is the SHA-256 of them. `steps` are those of the fine-tuning (0:
    only settings were chosen). `before` and `after` are the mean dsb_score of the parent and of models like this one;
    if `cross_validated`, on images that they were not adapted to.
    """

    images: int = Field(ge=1)
    nuclei: int = Field(ge=1)
    data: str = Field(pattern="^[0-9a-f]{64}$")
    steps: int = Field(ge=0)
    before: float = Field(ge=0, le=1)
    after: float = Field(ge=0, le=1)
    cross_validated: bool


class Metadata(Section):
    """How a model was made, how it is used, and what is known of it.

    `diameter` is that of the typical nucleus, px, in the images that the network was trained on, so others are scaled
    until theirs are as large; None: images stay as they are. `data` is the SHA-256 of the data set that it was trained
    on. `predict` is None until the model is evaluated, and `scores` are empty: those of reports/scores.json, {split:
    {group: {key: value}}}, with numbers of images among them. `commit` is set in copies that leave the project. The
    project's own file cannot name it: the commit holds the file's digest. `source` is the SHA-256 of the `.keras` file
    that the weights are from. `parent` is that of the model that this one was adapted from, and `adapted` says how.
    """

    targets: Targets
    network: NetworkSettings
    normalize: NormalizeSettings
    predict: PredictSettings | None = None
    data: str = Field(pattern="^[0-9a-f]{64}$")
    diameter: float | None = Field(default=None, gt=0)
    scores: dict[str, dict[str, int | dict[str, float]]] = Field(default_factory=dict)
    licence: str | None = None
    commit: str | None = None
    source: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    parent: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    adapted: Adaptation | None = None

    def but(self, **changes: object) -> "Metadata":
        """Return the same with other values."""
        return self.model_copy(update=changes)

    def dump(self) -> str:
        """Return it as JSON in canonical form: equal metadata give equal bytes."""
        return self.model_dump_json(indent=1) + "\n"

    @property
    def chosen(self) -> PredictSettings:
        """The prediction settings. Raises InputError if there are none yet."""
        if self.predict is None:
            raise InputError("the model was trained but not evaluated, so it does not say how its maps become nuclei")
        return self.predict


def parse(text: str | bytes, name: str) -> Metadata:
    """Return what `dump` wrote. Raises InputError that names the file it is from."""
    if len(text) > MAX_BYTES:
        raise InputError(f"{name}: what it says about itself is larger than {MAX_BYTES:,} bytes")
    try:
        return Metadata.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "metadata"
        reason = " ".join(f"{where}: {first['msg']}".split())[:160]
        raise InputError(f"{name}: what it says about itself cannot be read ({reason})") from None
