"""What a model holds besides its weights: the settings that turn an image into nuclei, and where the model is from."""

from pydantic import Field, ValidationError

from nuclei_unet.errors import InputError
from nuclei_unet.settings import NetworkSettings, NormalizeSettings, PredictSettings, Section, Targets

MAX_BYTES = 2**20  # of a recipe; real ones have a few thousand


class Recipe(Section):
    """How a model was made and how it is used; `recipe.json` in a model file.

    `data` is the SHA-256 of the data set it was trained on. `predict` is None until the model is evaluated. `commit`
    is set in copies that leave the project. The project's own model file cannot name it: the commit holds the file's
    digest, so it would have to know its own name. Also, every commit would change the bytes of the same model.
    """

    targets: Targets
    network: NetworkSettings
    normalize: NormalizeSettings
    predict: PredictSettings | None = None
    data: str = Field(pattern="^[0-9a-f]{64}$")
    commit: str | None = None

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
