"""Reading logs and catalogues: CSV, TSV, Parquet and RecBole atomic files, as tables of text cells."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

from edgerec.errors import DataError, require

if TYPE_CHECKING:
    import polars as pl

SUFFIXES = (".csv", ".tsv", ".parquet", ".inter", ".item")
ROLES = {"interactions": ("interactions", "*.inter"), "items": ("items", "*.item")}

# What people call the columns, most specific first; matching ignores case, spaces, "_" and "-".
ALIASES = {
    "user": ("user_id", "user", "uid", "customer_id", "household_id", "visitor_id", "account_id", "session_id"),
    "item": ("item_id", "item", "iid", "product_id", "movie_id", "article_id", "video_id", "sku", "asin", "stock_code"),
    "time": ("timestamp", "time", "ts", "datetime", "date", "transaction_timestamp", "event_time", "invoice_date"),
    "rating": ("rating", "score", "stars"),
    "weight": ("weight", "quantity", "count"),
    "title": ("title", "name", "movie_title", "item_name", "product_name", "product_title", "product_type"),
}


def find_file(folder: Path, role: str) -> Path:
    """Return the one file of a folder that plays ``role`` (``"interactions"`` or ``"items"``).

    Raises:
        DataError: There is none, or more than one.
    """
    stem, pattern = ROLES[role]
    endings = [f"{suffix}{packed}" for suffix in SUFFIXES for packed in ("", ".gz")]
    names = {f"{stem}{ending}" for ending in endings}
    found = sorted(path for path in folder.glob("*") if path.name in names or path.match(pattern))
    if len(found) != 1:
        got = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder} has {got} for its {role}; expected exactly one {stem}.{{csv,tsv,parquet}}[.gz]")
    return found[0]


def read_table(path: Path) -> pl.DataFrame:
    """Read a table with every cell as text (null where empty); undecodable bytes become U+FFFD, for validation to name.

    RecBole's ``name:type`` headers lose their type, and its ``:float`` catalogue columns are dropped (not text).

    Raises:
        DataError: The file is missing, truncated, ragged, or of an unknown kind.
    """
    polars = require("polars", "data")
    name = path.name.removesuffix(".gz")
    suffix = Path(name).suffix
    if suffix not in SUFFIXES:
        raise DataError(f"{path} ends in {suffix!r}; expected one of {', '.join(SUFFIXES)}, optionally with .gz")
    try:
        content = gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()
        if suffix == ".parquet":
            frame = polars.read_parquet(content)
            return frame.with_columns(polars.all().cast(polars.String))
        frame = polars.read_csv(
            content,
            separator="," if suffix == ".csv" else "\t",
            quote_char='"' if suffix == ".csv" else None,
            infer_schema=False,
            encoding="utf8-lossy",
        )
    except (OSError, EOFError, polars.exceptions.PolarsError) as error:
        raise DataError(
            f"{path} cannot be read ({str(error).splitlines()[0]}); expected a whole {suffix} table"
        ) from error
    if suffix == ".item":
        frame = frame.drop([column for column in frame.columns if column.endswith(":float")])
    return frame.rename({column: column.split(":")[0].strip() for column in frame.columns})


def find_column(frame: pl.DataFrame, role: str, path: Path, given: str | None = None) -> str | None:
    """Return the column that plays a role: the given name, else the first alias that is there, else None.

    Raises:
        DataError: The given name is not a column.
    """
    if given is not None:
        if given not in frame.columns:
            raise DataError(f"{path} has no column {given!r}; it has {', '.join(frame.columns)}")
        return given
    plain = {"".join(char for char in name.lower() if char.isalnum()): name for name in frame.columns}
    return next((plain[key] for alias in ALIASES[role] if (key := alias.replace("_", "")) in plain), None)


def need_column(frame: pl.DataFrame, role: str, path: Path, given: str | None = None) -> str:
    """Return the column that plays a role, or say how to name it."""
    column = find_column(frame, role, path, given)
    if column is None:
        raise DataError(
            f"{path} has no {role} column (tried {', '.join(ALIASES[role])}); it has {', '.join(frame.columns)}; "
            f"name it with --{role}-column"
        )
    return column
