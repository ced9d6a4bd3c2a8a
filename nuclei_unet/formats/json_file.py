"""JSON of users: read whole, with one clear line if it cannot be."""

import json
from pathlib import Path

from nuclei_unet.errors import InputError


def read(path: Path, largest: int) -> object:
    """Return what a JSON file holds. Raises InputError: no such file, more than `largest` bytes, or no JSON."""
    try:
        if path.stat().st_size > largest:
            raise InputError(f"{path}: larger than {largest / 2**30:.0f} GiB")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
