"""From an item's id to its row, for catalogues of any size.

A dict of a million ids takes about a second and more memory than the item table. So a large bundle holds
``ids.order``, uint32 [N]: the places of the ids in the order of their UTF-8 bytes. It is searched by bisection, in 20
steps for a million, and nothing is built. What it finds is compared with the id itself, so a wrong order loses items,
and mixes none up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from edgerec.runtime.contents import Strings

ORDER = "ids.order"
LARGE = 1 << 16  # ids: below, a dict is made in about 0.1 s, and looks an id up faster than bisection


def sorted_places(ids: Sequence[str]) -> NDArray[np.uint32]:
    """Return what ``ids.order`` holds: uint32 [N], the places of ids in the order of their UTF-8 bytes."""
    encoded = [item.encode() for item in ids]
    return np.array(sorted(range(len(ids)), key=encoded.__getitem__), "<u4")


class SortedRows(Mapping[str, int]):
    """Item id -> row, as a dict would answer, by bisection."""

    def __init__(self, ids: Strings, order: NDArray[np.uint32]) -> None:
        self._ids, self._order = ids, order

    def __getitem__(self, item: str) -> int:
        wanted = item.encode(errors="surrogatepass")  # what UTF-8 cannot hold equals no id
        low, high = 0, len(self._order)
        while low < high:
            middle = (low + high) // 2
            if self._ids.encoded(int(self._order[middle])) < wanted:
                low = middle + 1
            else:
                high = middle
        if low == len(self._order) or self._ids.encoded(int(self._order[low])) != wanted:
            raise KeyError(item)
        return int(self._order[low]) + 1

    def __iter__(self) -> Iterator[str]:
        return (self._ids[place] for place in range(len(self)))

    def __len__(self) -> int:
        return len(self._order)
