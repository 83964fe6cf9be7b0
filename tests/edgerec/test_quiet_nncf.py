"""nncf reports to nobody in our process; imported without us it does, which shows that the test would hear it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nncf")

# stands in for the package that would send: whatever is asked of it is written down
LISTENER = """
from pathlib import Path
class Telemetry:
    def __init__(self, *args, **kwargs): Path({told!r}).write_text("started")
    def __getattr__(self, name): return lambda *args, **kwargs: Path({told!r}).write_text(name)
"""
TORCH = """
import torch
from edgerec.distill.fake_quantization import calibrated
calibrated(torch.nn.Linear(4, 4).eval(), [(torch.ones(1, 4),)])
"""
ONNX = """
import numpy as np
from onnx import parser
from edgerec.export.qdq import with_pairs
weights = "<float[4, 4] w = {" + ", ".join(["1"] * 16) + "}>"
text = '<ir_version: 8, opset_import: ["": 17]> g (float[1, 4] x) => (float[1, 4] y) W { y = MatMul(x, w) }'
model = parser.parse_model(text.replace("W", weights))
with_pairs(model, [{"x": np.ones((1, 4), np.float32)}])
"""
OPENVINO = """
from types import SimpleNamespace
import numpy as np
from openvino import Model, opset13
from edgerec.export.openvino_target import quantized
x = opset13.parameter([1, 4], np.float32, name="x")
model = Model([opset13.matmul(x, np.ones((4, 4), np.float32), False, False)], [x])
feeds = SimpleNamespace(feeds=[{"x": np.ones((1, 4), np.float32)}])
quantized(model, SimpleNamespace(calibration=lambda: feeds))
"""


REFEREE = "from edgerec.export.quantization import CANDIDATES; CANDIDATES['int8-qdq'].unavailable()"
COMMAND = "from edgerec.distill.sparse_commands import need; need()"


@pytest.mark.parametrize(
    "ours",
    [TORCH, ONNX, OPENVINO, REFEREE, COMMAND],
    ids=["torch", "onnx", "openvino", "referee", "command"],
)
def test_nncf_sends_nothing_in_our_process_and_would_otherwise(tmp_path: Path, ours: str) -> None:
    if ours == OPENVINO:
        pytest.importorskip("openvino")
    told = tmp_path / "told"
    (tmp_path / "openvino_telemetry.py").write_text(LISTENER.format(told=str(told)))
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    for code, heard in ((ours, False), ("import nncf", True)):
        environment = {**os.environ, "PYTHONPATH": paths, "HOME": str(tmp_path)}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
        assert told.exists() == heard
    assert not (tmp_path / "intel").exists()  # where the real one keeps its client id
