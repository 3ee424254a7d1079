"""Photographs the page of a run for the guide: on a desk in light, on a telephone in the dark.

    python docs/guide/photograph_report.py RUN [FOLDER]

Needs the extra `pages` and Chromium ($CHROMIUM names another than the first of the path). `make guide-pages` makes the
run and writes docs/images.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

SEEN = {"report-desk.png": (1100, 1250, "light"), "report-telephone.png": (390, 900, "dark")}
"""Width and height in CSS pixels, and the system's colours."""
SETTLED_MS = 1000


def main(run: Path, folder: Path = Path("docs/images")) -> None:
    """Writes one PNG for each entry of SEEN."""
    from playwright.sync_api import sync_playwright

    report = run / "report.html"
    if not report.exists():
        sys.exit(f"{report} is missing: name the folder of a finished run")
    if (browser := os.environ.get("CHROMIUM") or shutil.which("chromium")) is None:
        sys.exit("no Chromium here: apt-get install chromium, or name one in $CHROMIUM")
    with sync_playwright() as engine:
        chromium = engine.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        for name, (width, height, colours) in SEEN.items():
            page = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=colours)
            page.goto(report.resolve().as_uri())
            page.wait_for_timeout(SETTLED_MS)
            page.screenshot(path=folder / name)
        chromium.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
