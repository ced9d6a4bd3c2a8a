"""What a model carries beside its weights: all that turns an image into nuclei, and where the model comes from."""

from pydantic import Field, ValidationError

from nuclei_unet.errors import InputError
from nuclei_unet.settings import NetworkSettings, NormalizeSettings, PredictSettings, Section, Targets

MAX_BYTES = 2**20  # of a recipe; one of a model in use has a few thousand


class Recipe(Section):
    """How a model was made and how it is used; `recipe.json` in a model file.

    `data` is the SHA-256 of the data set it was trained on. `code` holds the git blob id of each file that shaped it,
    so `git log --find-object=<id>` finds the commits, whatever their branch was called or squashed into. `commit`
    names one of them in copies that leave the project; in the project's own files it would change with every commit
    while the model stays the same. `predict` is None until the model was evaluated.
    """

    targets: Targets
    network: NetworkSettings
    normalize: NormalizeSettings
    predict: PredictSettings | None = None
    data: str = Field(pattern="^[0-9a-f]{64}$")
    code: dict[str, str] = Field(default_factory=dict)
    commit: str | None = None

    def dump(self) -> bytes:
        """Return the recipe as JSON in its one canonical form: the same recipe has the same bytes."""
        ordered = self.model_copy(update={"code": dict(sorted(self.code.items()))})
        return ordered.model_dump_json(indent=1).encode() + b"\n"


def parse(data: bytes, name: str) -> Recipe:
    """Return the recipe that `dump` wrote. Raises InputError that names the file it is from."""
    try:
        return Recipe.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "recipe.json"
        reason = " ".join(f"{where}: {first['msg']}".split())[:160]
        raise InputError(f"{name}: its recipe cannot be read ({reason}); run `dvc repro`") from None
