"""The report's page as pictures, by the real headless Chromium: ``docs/bench-light.png`` and ``docs/bench-dark.png``.

python -m edgerec.benchmarks.screenshot benchmarks/results/bench-ml-100k.json docs/bench
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from edgerec.benchmarks.report import page
from edgerec.benchmarks.schema import read
from edgerec.benchmarks.web_subject import browser
from edgerec.errors import EdgerecError

SCHEMES = {"dark": 0, "light": 1}  # Blink's numbers of prefers-color-scheme
SIZE = "1060,1380"  # pixels: the card, the plots and the head of the first table
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={SIZE}")


def shoot(html: Path, scheme: str, out: Path) -> None:
    """Write a picture of a page's top.

    Raises:
        EdgerecError: There is no Chromium, or it made no picture.
    """
    if (chromium := browser()) is None:
        raise EdgerecError("got no Chromium; expected one on the PATH, or named by CHROMIUM")
    with tempfile.TemporaryDirectory(prefix="edgerec-shot-") as folder:
        picture = Path(folder) / "page.png"
        own = (f"--user-data-dir={folder}/profile", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}")
        command = [chromium, *FLAGS, *own, f"--screenshot={picture}", html.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if not picture.exists():
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            raise EdgerecError(f"{chromium} made no picture ({said[-1][:200]}); expected a browser that runs headless")
        out.write_bytes(picture.read_bytes())


def main(result: Path, out: Path) -> None:
    """Draw a result, light and dark."""
    with tempfile.TemporaryDirectory(prefix="edgerec-shot-") as folder:
        html = Path(folder) / "bench.html"
        html.write_text(page({result.stem: read(result)}), "utf-8")
        for scheme in SCHEMES:
            shoot(html, scheme, out.with_name(f"{out.name}-{scheme}.png"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
