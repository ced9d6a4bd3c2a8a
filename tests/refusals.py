"""What is said when something is refused."""

import pytest

from nuclei_unet.errors import InputError


def refused(said, function, *arguments, **named):
    """Call a function, which must raise an InputError of one line that says so; return that line."""
    with pytest.raises(InputError, match=said) as caught:
        function(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)
