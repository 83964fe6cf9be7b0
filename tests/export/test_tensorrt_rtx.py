"""NVIDIA's own parser and builder take every graph of the target, and the committed log says so of real students."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
from onnx import parser

import pytest

from edgerec.export.qdq import fp16_graph, qdq_graph
from edgerec.export.tensorrt_builder import BuildError, BuildOptions, build
from edgerec.export.tensorrt_gate import CAPABILITIES, gate
from edgerec.export.tensorrt_recommender import PRECISIONS, tensorrt_recommender

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "tensorrt-rtx-ml-100k.json"
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed: pip install tensorrt-rtx-cu13, in an environment of its own",
)


def graphs_of(kind: str, small_bert: Path) -> tuple[dict[str, bytes], Any]:
    """Return every graph of a random student and a tower with repeat recencies."""
    from tests.export.test_qdq import VOCABULARY, exported, tiny
    from tests.export.test_tensorrt_recommender import TOWERS

    if kind == "tiny":
        source = tiny(small_bert)
    else:
        from edgerec.distill.static import StaticEncoder

        source = exported(StaticEncoder(VOCABULARY, 12, 8))
    ids = np.arange(1, 13).reshape(2, 6)
    feeds = [{"input_ids": ids, "attention_mask": np.ones_like(ids)}]
    graphs = {"encoder.fp16": fp16_graph(source), "encoder.int8-qdq": qdq_graph(source, feeds)}
    tower = TOWERS["repeats" if kind == "tiny" else "separate"]
    return graphs | {f"recommender.{one}": tensorrt_recommender(tower, one) for one in PRECISIONS}, tower


@pytest.mark.tensorrt_rtx
@needs_rtx
@pytest.mark.parametrize("kind", ["tiny", "static"])
def test_every_graph_parses_and_builds_for_gpus_that_are_not_here(kind: str, small_bert: Path) -> None:
    import tensorrt_rtx

    rows = gate(tensorrt_rtx, *graphs_of(kind, small_bert))
    assert [row.get("reason") for row in rows] == [None] * 4 * len(CAPABILITIES)
    assert all(row["engine_bytes"] > 1000 for row in rows)


@pytest.mark.tensorrt_rtx
@needs_rtx
@pytest.mark.parametrize(
    "body",
    [
        "z = Cast<to = 3>(x) m = MatMulInteger(z, w) y = Cast<to = 1>(m)",
        "q = QuantizeLinear(x, s, p) y = DequantizeLinear(q, s, p)",
    ],
)
def test_what_the_linter_refuses_the_parser_refuses(body: str) -> None:
    import tensorrt_rtx

    from edgerec.export.qdq_lint import check_qdq

    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[b, 2] x) => (float[b, n] y) '
        f"<float s = {{0.1}}, int8 p = {{3}}, int8[2,3] w = {{1, 2, 3, 4, 5, 6}}> {{ {body} }}"
    )
    assert check_qdq(model)
    with pytest.raises(BuildError, match="cannot parse|built no engine"):
        profile = {"x": ((1, 2), (1, 2), (4, 2))}
        build(tensorrt_rtx, model.SerializeToString(), [profile], BuildOptions(capabilities=CAPABILITIES[:1]))


def test_the_committed_log_has_every_graph_of_a_tiny_and_a_static_student() -> None:
    log = json.loads(RESULTS.read_text("utf-8"))
    built = {(row["model"].split()[0], row["graph"], row["sm"]) for row in log["builds"] if row["built"]}
    kinds = [f"{graph}.{one}" for graph in ("encoder", "recommender") for one in PRECISIONS]
    assert built == {(model, kind, sm) for model in ("tiny", "static") for kind in kinds for sm in CAPABILITIES}
    assert log["gpu"] is None and log["versions"]["tensorrt_rtx"]
