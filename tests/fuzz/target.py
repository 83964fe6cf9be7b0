"""What must hold of any file: it is refused by ``BundleError``, or what it holds can be used.

With the key that signed the seeds, nothing is accepted but what a seed's manifest lists. A graph is run by onnxruntime
only where it is a seed's: a hostile one without a signature is beyond what edgerec defends (docs/security.md). Of
others it is only asked which files they name.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from edgerec.bundle import MANIFEST, Bundle, digest
from edgerec.errors import BundleError, UnknownItemError
from edgerec.runtime import Recommender
from edgerec.runtime.catalogue import Numbers
from edgerec.runtime.contents import read
from edgerec.runtime.delta import applied, read_delta
from edgerec.runtime.engine import check_externals
from edgerec.runtime.layout import ENCODER, GRAPH
from edgerec.runtime.overlay import identity, load_overlay
from edgerec.runtime.verify import read_goldens

CORPUS = Path(__file__).with_name("corpus")
KEY = CORPUS / "public.pem"


class Target:
    """Checks one file after the other.

    Attributes:
        verdicts: How many inputs got how far.
    """

    def __init__(self, folder: Path) -> None:
        warnings.simplefilter("ignore")  # numpy's, where a hostile scale overflows
        self.path = folder / "input"
        self.verdicts: Counter[str] = Counter()
        self.used: set[str] = set()
        self.base = Recommender.load(CORPUS / "full.edgerec")
        seeds = [Bundle(path) for path in sorted(CORPUS.glob("*edgerec*"))]
        self.signed = {digest(seed[MANIFEST]) for seed in seeds if seed.signed}
        names = [(seed, name) for seed in seeds for name in (GRAPH, ENCODER) if name in seed.manifest["members"]]
        self.graphs = {digest(seed[name]) for seed, name in names}
        self.key = KEY.read_bytes()

    def check(self, data: bytes) -> str:
        """Check one input, and return how far it got.

        Raises:
            Exception: Anything but a refusal: that is a finding.
        """
        self.path.write_bytes(data)
        try:
            bundle = Bundle(self.path)
        except BundleError:
            verdict = "refused as a file"  # a key refuses more, never less
        else:
            self.check_signature()
            verdict = self.verdict(bundle)
        self.verdicts[verdict] += 1
        return verdict

    def check_signature(self) -> None:
        """Open it as a device with a key does."""
        try:
            bundle = Bundle(self.path, self.key)
        except BundleError:
            return
        assert digest(bundle[MANIFEST]) in self.signed, "a manifest that nobody signed was accepted"
        for name, entry in bundle.manifest["members"].items():
            assert digest(bundle[name]) == entry["sha256"], f"{name} is not what was signed"
        self.verdicts["accepted by signature"] += 1

    def verdict(self, bundle: Bundle) -> str:
        """Use what a file holds, or see it refused; the manifest's hashes tell what was used before."""
        if (content := identity(bundle)) in self.used:
            return "content of an earlier input"
        try:
            used = self.use(bundle)
            self.used.add(content)
            return used
        except BundleError:
            return "refused for its content"

    def use(self, bundle: Bundle) -> str:
        """Use what a file holds, as a device without a key does."""
        kind = bundle.manifest.get("kind")
        if kind == "delta":
            return self.use_delta()
        if kind == "overlay":
            self.base.overlay = load_overlay(self.path, identity(self.base.bundle), self.base.contents)
            self.ask(self.base)
            return "overlay used"
        read(bundle)
        if any(digest(bundle[name]) not in self.graphs for name in (GRAPH, ENCODER)):
            for name, tables in ((GRAPH, read(bundle).external), (ENCODER, {})):
                check_externals(bundle, name, tables)
            return "graph not run"
        self.ask(Recommender.load(self.path))
        return "bundle used"

    def use_delta(self) -> str:
        """Apply it, and see that what it removes is gone."""
        delta = read_delta(self.path, self.base.contents.embedding_size)
        fresh = type(self.base.overlay).empty(self.base.contents.n_items, self.base.contents.embedding_size)
        self.base.overlay = applied(fresh, delta, self.base.contents, identity(self.base.bundle))
        found = self.ask(self.base)
        assert not found & set(delta.removed), "a removed item was returned"
        assert self.base.overlay.version == 1
        return "delta used"

    def ask(self, recommender: Recommender) -> set[str]:
        """Ask everything once, and return the items that were found; a refusal of one part is a refusal."""
        contents = recommender.contents
        known = {contents.ids[place] for place in range(contents.n_items)}
        known |= {item.id for item in recommender.overlay.items}
        found = recommender.recommend([], 20) + recommender.search("red wine", 20)
        try:
            found += recommender.recommend([contents.ids[0], contents.ids[1]], 20)
            found += recommender.similar(contents.ids[contents.n_items - 1], 20)
        except UnknownItemError:  # a wrong order of ids, an id twice, or an item that an overlay removed
            self.verdicts["an id not found"] += 1
        scores = recommender.score_rows(np.array([[1, 2]]))
        assert scores.shape == (1, recommender.overlay.next_row - 1)
        names = {entry.item for entry in found}
        assert names <= known, "an item from nowhere"
        catalogue = recommender.catalogue
        assert catalogue.texts is None or all(catalogue.texts[place] is not None for place in range(contents.n_items))
        for name, column in catalogue.columns.items():
            recommender.recommend([], 3, where={name: (None, 1e9) if isinstance(column, Numbers) else "a"})
        read_goldens(recommender)
        return names
