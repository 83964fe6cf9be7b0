"""The page of a real result in headless Chromium, offline: its tables sort, its plots zoom, and it loads nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgerec.benchmarks.report import page
from edgerec.benchmarks.schema import read
from edgerec.benchmarks.web_subject import no_browser

RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "bench-ml-100k.json"

pytestmark = [pytest.mark.browser, pytest.mark.skipif(no_browser() is not None, reason=str(no_browser()))]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what page.mjs saw; it clicks through the page once for all tests."""
    html = tmp_path_factory.mktemp("page") / "bench.html"
    html.write_text(page({RESULT.stem: read(RESULT)}), "utf-8")
    command = ["node", str(Path(__file__).with_name("page.mjs")), str(html)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def column(seen: Any, name: str) -> tuple[list[str], list[str], list[str]]:
    """Return a column's cells as written, after a click on its head, and after a second one."""
    place, before = seen["heads"].index(name), seen["tables"]["unsorted"]
    for state, order in zip(seen["tables"][name], ("ascending", "descending"), strict=True):
        assert state["marks"] == [order if head == name else None for head in seen["heads"]]
        assert sorted(state["rows"]) == sorted(before["rows"])  # whole rows move, and none is lost
    first, up, down = ([row[place] for row in state["rows"]] for state in (before, *seen["tables"][name]))
    return first, up, down


def number(cell: str) -> float:
    """Return the number that a cell such as ``0.156 (0.164)`` begins with."""
    return float(cell.split()[0])


def test_nothing_but_the_page_is_asked_for_and_nothing_goes_wrong(seen: Any) -> None:
    assert seen["asked"] == [seen["address"]] and seen["faults"] == []


def test_a_click_sorts_by_number_and_a_second_one_the_other_way(seen: Any) -> None:
    first, up, down = column(seen, "p50 ms")
    assert set(seen["tables"]["unsorted"]["marks"]) == {None}
    measured = [cell["latency_ms"]["p50"]["value"] for cell in read(RESULT)["cells"] if cell["latency_ms"]]
    numbers = [cell for cell in first if cell]
    assert [number(cell) for cell in numbers] == pytest.approx(measured, rel=5e-3)  # of three digits
    assert up == sorted(numbers, key=number) + [""] * first.count("") and down == up[::-1]
    assert up not in (first, sorted(first))  # the numbers are neither in order as written, nor as texts


def test_rows_without_a_number_come_last_and_the_other_way_first(seen: Any) -> None:
    first, up, down = column(seen, "p99.9 ms")
    without = sorted(cell for cell in first if cell in ("", "n too small"))
    numbers = sorted((cell for cell in first if cell not in without), key=number)
    assert {*without} == {"", "n too small"} and len(numbers) > 2
    assert up == numbers + without and down == up[::-1]


def test_a_column_of_words_is_sorted_by_them(seen: Any) -> None:
    first, up, down = column(seen, "subject")
    assert up == sorted(first) != first and down == up[::-1]


def test_dragging_narrows_both_axes_of_one_plot_and_a_double_click_puts_them_back(seen: Any) -> None:
    zoom = seen["zoom"]
    before, *others = zoom["before"]
    views = [before, zoom["first"]["labels"][0], zoom["second"]["labels"][0]]
    for wide, narrow in zip(views, views[1:], strict=False):
        assert min(map(float, wide["x"])) < min(map(float, narrow["x"]))
        assert max(map(float, narrow["x"])) <= max(map(float, wide["x"]))
        low, *_, high = (float(label.removesuffix("%")) for label in narrow["y"])
        assert float(wide["y"][0].removesuffix("%")) < low < high < float(wide["y"][-1].removesuffix("%"))
    assert max(map(float, views[1]["x"])) < max(map(float, before["x"]))
    assert zoom["first"]["marked"] == zoom["second"]["marked"] == 1  # what is dragged over is shown
    assert zoom["first"]["labels"][1:] == others
    assert zoom["back"] == {"onCurve": True, "labels": zoom["before"]}


def test_a_drag_that_leaves_the_drawing_ends_with_it_and_one_from_elsewhere_does_nothing(seen: Any) -> None:
    zoom = seen["zoom"]
    for name in ("slip", "margin", "beside"):
        assert zoom[name]["labels"] == zoom["before"], name
    over, before = zoom["over"]["labels"][0], zoom["before"][0]
    assert float(before["x"][0]) <= float(over["x"][0]) and float(over["x"][-1]) < float(before["x"][-1])
    assert zoom["over"]["selected"] == ""  # no text, which the next drag would carry away


def test_a_plot_zooms_in_as_far_as_its_numbers_differ(seen: Any) -> None:
    deep = seen["zoom"]["deep"]["labels"][0]
    assert len({*deep["x"]}) == len(deep["x"]) > 1 and len({*deep["y"]}) == len(deep["y"])


def test_light_and_dark_differ_in_paper_and_ink(seen: Any) -> None:
    light, dark = seen["schemes"]["light"], seen["schemes"]["dark"]
    assert all(light[name] != dark[name] for name in ("paper", "ink", "labels"))
