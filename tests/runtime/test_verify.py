"""Goldens pass on the graph that they were made for, near-ties included, and fail on any other."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import pytest

from edgerec.errors import BundleError, ParityError
from edgerec.runtime.layout import GOLDENS, GRAPH, Tower
from edgerec.runtime.verify import disagreement, verify


def test_a_good_bundle_passes_and_reports(ring: Tower, write: Callable[..., Path]) -> None:
    report = verify(write(ring))
    assert (report["requests"], report["texts"], report["skipped"]) == (8, 2, None)
    assert 0 <= report["largest_score_difference"] < 1e-3
    assert report["largest_text_distance"] < 1e-6
    assert json.loads(json.dumps(report)) == report


def test_near_ties_may_change_places(make_tower: Callable[..., Tower], write: Callable[..., Path]) -> None:
    tower = make_tower()
    twins = np.repeat(tower.item_out[::2], 2, axis=0)  # pairs whose scores differ by less than the graph's rounding
    bias = np.repeat(tower.bias[::2], 2) + np.tile(np.float32([0, 1e-5]), 20)
    assert verify(write(replace(tower, item_out=twins, bias=bias)))["requests"] == 8


def change_graph(edit: Callable[[onnx.ModelProto], None]) -> Callable[..., None]:
    """Return a change of a bundle's graph; its hash is computed anew when the bundle is written."""

    def change(members: dict[str, bytes], model: dict[str, Any]) -> None:
        graph = onnx.load_from_string(members[GRAPH])
        edit(graph)
        members[GRAPH] = graph.SerializeToString()

    return change


def wrong_mix(graph: onnx.ModelProto) -> None:
    tensor = next(t for t in graph.graph.initializer if tuple(t.dims) == (1, 1, 3))
    tensor.raw_data = np.float32([1, 0.7, -0.4]).tobytes()


def wrong_op(graph: onnx.ModelProto) -> None:
    next(node for node in graph.graph.node if node.op_type == "CumSum").attribute[0].i = 0


def wrong_repeats(graph: onnx.ModelProto) -> None:
    tensor = next(t for t in graph.graph.initializer if tuple(t.dims) == (1, 1, 2))
    tensor.raw_data = np.float32([0.8, 0.3]).tobytes()


def wrong_table(members: dict[str, bytes], model: dict[str, Any]) -> None:
    codes = np.frombuffer(members["item_out.i8"], np.int8).copy()
    members["item_out.i8"] = np.roll(codes, 1).tobytes()


def wrong_tokenizer(members: dict[str, bytes], model: dict[str, Any]) -> None:
    members["tokenizer.json"] = members["tokenizer.json"].replace(b'"red":0', b'"red":4')


@pytest.mark.parametrize(
    "change", [change_graph(wrong_mix), change_graph(wrong_op), wrong_table, wrong_tokenizer], ids=lambda _: ""
)
def test_a_changed_graph_table_or_tokenizer_fails(
    make_tower: Callable[..., Tower], write: Callable[..., Path], change: Callable[..., None]
) -> None:
    assert verify(write(make_tower()))
    with pytest.raises(ParityError, match=r"\d+ of 10 goldens fail here; first: golden"):
        verify(write(make_tower(), change))


def test_the_repeat_weights_are_verified_too(make_tower: Callable[..., Tower], write: Callable[..., Path]) -> None:
    tower = make_tower(repeat_decays=np.float32([0.6, 0.97]), repeat_weights=np.float32([0.8, -0.3]))
    assert verify(write(tower))["largest_score_difference"] < 1e-3
    with pytest.raises(ParityError, match=r"\d+ of 10 goldens fail here; first: golden request"):
        verify(write(tower, change_graph(wrong_repeats)))


def test_a_flipped_byte_is_no_bundle(ring: Tower, write: Callable[..., Path]) -> None:
    path = write(ring)
    content = bytearray(path.read_bytes())
    content[content.index(b"MatMulInteger")] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="was changed: 'recommender.onnx'"):
        verify(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"tolerance": 0.1, "requests": []}']
    + [
        json.dumps({"tolerance": 0.1, "requests": [{"history": [row], "items": [], "scores": [], "k": k}]}).encode()
        for row, k in ((99, 1), (-1, 1), (1, 0), ("x", 1))
    ],
)
def test_a_bundle_without_usable_goldens_cannot_be_verified(
    ring: Tower, write: Callable[..., Path], content: bytes
) -> None:
    with pytest.raises(BundleError, match="no usable golden requests"):
        verify(write(ring, lambda members, model: members.update({GOLDENS: content})))


REQUEST = {"items": [1, 2, 3], "scores": [3.0, 2.0, 1.0]}


@pytest.mark.parametrize(
    ("rows", "scores", "agrees"),
    [
        ([1, 2, 3], [3.0, 2.0, 1.0], True),
        ([1, 2, 3], [3.05, 1.95, 1.05], True),
        ([1, 2, 3], [3.2, 2.0, 1.0], False),
        ([2, 1, 3], [2.0, 3.0, 1.0], False),
        ([1, 2, 9], [3.0, 2.0, 1.05], True),  # another item stands in for the last
        ([1, 2, 9], [3.0, 2.0, 1.5], False),
        ([1, 9, 3], [3.0, 2.0, 1.0], False),
        ([1, 2], [3.0, 2.0], False),
        ([1, 2, 2], [3.0, 2.0, 2.0], False),
        ([1, 2, 3], [3.0, float("nan"), 1.0], False),
    ],
)
def test_ranks_and_scores_agree_within_the_tolerance(rows: list[int], scores: list[float], agrees: bool) -> None:
    assert (disagreement(REQUEST, rows, scores, 0.1) is None) == agrees


def test_a_swap_needs_close_references() -> None:
    close = {"items": [1, 2, 3], "scores": [3.0, 2.95, 1.0]}
    assert disagreement(close, [2, 1, 3], [2.97, 2.96, 1.0], 0.1) is None
    assert disagreement(close, [2, 1, 3], [2.97, 2.96, 1.0], 0.01)
