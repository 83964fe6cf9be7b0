"""Edits of a bundle that know its structure: hashes are made anew, so that what is behind them is reached too."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import zipfile
import zlib
from typing import Any

MANIFEST = "manifest.json"
Members = dict[str, bytes]
DEEP: Any = []
for _ in range(50):
    DEEP = [DEEP]
VALUES = [
    None,
    True,
    -1,
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    2**31 - 1,
    2**31,
    2**63,
    10**60,
    0.0,
    0.5,
    1.0,
    -0.5,
    1e308,
    1e-320,
    "",
    "x",
]
VALUES += ["../x", "item-1", "delta", "overlay", "9" * 400, [], {}, [0.5], [0.5] * 65, [[0.5]], {"size": 1}, DEEP]
NAMES = [
    "../x",
    "/etc/passwd",
    "a//b",
    "./a",
    "c:\\x",
    "a\nb",
    "영화",
    MANIFEST,
    "signature.ed25519",
    "ids.order",
    "x/",
]
NAMES += ["texts.utf8", "columns.json", "removed.offsets", "a" * 300, "a\0b"]
WORDS = [struct.pack("<I", value) for value in (0, 1, 7, 8, 9, 255, 2**31 - 1, 2**31, 2**32 - 1)]
WORDS += [struct.pack("<f", value) for value in (float("nan"), float("inf"), float("-inf"), 3e38, -1e38, 1e-45)]
PATHS = [b"/etc/passwd", b"../item.txt", b"item_in.i8\0", b"titles.utf8"]  # as long as item_out.i8


def mutate(data: bytes, seed: int) -> bytes:
    """Return a file with one to three edits; what is no zip comes back with some bytes changed."""
    rng = random.Random(seed)
    try:
        members = unpacked(data)
        manifest = json.loads(members.pop(MANIFEST))
        assert isinstance(manifest, dict)
    except Exception:  # whatever a broken file is met by
        return scratched(data, rng)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if rng.random() < 0.45:
            edit_value(manifest, rng)
        else:
            edit_members(members, rng)
    if rng.random() < 0.9:
        manifest["members"] = listed(members, manifest.get("members"))
    if rng.random() < 0.05:
        edit_value(manifest, rng)
    try:
        head = json.dumps(manifest).encode("utf-8", "surrogatepass")
    except ValueError:
        return scratched(data, rng)
    if rng.random() < 0.03:
        head = edited(head, rng)
    return packed({MANIFEST: head, **members}, rng)


def unpacked(data: bytes) -> Members:
    """Return the members of a file that the fuzzer made before, or a seed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def listed(members: Members, old: Any) -> dict[str, Any]:
    """Return what a manifest says of members, but for some entries that are left as they were."""
    made: dict[str, Any] = {
        name: {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in members.items()
        if name != "signature.ed25519"
    }
    if isinstance(old, dict):
        made |= {name: entry for name, entry in old.items() if name in made and not isinstance(entry, dict)}
    return made


def edit_value(tree: Any, rng: random.Random) -> None:
    """Replace, remove or add one value somewhere in a tree of JSON."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
        if not keys:
            return
        key = "model" if "model" in keys and rng.random() < 0.7 else rng.choice(keys)
        if isinstance(tree[key], dict | list) and tree[key] and rng.random() < 0.85:
            tree = tree[key]
            continue
        kind = rng.random()
        if kind < 0.15:
            del tree[key]
        elif kind < 0.35 and isinstance(tree[key], int | float):
            tree[key] += rng.choice([-1, 1, 1e-9, 2**32])
        elif isinstance(tree, list) and kind < 0.5:
            tree.append(rng.choice(VALUES))
        else:
            tree[key] = rng.choice(VALUES)
        return


def edit_members(members: Members, rng: random.Random) -> None:
    """Change, cut, grow, exchange, drop, add or rename one member."""
    if not members:
        return
    name, kind = rng.choice(list(members)), rng.random()
    if kind < 0.55:
        members[name] = edited(members[name], rng)
    elif kind < 0.65:
        other = rng.choice(list(members))
        members[name], members[other] = members[other], members[name]
    elif kind < 0.72:
        del members[name]
    elif kind < 0.82:
        members[rng.choice(NAMES)] = rng.choice(list(members.values()))
    elif kind < 0.9:
        members[rng.choice(NAMES)] = members.pop(name)
    elif name.endswith(".json"):
        members[name] = edited_json(members[name], rng)
    else:
        members[name] = members[name].replace(b"item_out.i8", rng.choice(PATHS), rng.randint(1, 3))


def edited(content: bytes, rng: random.Random) -> bytes:
    """Return content with a word that matters, other bytes, or another length."""
    kind, at = rng.random(), rng.randrange(len(content) + 1)
    if kind < 0.4:
        at -= at % 4
        return content[:at] + rng.choice(WORDS) + content[at + 4 :]
    if kind < 0.6:
        return scratched(content, rng)
    if kind < 0.8:
        return content[:at]
    return content[:at] + rng.randbytes(rng.choice([1, 3, 4, 8, 64])) + content[at:]


def edited_json(content: bytes, rng: random.Random) -> bytes:
    """Return JSON with another value somewhere."""
    try:
        tree = json.loads(content)
        edit_value(tree, rng)
        return json.dumps(tree).encode("utf-8", "surrogatepass")
    except Exception:  # it was broken before
        return scratched(content, rng)


def scratched(content: bytes, rng: random.Random) -> bytes:
    """Return content with one to four other bytes."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4) if changed else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def packed(members: Members, rng: random.Random) -> bytes:
    """Return the zip of members; one may be compressed, stand twice, or have a header that lies."""
    body, central, odd = bytearray(), bytearray(), rng.random()
    entries = list(members.items())
    if odd < 0.01:
        entries.append(rng.choice(entries))
    for name, content in entries:
        encoded, method = name.encode("utf-8", "surrogatepass"), 8 if odd > 0.99 and rng.random() < 0.2 else 0
        stored = zlib.compress(content, wbits=-15) if method else content
        common = (0x800, method, 0, 33, zlib.crc32(content), len(stored), len(content), len(encoded), 0)
        central += struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, *common, 0, 0, 0, 0, len(body)) + encoded
        body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, *common) + encoded + stored
    count = len(entries)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(central), len(body), 0)
    made = body + central + end
    if 0.01 < odd < 0.12:  # the central directory and its end are what all else is found by
        for _ in range(rng.randint(1, 3)):
            at = len(made) - rng.randint(1, len(central) + len(end))
            made[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(made)
