"""Columns are seen from their cells: numbers, strings, sets; what is different in every row is left out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import polars as pl

import pytest

from edgerec.cold import hide_items
from edgerec.columns import fitted, further_columns
from edgerec.data import load

GENRES = ["Action", "Comedy", "Drama", "War", "Western"]
SETS = [list(one) for size in (1, 2, 3) for one in combinations(GENRES, size)]  # 25 different cells of 5 parts


@pytest.mark.parametrize("separator", ["|", ";", ", ", " "])
def test_recombined_parts_are_sets(separator: str) -> None:
    found = further_columns(pl.DataFrame({"genres": [separator.join(one) for one in SETS]}))
    assert found == {"genres": SETS}


def test_names_of_two_words_stay_whole_and_titles_are_left_out() -> None:
    brands = ["Acme Tools", "Zeta Works", "Acme Works", "Yard Co"] * 6
    frame = pl.DataFrame({"brand": brands, "title": [f"Title {n} of all" for n in range(24)], "empty": [None] * 24})
    assert further_columns(frame.with_columns(pl.col("empty").cast(pl.String))) == {"brand": brands}


def test_numbers_are_numbers_and_what_is_none_is_none() -> None:
    frame = pl.DataFrame(
        {"year": ["1995", " 2001.5", "", "new", "nan", "7", "8", "9", "10"], "few": ["1", *"abcdefgh"]}
    )
    assert further_columns(frame) == {"year": [1995, 2001.5, None, None, None, 7, 8, 9, 10]}


def test_a_bar_always_parts() -> None:
    assert further_columns(pl.DataFrame({"tag": ["a|b", "c", None, "|"]})) == {"tag": [["a", "b"], ["c"], [], []]}


def test_later_cells_are_parted_as_earlier_ones() -> None:
    cells = pl.Series(["War Drama", "Drama", " Musical War ", "Film Noir", None, "War|Comedy"])
    found = fitted(cells, dict.fromkeys(GENRES, 0))
    assert found == [["War", "Drama"], "Drama", ["Musical", "War"], "Film Noir", None, ["War", "Comedy"]]


def test_a_data_set_keeps_its_columns_in_step_with_its_items(folder: Callable[..., Path]) -> None:
    items = [f"i{n},Title {n},{1990 + n},{'|'.join(SETS[n])}" for n in range(10)]
    items[3] = ",no id,1,War"
    log = [f"u{u},i{(u + t) % 10},{1_600_000_000 + 60 * t}" for u in range(20) for t in range(6)]
    path = folder("user_id,item_id,timestamp\n" + "\n".join(log), "item_id,title,year,genres\n" + "\n".join(items))
    data = load(str(path))
    assert data.columns["year"] == [1990 + n for n in range(10) if n != 3]
    assert data.columns["genres"] == [SETS[n] for n in range(10) if n != 3]
    hidden = hide_items(data, 0.3, 0).data
    assert hidden.columns["year"] == [1990 + int(item[1:]) for item in hidden.item_ids]
