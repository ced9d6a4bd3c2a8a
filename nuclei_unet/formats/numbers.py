"""The number of a nucleus in files that have names for nuclei."""

from collections.abc import Sequence

from nuclei_unet.formats.label_image import MAX_LABEL


def numbered(names: Sequence[str]) -> list[int]:
    """Return a label for each name: the names themselves if all are different whole numbers, otherwise 1, 2 ...

    So a nucleus keeps its number through a file that this library wrote, and any other file gets one.
    """
    numbers = [int(name) if name.isascii() and name.isdigit() and len(name) < 20 else 0 for name in names]
    own = len(set(numbers)) == len(names) and all(0 < number <= MAX_LABEL for number in numbers)
    return numbers if own else list(range(1, len(names) + 1))
