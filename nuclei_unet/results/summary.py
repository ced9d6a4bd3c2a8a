"""The page `summary.html` of a folder of results: totals, warnings, sizes, and a thumbnail of each image.

It needs no other file, no internet and no script. Equal content gives equal bytes.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from nuclei_unet.results.record import Result

# Thumbnails on the page. With 12 kB each, that is a page of some 5 MB.
MOST_THUMBNAILS = 300
# Rows of each table. A browser takes a minute for a hundred thousand; run.json has all images.
MOST_ROWS = 10_000
# Warnings that show without a click.
MOST_WARNINGS = 20
BARS = 30


def page(results: Iterable[Result], facts: Mapping[str, str]) -> str:
    """Return the page as HTML. Names and values may hold any characters: they are shown as text.

    `results` are taken one at a time, and no more of them is kept than the page shows; failed ones and those with
    warnings are shown first as well. `facts` are how they were made, name -> value: the model, the settings ...
    """
    rows: dict[str, list[Result]] = {"failed": [], "segmented": [], "warned": []}
    pictured: dict[bool, list[Result]] = {True: [], False: []}
    counts = dict.fromkeys(rows, 0)
    nuclei, largest, sizes = 0, 0, []
    for result in results:
        diameters = np.asarray(result.diameters, np.float32)  # an eighth of the memory of a tuple
        bare = replace(result, thumbnail="", diameters=diameters)
        for group in ["failed"] if result.error is not None else ["segmented", "warned"][: 1 + bool(result.warnings)]:
            counts[group] += 1
            if len(rows[group]) < MOST_ROWS:
                rows[group].append(bare)
        if result.error is None:
            count = result.count or 0
            nuclei, largest = nuclei + count, max(largest, count)
            sizes.append((diameters, result.pixel_size))
            if result.thumbnail and len(pictured[bool(result.warnings)]) < MOST_THUMBNAILS:
                pictured[bool(result.warnings)].append(result)
    content = _template().render(
        **rows,
        counts=counts,
        shown_warnings=MOST_WARNINGS,
        pictured=[*pictured[True], *pictured[False]][:MOST_THUMBNAILS],
        nuclei=nuclei,
        pixel_sizes=any(pixel_size for _, pixel_size in sizes),
        largest_count=largest,
        charts=charts(sizes),
        facts=facts,
    )
    # File names that are not valid UTF-8 hold characters that no file can be written with.
    return content.encode(errors="replace").decode()


@functools.cache
def _template():
    import jinja2  # other commands do without

    options = {"autoescape": True, "undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), **options)
    environment.filters |= {"thousands": "{:,}".format, "median": _median, "number": _number}
    return environment.get_template("summary.html.jinja")


def charts(sizes: Sequence[tuple[np.ndarray, float | None]]) -> list[dict]:
    """Return the size histograms over all nuclei: in µm if all images have a pixel size, and in px.

    `sizes` has for each image the diameters in px, and the pixel size in micrometres or None.
    """
    values = {"px": [np.asarray(diameters, np.float64) for diameters, _ in sizes]}
    if sizes and all(pixel_size for _, pixel_size in sizes):
        scaled = [diameters * size for diameters, (_, size) in zip(values["px"], sizes, strict=True)]
        values = {"µm": scaled, **values}
    return [histogram(np.concatenate(arrays), unit) for unit, arrays in values.items() if sum(map(len, arrays))]


def histogram(sizes: np.ndarray, unit: str) -> dict:
    """Return a histogram as the template draws it; `sizes` are positive, at least one.

    Bars are 1, 2 or 5 times a power of ten wide, so that some 30 of them hold all nuclei. If a few are far larger than
    the others, bars end at the 99.5th percentile, and the last one holds everything beyond as well.
    """
    top, largest = float(np.percentile(sizes, 99.5)), float(sizes.max())
    top = top if largest > 1.5 * top else largest
    power = 10.0 ** math.floor(math.log10(top / BARS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= top / BARS)
    bars = math.floor(top / step) + 1
    edges = np.arange(bars + 1) * step
    heights = np.bincount(np.minimum((sizes / step).astype(int), bars - 1), minlength=bars)
    low, median, high = np.percentile(sizes, (25, 50, 75))
    return {
        "unit": unit,
        "n": sizes.size,
        "low": low,
        "median": median,
        "high": high,
        "highest": int(heights.max()),
        "beyond": int((sizes >= edges[-1]).sum()),
        "step": step,
        "bars": [(float(edge), int(height)) for edge, height in zip(edges, heights, strict=False)],
        "ticks": [float(edge) for edge in edges[::5]],
        "end": float(edges[-1]),
    }


def _median(item: Result) -> float | None:
    return float(np.median(item.diameters)) if len(item.diameters) else None


def _number(value: float | None) -> str:
    """Return three significant digits, as 7.25, 18.3 or 1,240; a dash for None."""
    if value is None:
        return "–"
    digits = 0 if value == 0 else max(2 - math.floor(math.log10(abs(value))), 0)
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
