"""JSON from an untrusted file: of bounded size and depth, no name twice in an object, finite numbers only."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

LARGEST = 4 << 20  # bytes; parsed, "[],[],..." takes 25 times as much
DEEPEST = 32


def parse(data: bytes | memoryview, largest: int = LARGEST) -> Any:
    """Return the value of UTF-8 JSON.

    Args:
        data: The text.
        largest: How many bytes it may have.

    Raises:
        ValueError: It is larger or nested deeper than allowed, or is no strict JSON.
    """
    if len(data) > largest:
        raise ValueError(f"JSON of {len(data)} bytes, expected at most {largest}")
    try:
        value = json.loads(str(data, "utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except RecursionError as error:
        raise ValueError(f"JSON nested deeper than {DEEPEST}") from error
    check_depth(value)
    return value


def unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of an object as a dict, or refuse a name that stands twice: readers differ on which counts."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("JSON with a name twice in one object")
    return made


def refuse(constant: str) -> NoReturn:
    """Refuse NaN and the infinities, which are not JSON."""
    raise ValueError(f"JSON with {constant}")


def check_depth(value: Any) -> None:
    """Refuse a value that is nested too deep to be printed or compared, level by level and so without recursion."""
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            part
            for node in level
            if isinstance(node, dict | list)
            for part in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise ValueError(f"JSON nested deeper than {DEEPEST}")
