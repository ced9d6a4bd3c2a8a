"""Pages as HTML."""

from pathlib import Path

import jinja2
import pandas as pd


def page(template: Path, **content) -> str:
    """Return a page as HTML. Filters: `score`, a number or a dash where there is none; `change`, with its sign."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = lambda value: "–" if value is None or pd.isna(value) else f"{value:.3f}"
    environment.filters["change"] = lambda value: "–" if pd.isna(value) else f"{value:+.3f}"
    return environment.get_template(template.name).render(content)
