"""A catalogue delta: what changed since a bundle was exported, small enough to send daily, and signed as a bundle is.

A ``.edgerec-delta`` is a bundle of its own kind. It names the bundle it belongs to, its version (1 for the first) and
what it follows: the bundle, or the delta before it, each by the sha256 of its manifest. So deltas apply in one order
only, and all of one or nothing. Its vectors were made where it was made, by the bundle's own encoder: a device needs no
tokenizer to take it in. Items are told by id, because a device may have given rows of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerec.bundle import Bundle, write_bundle
from edgerec.errors import BundleError, UsageError
from edgerec.runtime.additions import listing, with_items
from edgerec.runtime.contents import Contents
from edgerec.runtime.layout import FloatArray, strings
from edgerec.runtime.overlay import Item, Overlay, Table, check_items, identity, parse_items, read_strings, whole
from edgerec.signing import Key

if TYPE_CHECKING:
    from edgerec.runtime.recommender import Recommender

KIND = "delta"


@dataclass(frozen=True)
class Delta:
    """An open, checked delta.

    Attributes:
        path: Where it lies.
        base: The identity of the bundle.
        previous: The identity of what it follows.
        head: Its own identity.
        version: 1 for the first delta of a bundle.
        items: What is added or replaced; their rows mean nothing yet.
        tables: As in ``Overlay``, a row for each of ``items``.
        bias: float32 [A], likewise.
        removed: Ids that are not to be returned or observed any more.
    """

    path: Path
    base: str
    previous: str
    head: str
    version: int
    items: Sequence[Item]
    tables: Mapping[str, Table]
    bias: FloatArray
    removed: Sequence[str]


def write_delta(
    recommender: Recommender,
    add: Mapping[str, str | tuple[str, str]],
    remove: Sequence[str],
    out: Path,
    columns: Mapping[str, Mapping[str, Any]] | None = None,
) -> int:
    """Write the next delta of a bundle.

    Args:
        recommender: The bundle with all of its earlier deltas, and no other changes.
        add: As ``Recommender.add_items`` takes it; a known id is replaced.
        remove: Ids to take out.
        out: The file to write, whole or not at all.
        columns: As ``Recommender.add_items`` takes it.

    Returns:
        Its version.

    Raises:
        UsageError: Nothing changes, an id is both added and removed, or ``add`` cannot be added.
        UnknownItemError: An id to remove is not in the catalogue.
        MissingExtraError: ``tokenizers`` is not installed.
    """
    if both := [item for item in remove if item in add]:
        raise UsageError(f"{listing(both)} are to be added and removed; expected one of the two")
    if not add and not remove:
        raise UsageError("nothing to add or remove; expected some change of the catalogue")
    recommender.rows(remove)
    before = recommender.overlay
    after = with_items(recommender, add, columns)
    fresh = after.without({item.row for item in after.items if item.id not in add})
    base, version = identity(recommender.bundle), before.version + 1
    manifest = {"kind": KIND, "base": base, "previous": before.head or base, "version": version}
    write_bundle(out, manifest, {**fresh.members(), **strings("removed", list(dict.fromkeys(remove)))})
    return version


def read_delta(path: Path, embedding_size: int, key: Key | None = None) -> Delta:
    """Open a delta.

    Args:
        path: A file that ``write_delta`` wrote.
        embedding_size: Of the bundle that it is for.
        key: A public key that it must be signed with.

    Raises:
        BundleError: The file is no whole delta, or is not signed with the key.
    """
    bundle = Bundle(path, key)
    manifest = bundle.manifest
    if manifest.get("kind") != KIND:
        raise BundleError(f"{path} is no delta; expected a file that edgerec delta wrote")
    try:
        base, previous, version = str(manifest["base"]), str(manifest["previous"]), whole(manifest["version"])
        removed = read_strings(bundle, "removed")
        count = len(bundle["bias.f32"]) // 4
        items, tables, bias = parse_items(bundle, range(1, count + 1), embedding_size)
        check_items(items, tables, bias)
        if {item.id for item in items} & set(removed):
            raise ValueError("an id is both added and removed")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} holds no usable delta ({error}); expected a whole one: get it again") from error
    return Delta(Path(path), base, previous, identity(bundle), version, items, tables, bias, removed)


def applied(overlay: Overlay, delta: Delta, contents: Contents, base: str) -> Overlay:
    """Return an overlay with a delta's changes; what the device had changed of the same items is replaced.

    Args:
        overlay: The state before; it is not changed.
        delta: The delta.
        contents: What the bundle holds.
        base: The bundle's identity.

    Raises:
        BundleError: It is for another bundle, does not follow what was applied last, or removes an unknown item.
    """
    if delta.base != base:
        raise BundleError(
            f"{delta.path} is for the bundle {delta.base[:12]}, this one is {base[:12]}; expected a delta of this "
            "bundle: get the bundle that it belongs to, or its own deltas"
        )
    follows = overlay.head or base
    if (delta.version, delta.previous) != (overlay.version + 1, follows):
        raise BundleError(
            f"{delta.path} is version {delta.version} and follows {delta.previous[:12]}; expected version "
            f"{overlay.version + 1} that follows {follows[:12]}: apply the deltas in order, none left out"
        )
    known = {item.id: item.row for item in overlay.items}
    gone = {item: known.get(item) or contents.rows.get(item, 0) for item in delta.removed}
    if unknown := [item for item, row in gone.items() if not row]:
        raise BundleError(f"{delta.path} removes {listing(unknown)}; expected items of the catalogue: get it again")
    items, following = [], overlay.next_row
    for item in delta.items:
        row = known.get(item.id) or contents.rows.get(item.id) or following
        following = max(following, row + 1)
        items.append(item._replace(row=row))
    changed = overlay.with_tables(items, delta.tables, delta.bias).removing(set(gone.values()))
    return replace(changed, version=delta.version, head=delta.head)
