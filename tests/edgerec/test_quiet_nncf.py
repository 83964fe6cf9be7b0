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
OURS = """
import torch
from edgerec.distill.fake_quantization import calibrated
calibrated(torch.nn.Linear(4, 4).eval(), [(torch.ones(1, 4),)])
"""


def test_nncf_sends_nothing_in_our_process_and_would_otherwise(tmp_path: Path) -> None:
    told = tmp_path / "told"
    (tmp_path / "openvino_telemetry.py").write_text(LISTENER.format(told=str(told)))
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    for code, heard in ((OURS, False), ("import nncf", True)):
        environment = {**os.environ, "PYTHONPATH": paths, "HOME": str(tmp_path)}
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
        assert told.exists() == heard
    assert not (tmp_path / "intel").exists()  # where the real one keeps its client id
