"""What a hostile file may try, with right hashes: it is refused before anything is allocated, opened or run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgerec.bundle import Bundle
from edgerec.errors import BundleError
from edgerec.runtime import Recommender
from edgerec.runtime.contents import Strings, read
from edgerec.runtime.graph_scan import externals
from edgerec.runtime.ids import ORDER, SortedRows, sorted_places
from edgerec.runtime.layout import Tower, strings

Write = Callable[..., Path]


def outside(location: str = "/etc/passwd", name: str = "secret") -> TensorProto:
    """Return a tensor that asks for a file."""
    tensor = TensorProto(name=name, data_type=TensorProto.INT8, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def hide(model: onnx.ModelProto, where: str) -> None:
    """Put a tensor that asks for a file somewhere into a graph."""
    inner = helper.make_graph([], "inner", [], [], [outside()])
    sparse = onnx.SparseTensorProto(values=outside(), dims=[4])
    constant = helper.make_node("Constant", [], ["c"], value=outside())
    places: dict[str, Callable[[], object]] = {
        "initializer": lambda: model.graph.initializer.append(outside()),
        "sparse initializer": lambda: model.graph.sparse_initializer.append(sparse),
        "attribute": lambda: model.graph.node.append(constant),
        "tensors": lambda: model.graph.node.append(helper.make_node("X", [], ["c"], values=[outside()])),
        "subgraph": lambda: model.graph.node.append(helper.make_node("If", ["a"], ["c"], then_branch=inner)),
        "function": lambda: model.functions.append(onnx.FunctionProto(name="f", node=[constant])),
        "training": lambda: model.training_info.append(onnx.TrainingInfoProto(algorithm=inner)),
    }
    places[where]()


@pytest.mark.parametrize(
    "where", ["initializer", "sparse initializer", "attribute", "tensors", "subgraph", "function", "training"]
)
@pytest.mark.parametrize("member", ["recommender.onnx", "item_encoder.onnx"])
def test_a_graph_that_asks_for_a_file_is_not_opened(ring: Tower, write: Write, member: str, where: str) -> None:
    def change(members: dict[str, bytes], model: dict[str, Any]) -> None:
        graph = onnx.load_from_string(members[member])
        hide(graph, where)
        members[member] = graph.SerializeToString()

    with pytest.raises(BundleError, match="asks for the file '/etc/passwd' as 'secret'"):
        Recommender.load(write(ring, change)).search("red")


@pytest.mark.parametrize("location", ["../item_out.i8", "titles.utf8", "*/_ORT_MEM_ADDR_/*", ""])
def test_a_table_under_another_members_name_is_refused(ring: Tower, write: Write, location: str) -> None:
    def change(members: dict[str, bytes], model: dict[str, Any]) -> None:
        graph = onnx.load_from_string(members["recommender.onnx"])
        table = next(one for one in graph.graph.initializer if one.name == "item_out.i8")
        next(entry for entry in table.external_data if entry.key == "location").value = location
        members["recommender.onnx"] = graph.SerializeToString()

    with pytest.raises(BundleError, match="expected no file but the members bias.f32"):
        Recommender.load(write(ring, change))


@given(st.binary(max_size=40))
def test_any_bytes_are_scanned_or_refused(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        externals(memoryview(content))


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_items": 10**60},
        {"n_items": 2**31 - 1, "embedding_size": 2**14},
        {"embedding_size": 2**40},
        {"decays": [0.5] * 65, "mix": [1.0] * 65},
        {"scale": 10**400},
        {"mix": [1e300]},
        {"max_tokens": [[[[[]]]]] * 1000},
    ],
    ids=str,
)
def test_what_a_small_file_declares_is_refused_before_it_is_allocated(
    ring: Tower, write: Write, wrong: dict[str, Any]
) -> None:
    with pytest.raises(BundleError) as caught:
        Recommender.load(write(ring, lambda _, model: model.update(wrong)))
    assert len(str(caught.value)) < 3000


def test_tokens_that_the_encoder_does_not_have_are_a_refusal(ring: Tower, write: Write) -> None:
    def change(members: dict[str, bytes], model: dict[str, Any]) -> None:
        members["tokenizer.json"] = members["tokenizer.json"].replace(b'"red":0', b'"red":999999')

    recommender = Recommender.load(write(ring, change))
    assert recommender.search("blue", 1)
    with pytest.raises(BundleError, match="item_encoder.onnx cannot run here"):
        recommender.search("red")


IDS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, unique=True)


@given(IDS, st.text())
def test_sorted_ids_answer_as_a_dict(ids: list[str], other: str) -> None:
    packed = strings("ids", ids)
    held = Strings(memoryview(packed["ids.offsets"]), memoryview(packed["ids.utf8"]))
    rows, wanted = SortedRows(held, sorted_places(ids)), {item: row for row, item in enumerate(ids, 1)}
    assert dict(rows) == wanted
    assert rows.get(other, 0) == wanted.get(other, 0)


def test_a_large_catalogue_holds_its_order_and_a_wrong_one_mixes_nothing_up(
    ring: Tower, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgerec.runtime.layout.LARGE", 8)
    path = write(ring)
    assert bytes(Bundle(path)[ORDER]) == np.arange(8, dtype="<u4").tobytes()
    assert Recommender.load(path).recommend(["c"], 1)[0].item == "d"

    def reverse(members: dict[str, bytes], model: dict[str, Any]) -> None:
        members[ORDER] = np.arange(8, dtype="<u4")[::-1].tobytes()

    rows = read(Bundle(write(ring, reverse))).rows
    assert all(rows[item] == row for row, item in enumerate("abcdefgh", 1) if item in rows)

    def escape(members: dict[str, bytes], model: dict[str, Any]) -> None:
        members[ORDER] = np.arange(1, 9, dtype="<u4").tobytes()

    with pytest.raises(BundleError, match="places outside the catalogue"):
        Recommender.load(write(ring, escape))


def test_offsets_of_no_string_at_all_are_refused(ring: Tower, write: Write) -> None:
    def change(members: dict[str, bytes], model: dict[str, Any]) -> None:
        members |= {"texts.offsets": b"", "texts.utf8": b""}

    with pytest.raises(BundleError, match="0 texts"):
        _ = Recommender.load(write(ring, change)).catalogue.texts
