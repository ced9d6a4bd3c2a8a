"""Pages as HTML, from the templates beside this file. Each page needs no other file and no internet."""

import base64
from pathlib import Path

import jinja2
import pandas as pd


def page(template: str, **content) -> str:
    """Return a page as HTML; `template` is its file's name.

    Filters: `score` is a number, or a dash if there is none; `change` is a number with its sign.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = lambda value: "–" if value is None or pd.isna(value) else f"{value:.3f}"
    environment.filters["change"] = lambda value: "–" if pd.isna(value) else f"{value:+.3f}"
    return environment.get_template(template).render(content)


def picture(png: bytes) -> str:
    """Return a PNG as a page holds it: base64."""
    return base64.b64encode(png).decode()
