"""What a model says about itself besides its recipe: scores, licence, and the sizes of nuclei that it has seen."""

from pydantic import Field, ValidationError

from nuclei_unet.errors import InputError
from nuclei_unet.recipe import Diameters, Recipe
from nuclei_unet.settings import Section

MAX_BYTES = 2**20  # of a card; real ones have a few thousand


class Card(Section):
    """A model's recipe and what is known of it; travels in ONNX files. A `.keras` file has the recipe alone.

    `scores` are those of reports/scores.json, {split: {group: {key: value}}}, with numbers of images among them.
    `source` is the SHA-256 of the `.keras` file that the weights are from.
    """

    recipe: Recipe
    scores: dict[str, dict[str, int | dict[str, float]]] = Field(default_factory=dict)
    diameters: Diameters | None = None
    licence: str | None = None
    source: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    def dump(self) -> str:
        """Return the card as JSON in canonical form."""
        return self.model_dump_json(indent=1)


def parse(text: str, name: str) -> Card:
    """Return the card that `dump` wrote. Raises InputError that names the file it is from."""
    if len(text) > MAX_BYTES:
        raise InputError(f"{name}: what it says about itself is larger than {MAX_BYTES:,} bytes")
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "card"
        reason = " ".join(f"{where}: {first['msg']}".split())[:160]
        raise InputError(f"{name}: what it says about itself cannot be read ({reason})") from None
