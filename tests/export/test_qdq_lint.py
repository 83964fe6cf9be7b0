"""One bad graph for each rule of TensorRT's, and the good ones beside them."""

from __future__ import annotations

import onnx
from onnx import parser

import pytest

from edgerec.errors import UsageError
from edgerec.export.graph_index import Index
from edgerec.export.qdq_lint import RULES, check_qdq, require_clean

CONSTANTS = {
    "s": "float s = {0.1}",
    "z": "int8 z = {0}",
    "w": "int8[2,3] w = {1, 2, 3, 4, 5, 6}",
    "ws": "float[3] ws = {0.1, 0.2, 0.3}",
    "wz": "int8[3] wz = {0, 0, 0}",
    "bias": "float[3] bias = {1, 2, 3}",
    "root": "float root = {1.4}",
    "plain": "float[2,3] plain = {1, 2, 3, 4, 5, 6}",
}
PAIR = "q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)"
WEIGHT = "v = DequantizeLinear<axis = 1>(w, ws, wz)"
LAYER = f"{PAIR} {WEIGHT} y = MatMul(d, v)"


def model(body: str, opset: int = 17, **constants: str) -> onnx.ModelProto:
    """Return a graph from x float [b, 2] to y; a node is named after its first output."""
    held = ", ".join({**CONSTANTS, **constants}.values())
    made = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[b, 2] x, float[b, 2] x2) => (float[b, n] y) <{held}> '
        f"{{ {body} }}"
    )
    for node in made.graph.node:
        node.name = node.output[0]
    return made


def pair(name: str) -> str:
    """Return a pair behind a value; its outcome is named ``name.d``."""
    return f"{name}q = QuantizeLinear({name}, s, z) {name}d = DequantizeLinear({name}q, s, z)"


def attention(*rounded: str) -> str:
    """Return an attention of x with itself, with pairs behind some of Q, K, P (softmax) and V."""
    parts = {one: (f"{one}d" if one in rounded else one) for one in "QKPV"}
    pairs = {one: pair(one) if one in rounded else "" for one in "QKPV"}
    return (
        f"Q = Add(x, x2) {pairs['Q']} K = Mul(x, x2) {pairs['K']} kt = Transpose({parts['K']}) "
        f"raw = MatMul({parts['Q']}, kt) scaled = Div(raw, root) P = Softmax(scaled) {pairs['P']} "
        f"V = Sub(x, x2) {pairs['V']} y = MatMul({parts['P']}, {parts['V']})"
    )


GOOD = {
    "a layer with its bias, GELU behind it": (
        f"{PAIR} {WEIGHT} m = MatMul(d, v) a = Add(m, bias) e = Div(a, root) f = Erf(e) y = Mul(a, f)"
    ),
    "an unrounded layer": "y = MatMul(x, plain)",
    "attention, none rounded": attention(),
    "attention, all rounded": attention("Q", "K", "P", "V"),
    "a residual, both rounded": f"{PAIR} {pair('x2')} y = Add(d, x2d)",
    "a table of rows": ("t = DequantizeLinear<axis = 0>(w, rows, rz) i = Cast<to = 7>(x) y = Gather(t, i)"),
    "a pair in front of what only moves": f"{PAIR} r = Transpose<perm = [0, 1]>(d) {WEIGHT} y = MatMul(r, v)",
}
MORE = {"rows": "float[2] rows = {0.1, 0.2}", "rz": "int8[2] rz = {0, 0}"}

