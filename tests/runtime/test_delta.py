"""Deltas apply in order, all or nothing, to the bundle that they were made for; what they remove is never returned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgerec.bundle import Bundle, sign, write_bundle
from edgerec.errors import BundleError, UnknownItemError, UsageError
from edgerec.runtime import Recommender
from edgerec.runtime.delta import write_delta
from edgerec.runtime.layout import Tower

Write = Callable[..., Path]


@pytest.fixture
def bundle(ring: Tower, write: Write) -> Path:
    return write(ring)


@pytest.fixture
def first(bundle: Path, tmp_path: Path) -> Path:
    """Adds x, whose vector is that of f's title, and removes d."""
    assert write_delta(Recommender.load(bundle), {"x": ("새", "영화")}, ["d"], tmp_path / "1") == 1
    return tmp_path / "1"


@pytest.fixture
def second(bundle: Path, first: Path, tmp_path: Path) -> Path:
    """Removes x again, and adds y."""
    assert write_delta(Recommender.load(bundle, deltas=[first]), {"y": "red wine"}, ["x"], tmp_path / "2") == 2
    return tmp_path / "2"


def everything(recommender: Recommender) -> set[str]:
    """Return every id that any kind of answer holds."""
    found = recommender.recommend([], 50) + recommender.recommend(["c"], 50) + recommender.search("red wine", 50)
    found += recommender.similar("c", 50) + recommender.recommend([], 50, candidates=list("abcefgh"))
    return {entry.item for entry in found}


def test_added_items_answer_as_if_the_device_had_added_them(bundle: Path, first: Path) -> None:
    recommender, other = Recommender.load(bundle, deltas=[first]), Recommender.load(bundle)
    other.add_items({"x": ("새", "영화")})
    other.remove_items(["d"])
    assert recommender.recommend(["f"], 20) == other.recommend(["f"], 20)
    assert recommender.recommend(["f"], 1)[0].title == "새"
    assert recommender.search("영화", 20) == other.search("영화", 20)


def test_a_removed_item_is_never_returned(bundle: Path, first: Path, second: Path) -> None:
    recommender = Recommender.load(bundle)
    assert "d" in everything(recommender)
    recommender.apply_delta(first)
    assert "d" not in everything(recommender) and "x" in everything(recommender)
    recommender.apply_delta(second)
    assert everything(recommender) == set("abcefghy")
    with pytest.raises(UnknownItemError):
        recommender.recommend(["d"])


def test_deltas_out_of_order_change_nothing(bundle: Path, first: Path, second: Path, tmp_path: Path) -> None:
    recommender = Recommender.load(bundle)
    with pytest.raises(BundleError, match="version 2 .* expected version 1"):
        recommender.apply_delta(second)
    assert everything(recommender) == set("abcdefgh")
    recommender.apply_delta(first)
    for again in (first, tmp_path / "1"):
        with pytest.raises(BundleError, match="version 1 .* expected version 2"):
            recommender.apply_delta(again)
    write_delta(Recommender.load(bundle), {"z": "red"}, [], tmp_path / "other")  # another version 1
    write_delta(Recommender.load(bundle, deltas=[tmp_path / "other"]), {}, ["a"], tmp_path / "its 2")
    with pytest.raises(BundleError, match="expected version 2 that follows"):
        recommender.apply_delta(tmp_path / "its 2")
    assert everything(recommender) == set("abcefghx")


def test_a_delta_of_another_bundle_is_refused(
    make_tower: Callable[..., Tower], write: Write, first: Path, tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="is for the bundle .* expected a delta of this bundle"):
        Recommender.load(write(make_tower()), deltas=[first])


