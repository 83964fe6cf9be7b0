"""A bundle on OpenVINO answers as on onnxruntime, with and without what has a default."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import pytest

from edgerec.benchmarks.adapters import NotHere
from edgerec.benchmarks.subjects import BundleSubject
from edgerec.errors import ParityError
from edgerec.export.openvino_subject import OpenvinoSubject
from edgerec.runtime.layout import Tower

pytest.importorskip("openvino")
REPEATS = {"repeat_decays": np.float32([0.8]), "repeat_weights": np.float32([2]), "mask_seen": False}


@pytest.mark.parametrize("repeats", [{}, REPEATS], ids=["seen-masked", "repeats"])
def test_both_engines_answer_alike(
    make_tower: Callable[..., Tower],
    write: Callable[..., Path],
    repeats: dict[str, Any],
) -> None:
    path = str(write(make_tower(**repeats)))
    histories = [["i1"], ["i3", "i1", "i3"], [f"i{row}" for row in range(1, 31)]]
    for kind in ("recommend", "session"):
        subjects = [OpenvinoSubject(kind, path), BundleSubject(kind, path)]
        for subject in subjects:
            subject.prepare()
            subject.observe(histories)
        for history in histories:
            assert subjects[0].run_one(history) == subjects[1].run_one(history)
        ours, theirs = (subject.goldens() for subject in subjects)
        assert ours["passes"] and ours["requests"] == theirs["requests"] > 0
        session = subjects[0].recommender.ranker._session
        session.run = lambda *asked, run=session.run: [2 * one for one in run(*asked)]
        assert subjects[1].goldens()["passes"]
        with pytest.raises(ParityError, match="goldens fail here"):  # each replays its own answers
            subjects[0].goldens()


def test_what_openvino_cannot_compile_is_not_here(write: Callable[..., Path], ring: Tower) -> None:
    def damage(members: dict[str, bytes], model: dict[str, Any]) -> None:
        from onnx import helper, load_from_string

        graph = load_from_string(members["item_encoder.onnx"])
        graph.graph.node[-1].CopyFrom(helper.make_node("NoSuch", ["zero", "less"], ["bias"]))
        members["item_encoder.onnx"] = graph.SerializeToString()

    subject = OpenvinoSubject("recommend", str(write(ring, damage)))
    with pytest.raises(NotHere, match="cannot compile item_encoder.onnx"):
        subject.prepare()
