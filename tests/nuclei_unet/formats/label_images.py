"""Label images for the tests of formats."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

# A nucleus in two parts that touch diagonally, one of them with a hole; a hole with another nucleus in it; one pixel;
# gaps in the numbering, and a number above 65,535.
LABELS = np.array(
    [
        [5, 5, 5, 0, 0, 9, 9],
        [5, 0, 5, 0, 0, 9, 9],
        [5, 5, 5, 0, 0, 0, 0],
        [0, 0, 0, 5, 0, 2, 0],
        [70000, 70000, 70000, 70000, 70000, 0, 0],
        [70000, 1, 0, 0, 70000, 0, 4],
        [70000, 70000, 70000, 70000, 70000, 4, 0],
    ],
    np.uint32,
)


@st.composite
def label_images(draw, largest=2**32 - 1, max_side=9):
    """Draw a label image: few nuclei in any arrangement, so that they touch, have holes and lie in pieces."""
    numbers = draw(st.lists(st.integers(1, largest), max_size=3))
    shape = npst.array_shapes(min_dims=2, max_dims=2, max_side=max_side)
    return draw(npst.arrays(np.uint32, shape, elements=st.sampled_from([0, *numbers]), fill=st.nothing()))


def same(found, labels):
    """Tell whether a label image came back with the same numbers, and in the smaller of the two dtypes."""
    dtype = np.uint16 if labels.max() < 2**16 else np.uint32
    return found.dtype == dtype and np.array_equal(found, labels)
