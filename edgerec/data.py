"""From files to a validated ``Dataset``: every bad row is named by file, row and column, counted, and left out."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgerec.columns import further_columns
from edgerec.errors import DataError, require
from edgerec.files import atomic_path, write_json
from edgerec.interactions import Dataset
from edgerec.sources import SOURCES, fetch
from edgerec.tables import find_column, find_file, need_column, read_table

if TYPE_CHECKING:
    import polars as pl

REPEAT_SHARE = 0.1  # repeats above this share of events make a repeat-purchase set (ml-100k 0, onlineretail about 1/3)
PREPARED = {"item_id", "title", "text", "_row"}  # columns of a catalogue that `write` made: its text is rendered
EXAMPLES = 3  # bad rows named per kind


@dataclass(frozen=True)
class Columns:
    """How to read a pair of files; None means found by its usual names."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None
    weight: str | None = None
    title: str | None = None
    template: str | None = None  # such as "{title} ({year}). {genres}"; None joins the title and every text column
    min_rating: float | None = None  # events rated below are no positives
    repeats: bool | None = None  # None: decided by REPEAT_SHARE


class Validator:
    """Drops bad rows of one table and remembers what, where and why."""

    def __init__(self, frame: pl.DataFrame, path: Path) -> None:
        self.polars = require("polars", "data")
        self.path, self.rows_read = path, len(frame)
        self.frame = frame.with_row_index("_row", offset=1)  # 1 is the first row after the header
        self.dropped: dict[str, int] = {}
        self.examples: list[str] = []
        self.further = frame.clear()  # a catalogue's columns beside id and title, of the rows that are left

    def drop(self, bad: pl.Expr, reason: str, column: str) -> None:
        """Drop the rows where ``bad`` holds."""
        rows = self.frame.filter(bad)["_row"]
        if len(rows):
            self.dropped[reason] = self.dropped.get(reason, 0) + len(rows)
            self.examples += [f"{self.path.name}, row {row}, column {column}: {reason}" for row in rows[:EXAMPLES]]
            self.frame = self.frame.filter(~bad)

    def drop_undecodable(self, columns: list[str]) -> None:
        """Drop rows with bytes that are not UTF-8 in one of the columns."""
        for column in columns:
            self.drop(
                self.polars.col(column).str.contains("\ufffd", literal=True).fill_null(False), "not UTF-8", column
            )

    def drop_missing(self, column: str, reason: str = "missing id") -> None:
        """Drop rows whose cell is null or blank."""
        self.drop(self.polars.col(column).fill_null("").str.strip_chars() == "", reason, column)

    def require_rows(self) -> None:
        """Refuse a table of which nothing is left."""
        if not len(self.frame):
            why = "; ".join(self.examples) or "the table has no rows"
            raise DataError(f"nothing is left of the {self.rows_read} rows of {self.path}: {why}")

    def report(self) -> dict[str, Any]:
        """Return what was read and dropped as one JSON value."""
        kept = len(self.frame)
        return {
            "file": self.path.name,
            "rows": self.rows_read,
            "kept": kept,
            "dropped": self.dropped,
            "examples": self.examples,
        }


def render_texts(frame: pl.DataFrame, title: str, item: str, template: str | None, path: Path) -> pl.Expr:
    """Return the expression of an item's text: the template's columns, else the title and every other text column."""
    polars = require("polars", "data")
    if template is None and set(frame.columns) == PREPARED:
        return polars.col("text")
    if template is None:
        # numbers tell a text encoder nothing (prices, counts), years excepted
        others = [name for name in frame.columns if name not in {title, item, "_row"}]
        names = [title, *(name for name in others if "year" in name.lower() or not mostly_numeric(frame[name]))]
        cells = [polars.col(name).str.strip_chars().replace("", None) for name in names]
        return polars.concat_str(cells, separator=". ", ignore_nulls=True)
    names = re.findall(r"\{([^{}]+)\}", template)
    known = [name for name in frame.columns if name != "_row"]
    if not names or (unknown := [name for name in names if name not in known]):
        got = f"unknown column {unknown[0]!r}" if names else "no {column}"
        raise DataError(f"the template {template!r} has {got}; {path} has {', '.join(known)}")
    return polars.format(re.sub(r"\{[^{}]+\}", "{}", template), *(polars.col(name).fill_null("") for name in names))


def mostly_numeric(cells: pl.Series) -> bool:
    """Tell whether more than half of a column's cells are numbers."""
    polars = require("polars", "data")
    return cells.cast(polars.Float64, strict=False).null_count() < len(cells) / 2


def read_items(path: Path, columns: Columns) -> Validator:
    """Read a catalogue into columns ``item``, ``title``, ``text``, and the validator's ``further``."""
    frame = read_table(path)
    item = need_column(frame, "item", path, columns.item)
    title = need_column(frame, "title", path, columns.title)
    table = Validator(frame, path)
    pl = table.polars
    table.drop_missing(item)
    table.drop_undecodable(frame.columns)
    table.frame = table.frame.with_columns(text=render_texts(table.frame, title, item, columns.template, path))
    table.drop_missing("text", "empty text")
    table.drop(~pl.col(item).is_first_distinct(), "duplicate item", item)
    table.further = table.frame.drop({"_row", item, title, "text"})
    table.frame = table.frame.select(
        "_row", item=pl.col(item), title=pl.col(title).fill_null(pl.col("text")), text="text"
    )
    table.require_rows()
    return table


