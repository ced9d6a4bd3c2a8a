"""What a model carries beside its weights: all that turns an image into nuclei, and where the model comes from."""

from pydantic import Field, ValidationError

from nuclei_unet.errors import InputError
from nuclei_unet.settings import NetworkSettings, NormalizeSettings, PredictSettings, Section, Targets

MAX_BYTES = 2**20  # of a recipe; one of a model in use has a few thousand


class Recipe(Section):
    """How a model was made and how it is used; `recipe.json` in a model file.

    `data` is the SHA-256 of the data set it was trained on. `predict` is None until the model was evaluated. `commit`
    is set in copies that leave the project. The project's own files cannot name it: a commit that holds their digests
    would have to know its own name, and the same model would get other bytes with every commit.
    """

    targets: Targets
    network: NetworkSettings
    normalize: NormalizeSettings
    predict: PredictSettings | None = None
    data: str = Field(pattern="^[0-9a-f]{64}$")
    commit: str | None = None

    def dump(self) -> bytes:
        """Return the recipe as JSON in its one canonical form: the same recipe has the same bytes."""
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
