"""What a model holds besides its weights: the settings that turn an image into nuclei, and where the model is from."""

from pydantic import Field, ValidationError

from nuclei_unet.errors import InputError
from nuclei_unet.settings import NetworkSettings, NormalizeSettings, PredictSettings, Section, Targets

MAX_BYTES = 2**20  # of a recipe; real ones have a few thousand


class Diameters(Section):
    """Sizes of the nuclei that a model was trained on, px.

    Of the training images 1%, 50% and 99% have a median nucleus with an equivalent diameter below these.
    """

    low: float = Field(gt=0)
    typical: float = Field(gt=0)
    high: float = Field(gt=0)


class Adaptation(Section):
    """How a model was adapted to somebody's annotated images; see `nuclei_unet.adaptation.adapt`.

    `images` and `nuclei` count the annotations, `data` is the SHA-256 of them. `steps` are those of the fine-tuning (0:
    only settings were chosen). `before` and `after` are the mean dsb_score of the parent and of models like this one;
    if `cross_validated`, on images that they were not adapted to. `diameters` are those of the parent, by which images
    are enlarged or shrunk.
    """

    images: int = Field(ge=1)
    nuclei: int = Field(ge=1)
    data: str = Field(pattern="^[0-9a-f]{64}$")
    steps: int = Field(ge=0)
    before: float = Field(ge=0, le=1)
    after: float = Field(ge=0, le=1)
    cross_validated: bool
    diameters: Diameters | None = None


def is_none(value: object) -> bool:
    """Tell pydantic to leave a key out."""
    return value is None


class Recipe(Section):
    """How a model was made and how it is used; `recipe.json` in a model file.

    `data` is the SHA-256 of the data set it was trained on. `predict` is None until the model is evaluated. `commit`
    is set in copies that leave the project. The project's own model file cannot name it: the commit holds the file's
    digest, so it would have to know its own name. Also, every commit would change the bytes of the same model.
    `parent` is the SHA-256 of the model file that this one was adapted from, `adapted` says how.
    """

    targets: Targets
    network: NetworkSettings
    normalize: NormalizeSettings
    predict: PredictSettings | None = None
    data: str = Field(pattern="^[0-9a-f]{64}$")
    commit: str | None = None
    # Newer than the first models; left out where they are not used, so that the same model keeps its bytes.
    parent: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", exclude_if=is_none)
    adapted: Adaptation | None = Field(default=None, exclude_if=is_none)

    def dump(self) -> bytes:
        """Return the recipe as JSON in canonical form: the same recipe gives the same bytes."""
        return self.model_dump_json(indent=1).encode() + b"\n"


def parse(data: bytes, name: str) -> Recipe:
    """Return the recipe that `dump` wrote. Raises InputError that names the file it is from."""
    try:
        return Recipe.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe.json"
        reason = " ".join(f"{where}: {first['msg']}".split())[:160]
        raise InputError(f"{name}: its recipe cannot be read ({reason}); run `dvc repro`") from None
