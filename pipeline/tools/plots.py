"""Let `dvc plots` write pages that open without internet: `python -m pipeline.tools.plots`, as `make` does once.

DVC's pages load Vega, which draws their charts, from the internet. This writes .dvc/plots.html, DVC's own template with
Vega inside, and names it in DVC's local settings.
"""

import subprocess
import sys

import vl_convert
from dvc_render.html import HTML, PAGE_HTML

from nuclei_unet.files import fresh_file
from pipeline import layout, stage

VEGA_LITE = "5.21"  # DVC's charts are written for version 5
BOTH_FIT = "img { max-width: 46vw; height: auto; }"


def main() -> None:
    """Write the template, and tell DVC."""
    with fresh_file(layout.PLOTS_PAGE) as path:
        path.write_text(template(), encoding="utf-8")
    setting = ["config", "--local", "plots.html_template", layout.PLOTS_PAGE.name]
    subprocess.run([sys.executable, "-m", "dvc", "--quiet", *setting], check=True)


def template() -> str:
    """Return DVC's page with its scripts inside, not linked, and with figures of both sides beside each other."""
    scripts = vl_convert.javascript_bundle(vl_version=VEGA_LITE)
    page = PAGE_HTML.replace("</style>", f"{BOTH_FIT}</style>")
    return page.replace(f"{{{HTML.SCRIPTS_PLACEHOLDER}}}", f"<script>{scripts}</script>")


if __name__ == "__main__":
    stage.run(main)
