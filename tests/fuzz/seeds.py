"""The seed corpus: ``python tests/fuzz/seeds.py`` writes ``corpus/`` anew, a few KB a file.

A bundle of eight items with all optional members, the same signed, one with two tables and repeat recencies, a delta,
the same signed, and an overlay. The key that signed them was made for this and thrown away.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from edgerec.bundle import Bundle, sign, write_bundle
from edgerec.export.synthetic import random_tower, write_random
from edgerec.runtime import Recommender
from edgerec.runtime.delta import write_delta
from edgerec.runtime.ids import ORDER, sorted_places
from edgerec.runtime.layout import strings
from edgerec.signing import generate

CORPUS = Path(__file__).with_name("corpus")
ITEMS, SIZE = 8, 4


def main() -> None:
    """Write the corpus and its public key."""
    CORPUS.mkdir(exist_ok=True)
    plain, full = CORPUS / "separate.edgerec", CORPUS / "full.edgerec"
    write_random(random_tower(ITEMS, SIZE, shared=False, repeats=True), plain)
    write_random(random_tower(ITEMS, SIZE), full)
    add_optional(full)
    recommender = Recommender.load(full, overlay=CORPUS / "items.overlay")
    write_delta(recommender, {"new": "red film", "item-2": "blue wine"}, ["item-3"], CORPUS / "first.edgerec-delta")
    recommender.add_items({"local": "green film"})
    recommender.remove_items(["item-4"])
    with TemporaryDirectory() as folder:
        private = Path(folder) / "private.pem"
        (CORPUS / "public.pem").unlink(missing_ok=True)
        generate(private, CORPUS / "public.pem")
        for name in ("full.edgerec", "first.edgerec-delta"):
            sign(CORPUS / name, private.read_bytes(), CORPUS / f"signed-{name}")


def add_optional(path: Path) -> None:
    """Give a bundle texts, columns and sorted ids, which a small one does not have by itself."""
    bundle = Bundle(path)
    members = {name: bytes(bundle[name]) for name in bundle.manifest["members"]}
    ids = [f"item-{row}" for row in range(1, ITEMS + 1)]
    columns = {"year": [*range(1990, 1990 + ITEMS - 1), None], "genre": [["a"], ["b", "a"]] * (ITEMS // 2)}
    members |= {
        **strings("texts", [f"red {row}" for row in range(ITEMS)]),
        "columns.json": json.dumps(columns).encode(),
    }
    members[ORDER] = sorted_places(ids).tobytes()
    write_bundle(path, {"model": bundle.manifest["model"]}, members)


if __name__ == "__main__":
    main()
