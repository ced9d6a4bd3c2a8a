import pytest

from nuclei_unet.formats.imagefile import micrometres, square


@pytest.mark.parametrize(
    ("length", "unit", "expected"),
    [
        # With the micro sign, and with a Greek mu.
        *((0.5, unit, 0.5) for unit in ("µm", "μm", "\\u00B5m", "micron", "um", "micrometer")),
        *((250, "nm", 0.25), (2.5e-7, "m", 0.25), (0.001, "mm", 1), (0.0001, "cm", 1), (1, "inch", 25_400)),
        *((1, unit, None) for unit in ("pixel", "reference frame", "")),
        *((length, "µm", None) for length in (0, -1, float("nan"), float("inf"))),
    ],
)
def test_units(length, unit, expected):
    assert micrometres(length, unit) == (None if expected is None else pytest.approx(expected))


def test_pixels_that_are_not_square_have_no_size():
    assert square((0.5, 0.504), "here") == (pytest.approx(0.502), "here")
    size, source = square((0.5, 0.25), "here")
    assert size is None and source == "unknown: pixels of 0.5 x 0.25 µm are not square (here)"
    assert square((0.5, None), "here") == (None, "unknown")