BAD = [
    ("opset", "graph", model(LAYER, 21)),
    ("operator", "a", model("a, b, c = DynamicQuantizeLinear(x) y = DequantizeLinear(a, b, c)")),
    ("operator", "m", model("c = Cast<to = 3>(x) m = MatMulInteger(c, w) y = Cast<to = 1>(m)")),
    ("operator", "y", model("y = FakeQuantize(x)")),
    ("zero-point", "q", model(LAYER, z="int8 z = {3}")),
    ("zero-point", "v", model(LAYER, wz="int8[3] wz = {0, 0, 1}")),
    ("int8-only", "q", model(LAYER, z="uint8 z = {0}")),
    ("int8-only", "q", model(LAYER.replace("(x, s, z)", "(x, s)").replace("(q, s, z)", "(q, s)"))),
    ("no-int16", "q", model(LAYER, z="int16 z = {0}")),
    ("no-int32-bias", "b", model(f"{LAYER.replace('y =', 'm =')} b = DequantizeLinear<axis = 0>(ib, ws) y = Add(m, b)",
                                 ib="int32[3] ib = {1, 2, 3}")),
    ("scale", "v", model(LAYER, ws="float[3] ws = {0.1, 0, 0.3}")),
    ("scale", "v", model(LAYER, ws="float[3] ws = {0.1, -0.1, 0.3}")),
    ("scale", "q", model(f"n = ReduceMax<keepdims = 0>(x) {LAYER.replace('(x, s, z)', '(x, n, z)')}")),
    ("per-tensor", "q", model(LAYER.replace("(x, s, z)", "(x, s2)").replace("(q, s, z)", "(q, s2)"),
                              s2="float[2] s2 = {0.1, 0.2}")),
    ("per-channel", "v", model(LAYER, ws="float ws = {0.1}", wz="int8 wz = {0}")),
    ("per-channel", "v", model(LAYER.replace("axis = 1", "axis = 0"), ws="float[2] ws = {0.1, 0.2}",
                               wz="int8[2] wz = {0, 0}")),
    ("both-sides", "y", model(f"{PAIR} y = MatMul(d, plain)")),
    ("both-sides", "y", model(f"{WEIGHT} y = MatMul(x, v)")),
    ("attention", "P", model(attention("Q", "K"))),
    ("attention", "P", model(attention("P"))),
    ("residual", "y", model(f"{PAIR} y = Add(d, x2)")),
    ("bias", "y", model(f"{LAYER.replace('y =', 'm =')} {pair('m')} y = Add(md, bias)")),
    ("gelu", "ad", model(f"{LAYER.replace('y =', 'm =')} a = Add(m, bias) {pair('a')} e = Div(ad, root) y = Erf(e)")),
    ("gelu", "d", model(f"{PAIR} y = Gelu(d)", 20)),
    ("norm", "y", model(f"{PAIR} y = LayerNormalization(d, bias)")),
    ("norm", "y", model(f"{PAIR} y = Softmax(d)")),
    ("pair", "q", model("q = QuantizeLinear(x, s, z) y = Cast<to = 1>(q)")),
    ("pair", "y", model("c = Cast<to = 3>(x) y = DequantizeLinear(c, s, z)")),
]  # fmt: skip


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_a_good_graph_has_no_violation(body: str) -> None:
    assert check_qdq(model(body, **MORE)) == []


@pytest.mark.parametrize(
    ("rule", "node", "graph"), BAD, ids=[f"{rule}-{place}" for place, (rule, *_) in enumerate(BAD)]
)
def test_a_bad_graph_is_told_by_node_and_rule(rule: str, node: str, graph: onnx.ModelProto) -> None:
    assert (node, rule) in {(one.node, one.rule) for one in check_qdq(graph)}


def test_every_rule_has_a_bad_graph() -> None:
    found = {rule.__name__ for rule in RULES for _, _, graph in BAD if list(rule(Index(graph)))}
    assert found == {rule.__name__ for rule in RULES}


def test_all_violations_are_named_at_once() -> None:
    graph = model(LAYER, z="uint8 z = {3}", ws="float[3] ws = {0.1, 0, 0.3}")
    assert {one.rule for one in check_qdq(graph)} == {"int8-only", "zero-point", "scale"}
    with pytest.raises(UsageError, match=r"breaks 4 of TensorRT's rules: .*int8-only.*zero-point.*scale"):
        require_clean(graph.SerializeToString())
