"""Packing rounds each row to 8 bits, and a bundle whose parts disagree is refused with every reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgerec.bundle import Bundle
from edgerec.errors import BundleError, UsageError
from edgerec.runtime import Recommender
from edgerec.runtime.contents import read
from edgerec.runtime.layout import Tower, pack, quantize_rows
from edgerec.runtime.reference import dequantized


@given(arrays(np.float32, (3, 5), elements=st.floats(-1e4, 1e4, width=32)))
def test_rows_stay_within_half_a_step_and_eight_bits(vectors: Any) -> None:
    codes, scale = quantize_rows(vectors)
    assert codes.dtype == np.int8
    assert np.abs(codes).max() <= 127
    assert (np.abs(codes * scale[:, None] - vectors) <= scale[:, None] * 0.501 + 1e-12).all()


@pytest.mark.parametrize("shared", [True, False])
def test_a_bundle_holds_the_tower_that_was_packed(
    make_tower: Callable[..., Tower], write: Callable[..., Path], shared: bool
) -> None:
    tower = make_tower(shared=shared)
    contents, exact = read(Bundle(write(tower))), dequantized(tower)
    item_in = exact.item_out if exact.item_in is None else exact.item_in
    for row in (1, 7, 40):
        assert contents.column(row, as_history=False) == pytest.approx(exact.item_out[row - 1])
        assert contents.column(row, as_history=True) == pytest.approx(item_in[row - 1])
    assert [contents.titles[index] for index in range(40)] == list(tower.titles)
    assert contents.rows["i7"] == 7
    assert ("item_in.i8" in contents.external) != shared


def test_a_faulty_tower_is_not_packed(ring: Tower) -> None:
    faulty = replace(ring, decays=np.float32([1.5]), bias=ring.bias[1:], ids=list("aacdefgh"), scale=float("nan"))
    with pytest.raises(UsageError) as caught:
        pack(faulty)
    for part in ("bias has shape (7,)", "decays are [1.5]", "7 different ids", "scale is not finite"):
        assert part in str(caught.value)


def test_faulty_repeat_recencies_are_not_packed(ring: Tower) -> None:
    cases = [
        ([0.5, 1.0], [1, 1], "repeat_decays are [0.5, 1.0], expected between 0 and 1"),
        ([0.5], [1, 1], "repeat_weights has shape (2,), expected (1,)"),
        ([[0.5]], [1], "repeat_decays has shape (1, 1), expected (1,)"),
        ([0.5], [np.inf], "repeat_weights is not finite"),
        ([np.nan], [1], "repeat_decays is not finite"),
    ]
    for decays, weights, message in cases:
        with pytest.raises(UsageError) as caught:
            pack(replace(ring, repeat_decays=np.float32(decays), repeat_weights=np.float32(weights)))
        assert message in str(caught.value)


def test_a_bundle_from_before_repeat_recencies_opens(ring: Tower, write: Callable[..., Path]) -> None:
    def older(members: dict[str, bytes], model: dict[str, Any]) -> None:
        del model["repeat_decays"], model["repeat_weights"]

    recommender = Recommender.load(write(ring, older))
    assert recommender.contents.repeat_decays.shape == recommender.contents.repeat_weights.shape == (0,)
    assert recommender.recommend(["c"], k=1)[0].item == "d"
    session = recommender.session()
    session.observe("c")
    assert session.recommend(1)[0].item == "d"


def broken(members: dict[str, bytes], model: dict[str, Any]) -> None:
    """Take away one table and cut two others."""
    del members["item_out.scale"]
    members["text.i8"] = members["text.i8"][:-1]
    members["bias.f32"] += b"more"


def test_every_member_that_disagrees_is_named(ring: Tower, write: Callable[..., Path]) -> None:
    with pytest.raises(BundleError) as caught:
        Recommender.load(write(ring, broken))
    for part in (
        "item_out.scale is missing",
        "text.i8 has 71 bytes, expected 72",
        "bias.f32 has 40 bytes, expected 36",
    ):
        assert part in str(caught.value)


def test_every_faulty_entry_of_the_model_is_named(ring: Tower, write: Callable[..., Path]) -> None:
    wrong = {"n_items": True, "decays": [0.5, 1.0], "mix": [], "scale": "5", "mask_seen": None, "max_tokens": 0}
    wrong |= {"repeat_decays": [0], "repeat_weights": None}
    with pytest.raises(BundleError) as caught:
        Recommender.load(write(ring, lambda _, model: model.update(wrong)))
    assert all(f"model.{name} is " in str(caught.value) for name in wrong)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("ids.offsets", np.arange(9, dtype="<u4")[::-1].tobytes(), "ids.utf8: offsets do not rise"),
        ("titles.utf8", b"\xff", "titles.utf8: offsets do not rise|not UTF-8"),
        ("bias.f32", np.full(9, np.nan, "<f4").tobytes(), "bias.f32 is not finite"),
        ("popularity.f32", np.ones(9, "<f4").tobytes(), "would return the padding item"),
        ("recommender.onnx", b"nothing", "recommender.onnx cannot be opened: it is no ONNX file"),
        ("mix", [1.0, 2.0], "mix has 2 values for 1 decays"),
        ("repeat_weights", [1.0], "repeat_weights has 1 values for 0 repeat_decays"),
    ],
)
def test_content_that_cannot_be_used_is_refused(
    ring: Tower, write: Callable[..., Path], name: str, content: Any, message: str
) -> None:
    def change(members: dict[str, bytes], model: dict[str, Any]) -> None:
        target: dict[str, Any] = model if name in model else members
        target[name] = content

    with pytest.raises(BundleError, match=message):
        Recommender.load(write(ring, change))


def test_offsets_inside_a_character_are_refused(ring: Tower, write: Callable[..., Path]) -> None:
    def change(members: dict[str, bytes], model: dict[str, Any]) -> None:
        offsets = np.frombuffer(members["titles.offsets"], "<u4").copy()
        offsets[6] -= 1
        members["titles.offsets"] = offsets.tobytes()

    with pytest.raises(BundleError, match="offsets cut a character"):
        Recommender.load(write(ring, change))


def test_another_graph_is_refused_by_its_names(ring: Tower, write: Callable[..., Path]) -> None:
    def change(members: dict[str, bytes], model: dict[str, Any]) -> None:
        graph = onnx.load_from_string(members["recommender.onnx"])
        graph.graph.output.pop()
        members["recommender.onnx"] = graph.SerializeToString()

    with pytest.raises(BundleError, match=r"gives \['items', 'scores', 'state_out'\]; expected"):
        Recommender.load(write(ring, change))


def test_a_graph_without_the_models_repeat_recencies_is_refused(ring: Tower, write: Callable[..., Path]) -> None:
    def change(members: dict[str, bytes], model: dict[str, Any]) -> None:
        model.update(repeat_decays=[0.5], repeat_weights=[1.0])

    with pytest.raises(BundleError, match=r"expected \['exclude', .*'repeat_memory', 'repeat_rows', 'score_offset'"):
        Recommender.load(write(ring, change))
