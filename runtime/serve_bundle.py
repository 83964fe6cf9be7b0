"""The bundle that is served, and the next one: opened and verified beside it, then swapped in one assignment.

A request takes ``Shelf.current`` once and keeps it to its end. Nothing closes the old bundle: when the last request on
it has ended, nobody refers to it any more, and Python frees graphs and mapped file.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from edgerec.bundle import digest
from edgerec.runtime.recommender import Recommender
from edgerec.runtime.serve_metrics import Metrics
from edgerec.runtime.verify import verify_open
from edgerec.signing import Key

LOG = logging.getLogger("edgerec.serve")
GLANCE = 0.5  # seconds between two looks at the file
Stamp = tuple[int, int, int]


class Opened(NamedTuple):
    """An open bundle that answers its golden requests, the file's sha256, and since when it is in use (UTC)."""

    recommender: Recommender
    sha256: str
    since: datetime


def open_verified(path: Path, key: Key | None) -> Opened:
    """Open a bundle and replay its golden requests.

    Raises:
        BundleError: It is no whole bundle, is not signed with the key, or holds no golden requests.
        ParityError: It answers otherwise here.
    """
    recommender = Recommender.load(path, key=key)
    verify_open(recommender)
    sha256 = digest(recommender.bundle.file)
    recommender.bundle.release()
    return Opened(recommender, sha256, datetime.now(timezone.utc))


def stamp(path: Path) -> Stamp | None:
    """Return what changes when a file is replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


class Shelf:
    """The path that is served, and what was read from it last.

    Args:
        path: The bundle.
        key: The public key that it and all that follow must be signed with; None to look at no signature.
        metrics: Counts new files.

    Raises:
        BundleError: The first file cannot be used.
        ParityError: It answers otherwise here.
    """

    def __init__(self, path: Path, key: Key | None, metrics: Metrics) -> None:
        self.path, self._key, self._metrics = path, key, metrics
        self._stamp: Stamp | None | bool = stamp(path)
        self.current = open_verified(path, key)

    def look_again(self) -> None:
        """Have the file read anew, changed or not; safe in a signal handler."""
        self._stamp = False

    async def watch(self) -> None:
        """Take each new file that appears under the path, for ever."""
        while True:
            await asyncio.sleep(GLANCE)
            if (found := stamp(self.path)) != self._stamp:
                self._stamp = found  # before it is read: what changes meanwhile is seen at the next glance
                await self.take()

    async def take(self) -> None:
        """Open the file and answer from it; where it cannot be used, go on with what is there."""
        try:
            self.current = await asyncio.to_thread(open_verified, self.path, self._key)
        except Exception as error:  # whatever a new file brings, the old one goes on
            LOG.error("refused a new file, the old bundle goes on: %s", error)
            self._metrics.swapped(False)
        else:
            LOG.info("swapped to %s, sha256 %s", self.path, self.current.sha256)
            self._metrics.swapped(True)
