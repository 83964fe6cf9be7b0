"""A picture of a page, by the real browser where there is one."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from edgerec.benchmarks import screenshot
from edgerec.benchmarks.web_subject import browser
from edgerec.errors import EdgerecError

PAGE = "<style>:root { color-scheme: light dark } @media (prefers-color-scheme: dark) { p { color: red } }</style><p>x"


@pytest.mark.browser
@pytest.mark.skipif(browser() is None, reason="no Chromium is installed")
def test_a_page_is_drawn_light_and_dark_at_the_same_size(tmp_path: Path) -> None:
    (tmp_path / "x.html").write_text(PAGE)
    pictures = []
    for scheme in screenshot.SCHEMES:
        screenshot.shoot(tmp_path / "x.html", scheme, tmp_path / f"{scheme}.png")
        pictures.append((tmp_path / f"{scheme}.png").read_bytes())
    assert pictures[0] != pictures[1]
    for one in pictures:
        assert one[:8] == b"\x89PNG\r\n\x1a\n"
        assert "{},{}".format(*struct.unpack(">II", one[16:24])) == screenshot.SIZE


def test_a_machine_without_a_browser_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screenshot, "browser", lambda: None)
    with pytest.raises(EdgerecError, match="got no Chromium; expected one on the PATH"):
        screenshot.shoot(tmp_path / "x.html", "dark", tmp_path / "x.png")
    monkeypatch.setattr(screenshot, "browser", lambda: "/bin/true")
    with pytest.raises(EdgerecError, match="made no picture"):
        screenshot.shoot(tmp_path / "x.html", "dark", tmp_path / "x.png")
