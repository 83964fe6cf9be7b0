"""Reading and validating logs and catalogues."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

import pytest

from edgerec.data import Columns, load, write
from edgerec.errors import DataError

Folder = Callable[..., Path]
ITEMS = "item_id,title,genre\na,영화 제목,드라마\nb,Party 🎉,comedy\nc,Plain,\n"


def test_unicode_text_joins_title_and_further_columns(folder: Folder) -> None:
    data = load(str(folder("user_id,item_id,timestamp\nu,a,1\nu,b,2\n", ITEMS)))
    assert data.texts == ["영화 제목. 드라마", "Party 🎉. comedy", "Plain"]
    assert data.titles == ["영화 제목", "Party 🎉", "Plain"]


def test_events_are_sorted_by_user_and_time_and_ties_keep_file_order(folder: Folder) -> None:
    data = load(str(folder("user_id,item_id,timestamp\nu,c,5\nv,a,1\nu,a,5\nu,b,2\n", ITEMS)))
    assert [data.item_ids[i] for i in data.items] == ["b", "c", "a", "a"]
    assert [data.user_ids[u] for u in data.users] == ["u", "u", "u", "v"]


@pytest.mark.parametrize(
    ("row", "reason", "column"),
    [
        (b",a,1", "missing id", "user_id"),
        (b"u,,1", "missing id", "item_id"),
        (b"u,zzz,1", "unknown item", "item_id"),
        (b"u,a,soon", "bad timestamp", "timestamp"),
        (b"u\xff,a,1", "not UTF-8", "user_id"),
        (b"u,a,inf", "bad timestamp", "timestamp"),
    ],
)
def test_a_bad_event_is_named_counted_and_dropped(folder: Folder, row: bytes, reason: str, column: str) -> None:
    data = load(str(folder(b"user_id,item_id,timestamp\nu,a,1\n" + row + b"\nu,b,3\n", ITEMS)))
    report = data.report["interactions"]
    assert report["dropped"] == {reason: 1}
    assert report["examples"] == [f"interactions.csv, row 2, column {column}: {reason}"]
    assert len(data.users) == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [(b"a,again,x", "duplicate item"), (b",x,y", "missing id"), (b"d,,", "empty text"), (b"d,\xfe,", "not UTF-8")],
)
def test_a_bad_item_is_named_counted_and_dropped(folder: Folder, row: bytes, reason: str) -> None:
    data = load(str(folder("user_id,item_id,timestamp\nu,a,1\n", ITEMS.encode() + row + b"\n")))
    report = data.report["items"]
    assert report["dropped"] == {reason: 1}
    assert report["examples"][0].startswith("items.csv, row 4, column ")
    assert data.item_ids == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("log", "items", "message"),
    [
        ("user_id,item_id,timestamp\n", ITEMS, "nothing is left of the 0 rows"),
        ("user_id,item_id,timestamp\nu,x,1\n", ITEMS, "row 1, column item_id: unknown item"),
        ("user_id,item_id\nu,a\n", "item_id,title\na,\n", "row 1, column text: empty text"),
        ("user_id,item_id\nu,a\n", "item_id,price\na,3\n", "no title column"),
        ("who,item_id\nu,a\n", ITEMS, "name it with --user-column"),
        ("user_id,item_id\nu,a,1,2\n", ITEMS, "cannot be read"),
    ],
)
def test_a_set_that_cannot_be_used_is_refused_in_one_line(folder: Folder, log: str, items: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        load(str(folder(log, items)))
    assert caught.value.exit_code == 2


def test_a_truncated_gzip_is_refused(folder: Folder) -> None:
    packed = gzip.compress(b"user_id,item_id,timestamp\nu,a,1\n" * 50)
    with pytest.raises(DataError, match="cannot be read"):
        load(str(folder(packed[:-12], ITEMS, log_name="interactions.csv.gz")))


def test_gzip_tsv_parquet_and_atomic_files_read_alike(folder: Folder, tmp_path: Path) -> None:
    log = "user_id,item_id,timestamp\nu,a,1\nu,b,2\n"
    reference = load(str(folder(log, ITEMS))).fingerprint
    (tmp_path / "data/interactions.csv").unlink()
    packed = gzip.compress(log.encode())
    assert load(str(folder(packed, ITEMS, log_name="interactions.csv.gz"))).fingerprint == reference
    (tmp_path / "data/interactions.csv.gz").unlink()
    pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [1, 2]}).write_parquet(
        tmp_path / "data/interactions.parquet"
    )
    assert load(str(tmp_path / "data")).fingerprint == reference
    (tmp_path / "data/interactions.parquet").unlink()
    atomic = "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t1\nu\tb\t2\n"
    assert load(str(folder(atomic, ITEMS, log_name="x.inter"))).fingerprint == reference


def test_other_column_names_dates_ratings_and_a_template(folder: Folder) -> None:
    log = "klant,InvoiceDate,StockCode,Stars\nu,2020-01-02 10:00:00,a,5\n"
    log += "u,2020-01-01 10:00:00,b,4\nu,2020-01-03 10:00:00,c,1\n"
    columns = Columns(user="klant", template="<{genre}> {title}", min_rating=4)
    data = load(str(folder(log, ITEMS)), columns)
    assert data.timestamps.tolist() == [1577872800.0, 1577959200.0]
    assert [data.item_ids[i] for i in data.items] == ["b", "a"]
    assert data.texts[1] == "<comedy> Party 🎉"
    assert data.report["interactions"]["dropped"] == {"below --min-rating": 1}
    assert data.real_time


def test_a_prepared_folder_reads_back_as_the_same_data(cycle: Path, tmp_path: Path) -> None:
    data = load(str(cycle))
    write(data, tmp_path / "prepared")
    again = load(str(tmp_path / "prepared"))
    assert again.fingerprint == data.fingerprint
    assert np.array_equal(again.weights, data.weights)
    assert not list((tmp_path / "prepared").glob("*.tmp"))


def test_a_source_that_is_no_folder_lists_the_open_sets() -> None:
    with pytest.raises(DataError, match="expected a folder or one of ml-100k, completejourney"):
        load("nowhere")