def read_interactions(path: Path, columns: Columns, items: pl.Series) -> Validator:
    """Read a log into columns ``user``, ``item``, ``time``, ``weight``; rows of items outside ``items`` are dropped."""
    frame = read_table(path)
    user, item = (need_column(frame, role, path, getattr(columns, role)) for role in ("user", "item"))
    time, rating, weight = (find_column(frame, r, path, getattr(columns, r)) for r in ("time", "rating", "weight"))
    table = Validator(frame, path)
    pl = table.polars
    table.drop_undecodable([user, item])
    table.drop_missing(user)
    table.drop_missing(item)
    table.drop(~pl.col(item).is_in(items.implode()), "unknown item", item)
    if time is None:
        table.frame = table.frame.with_columns(_time=pl.col("_row").cast(pl.Float64))
    else:
        table.frame = table.frame.with_columns(_time=parse_times(table.frame, time))
        table.drop(pl.col("_time").is_null() | ~pl.col("_time").is_finite(), "bad timestamp", time)
    if columns.min_rating is not None:
        if rating is None:
            raise DataError(f"{path} has no rating column for --min-rating; it has {', '.join(frame.columns)}")
        value = pl.col(rating).cast(pl.Float64, strict=False)
        table.drop((value < columns.min_rating).fill_null(True), "below --min-rating", rating)
    amount = pl.lit(1.0) if weight is None else pl.col(weight).cast(pl.Float64, strict=False)
    table.frame = table.frame.select("_row", user=pl.col(user), item=pl.col(item), time="_time", weight=amount)
    table.drop(
        (pl.col("weight") <= 0).fill_null(True) | ~pl.col("weight").is_finite(), "bad weight", weight or "weight"
    )
    table.require_rows()
    return table


def parse_times(frame: pl.DataFrame, column: str) -> pl.Series:
    """Return a time column in seconds, float64, null where a cell is neither a number nor a date."""
    pl = require("polars", "data")
    numbers = frame[column].cast(pl.Float64, strict=False)
    if numbers.null_count() < len(frame):
        return numbers
    try:
        moments = frame[column].str.to_datetime(strict=False, time_unit="us", time_zone="UTC")
    except pl.exceptions.PolarsError:  # no cell looks like a date
        return numbers
    return moments.dt.timestamp("us") / 1e6


def load(source: str, columns: Columns | None = None, offline: bool = False) -> Dataset:
    """Load a data set by the name of an open one, or from a folder with ``interactions.*`` and ``items.*``.

    Raises:
        DataError: A file is missing or unreadable, or nothing is left after validation.
    """
    columns = columns or Columns()
    folder = fetch(source, offline) if source in SOURCES else Path(source)
    if not folder.is_dir():
        known = ", ".join(name for name in SOURCES if name != "minilm-l6")
        raise DataError(f"{source} is no folder and no open data set; expected a folder or one of {known}")
    return assemble(find_file(folder, "interactions"), find_file(folder, "items"), columns, folder.name)


def assemble(log_path: Path, items_path: Path, columns: Columns, name: str) -> Dataset:
    """Validate a log and a catalogue and put them into arrays, sorted by user, time and file order."""
    pl = require("polars", "data")
    catalogue = read_items(items_path, columns)
    log = read_interactions(log_path, columns, catalogue.frame["item"])
    user_ids = log.frame["user"].unique(maintain_order=True)
    events = (
        log.frame.join(pl.DataFrame({"user": user_ids, "u": np.arange(len(user_ids), dtype=np.int32)}), on="user")
        .join(catalogue.frame.select("item", i=pl.int_range(pl.len(), dtype=pl.Int32)), on="item")
        .sort("u", "time", "_row")
    )
    users, items, times = (events[c].to_numpy() for c in ("u", "i", "time"))
    distinct = events.select(pl.struct("u", "i").n_unique()).item()
    repeats = columns.repeats if columns.repeats is not None else 1 - distinct / len(events) > REPEAT_SHARE
    texts = catalogue.frame["text"].to_list()
    digest = hashlib.sha256("\0".join([*catalogue.frame["item"], *texts, *user_ids]).encode())
    for array in (users, items, times):
        digest.update(np.ascontiguousarray(array).tobytes())
    return Dataset(
        name=name,
        user_ids=user_ids.to_list(),
        item_ids=catalogue.frame["item"].to_list(),
        titles=catalogue.frame["title"].to_list(),
        texts=texts,
        users=users,
        items=items,
        timestamps=times,
        weights=events["weight"].cast(pl.Float32).to_numpy(),
        repeats=repeats,
        real_time=bool(times.max() > 1e8),  # 1973 as a clock in seconds; below, a position or a day number
        fingerprint=digest.hexdigest(),
        columns=further_columns(catalogue.further),
        report={"interactions": log.report(), "items": catalogue.report()},
    )


def write(data: Dataset, folder: Path) -> None:
    """Write a data set as a folder that ``load`` reads, each file whole or not at all; other files are not touched."""
    pl = require("polars", "data")
    tables = {
        "interactions.parquet": {
            "user_id": np.array(data.user_ids, dtype=object)[data.users],
            "item_id": np.array(data.item_ids, dtype=object)[data.items],
            "timestamp": data.timestamps,
            "weight": data.weights,
        },
        "items.parquet": {"item_id": data.item_ids, "title": data.titles, "text": data.texts},
    }
    for name, table in tables.items():
        with atomic_path(folder / name) as temporary:
            pl.DataFrame(table).write_parquet(temporary)
    write_json(folder / "report.json", {"fingerprint": data.fingerprint, "repeats": data.repeats, **data.report})
