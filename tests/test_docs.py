"""Pages of the documentation: pictures and files that they link are there."""

import re

import pytest

from tests import ROOT


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_linked_files_are_there(page):
    text = (ROOT / page).read_text()
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert not [link for link in links if link and not (ROOT / page).parent.joinpath(link).exists()]