def test_an_overlay_file_knows_which_deltas_it_holds(bundle: Path, first: Path, second: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.overlay"
    recommender = Recommender.load(bundle, overlay=kept, deltas=[first])
    recommender.add_items({"mine": "green wine"})
    again = Recommender.load(bundle, overlay=kept, deltas=[first, second])
    assert everything(again) == set("abcefghy") | {"mine"}
    assert Recommender.load(bundle, overlay=kept).overlay.version == 2


def test_a_delta_that_contradicts_itself_or_the_bundle_is_refused_whole(
    bundle: Path, first: Path, tmp_path: Path
) -> None:
    recommender, whole = Recommender.load(bundle), Bundle(first)
    members = {name: bytes(whole[name]) for name in whole.manifest["members"]}
    cases: list[tuple[dict[str, Any], dict[str, bytes], str]] = [
        ({}, {"bias.f32": members["bias.f32"] * 2}, "no usable delta"),
        ({}, {"item_out.scale": b"\0\0\xc0\x7f"}, "not finite"),
        ({}, {"ids.utf8": b"d"}, "both added and removed"),
        ({}, {"removed.utf8": b"q"}, "removes 'q'"),
        ({}, {"columns.json": b'[{"year": {}}]'}, "a column holds something else"),
        ({"version": True}, {}, "no whole number"),
        ({"version": 0}, {}, "expected version 1"),
        ({"kind": "overlay"}, {}, "is no delta"),
        ({"previous": None}, {}, "expected version 1 that follows"),
    ]
    for head, changed, message in cases:
        write_bundle(tmp_path / "bad", {**whole.manifest, **head}, {**members, **changed})
        with pytest.raises(BundleError, match=message):
            recommender.apply_delta(tmp_path / "bad")
        assert recommender.overlay.version == 0 and everything(recommender) == set("abcdefgh")


def test_what_changes_nothing_or_both_ways_is_not_written(bundle: Path, tmp_path: Path) -> None:
    recommender = Recommender.load(bundle)
    with pytest.raises(UsageError, match="nothing to add or remove"):
        write_delta(recommender, {}, [], tmp_path / "1")
    with pytest.raises(UsageError, match="'x' are to be added and removed"):
        write_delta(recommender, {"x": "red"}, ["x"], tmp_path / "1")
    with pytest.raises(UnknownItemError):
        write_delta(recommender, {}, ["q"], tmp_path / "1")
    assert not (tmp_path / "1").exists()


def test_with_a_key_a_delta_must_be_signed_too(bundle: Path, first: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from edgerec.signing import generate

    generate(tmp_path / "private.pem", tmp_path / "public.pem")
    sign(bundle, (tmp_path / "private.pem").read_bytes(), bundle)
    recommender = Recommender.load(bundle, key=tmp_path / "public.pem")
    with pytest.raises(BundleError, match="1 is not signed"):
        recommender.apply_delta(first)
    assert recommender.overlay.version == 0
    sign(first, (tmp_path / "private.pem").read_bytes(), first)
    recommender.apply_delta(first)  # its bundle is told by the manifest, which a signature leaves as it is
    assert recommender.overlay.version == 1


def test_a_hostile_overlay_is_refused_before_it_is_used(bundle: Path, tmp_path: Path) -> None:
    kept, bad = tmp_path / "kept.overlay", tmp_path / "bad.overlay"
    Recommender.load(bundle, overlay=kept).add_items({"mine": "green wine"})
    whole = Bundle(kept)
    members = {name: bytes(whole[name]) for name in whole.manifest["members"]}
    cases: list[tuple[dict[str, Any], dict[str, bytes]]] = [
        ({"next_row": 10**12}, {}),
        ({"next_row": 10.5}, {}),
        ({"rows": [True]}, {}),
        ({"rows": [10**60]}, {}),
        ({"removed": [[1]]}, {}),
        ({"version": -1}, {}),
        ({}, {"columns.json": b"[" * 10_000}),
        ({}, {"columns.json": b'[{"year": {"a": 1}}]'}),
        ({}, {"ids.offsets": b""}),
        ({}, {"texts.utf8": b" " * 10}),
    ]
    for head, changed in cases:
        write_bundle(bad, {**whole.manifest, **head}, {**members, **changed})
        with pytest.raises(BundleError, match="holds no usable overlay"):
            Recommender.load(bundle, overlay=bad)
