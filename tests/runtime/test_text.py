"""Token ids become what the graph takes; strings that were asked for are kept, but not without end."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

import pytest

from edgerec.runtime import contents, text
from edgerec.runtime.contents import Strings
from edgerec.runtime.engine import EXACT
from edgerec.runtime.text import TextEncoder, feed_of


@pytest.mark.parametrize(
    ("encoded", "ids", "mask"),
    [
        ([[5, 6]], [[5, 6]], [[1, 1]]),
        ([[5, 6], [], [7]], [[5, 6], [0, 0], [7, 0]], [[1, 1], [0, 0], [1, 0]]),
        ([[]], [[0]], [[0]]),  # no token at all is still a text
    ],
)
def test_token_ids_are_padded_to_the_longest(
    encoded: list[list[int]], ids: list[list[int]], mask: list[list[int]]
) -> None:
    feed = feed_of(encoded)
    assert feed["input_ids"].tolist() == ids
    assert feed["attention_mask"].tolist() == mask
    assert {array.dtype for array in feed.values()} == {np.dtype(np.int64)}


@pytest.mark.parametrize(
    ("precision", "entries"),
    [
        ({"text_encoder": "int8-weights"}, {}),
        ({"text_encoder": "int8-qdq"}, EXACT),
        ({"text_encoder": "qat"}, EXACT),
        ("qat", {}),
        (None, {}),
    ],
)
def test_weights_of_eight_bits_are_multiplied_without_saturation(
    monkeypatch: pytest.MonkeyPatch, precision: Any, entries: Mapping[str, str]
) -> None:
    monkeypatch.setattr(text, "open_graph", lambda *given: given[-1])
    bundle = cast("Any", SimpleNamespace(manifest={"precision": precision}))
    assert TextEncoder(bundle, {"max_tokens": 1, "embedding_size": 1}, 1)._session == entries


def test_strings_are_kept_up_to_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MOST_DECODED", 2)
    words = ["red", "é", "", "wine"]
    ends = np.cumsum([0, *(len(word.encode()) for word in words)]).astype("<u4")
    strings = Strings(memoryview(ends.tobytes()), memoryview("".join(words).encode()))
    assert strings.some([3, 1, 0, 2]) == ["wine", "é", "red", ""] == strings.some([3, 1, 0, 2])
    assert strings.some([3])[0] is strings.some([3])[0]
    assert strings.some([0])[0] is not strings.some([0])[0]
