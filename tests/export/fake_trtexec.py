"""A trtexec that knows the flags of one version and no others, and runs a graph on the CPU.

Called as ``python fake_trtexec.py VERSION ARGUMENTS``, VERSION as trtexec prints it: 100300 for 10.3.0. Flags are those
of ``trtexec --help``; 11 has names for what became its defaults.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np

COMMON = "onnx saveEngine loadEngine minShapes optShapes maxShapes shapes loadInputs exportOutput exportTimes warmUp "
COMMON += "duration iterations avgRuns percentile skipInference builderOptimizationLevel timingCacheFile useCudaGraph "
COMMON += "useSpinWait"
OWN = {10: "stronglyTyped noDataTransfers fp16 int8", 11: "noCudaGraph noSpinWait includeDataTransfers"}
TYPES = {"tensor(int64)": np.int64, "tensor(float)": np.float32}


def shapes(text: str) -> dict[str, tuple[int, ...]]:
    """Read ``name:1x2,other:3``."""
    pairs = (one.rsplit(":", 1) for one in text.split(","))
    return {name: tuple(int(size) for size in sizes.split("x")) for name, sizes in pairs}


def build(given: dict[str, str]) -> None:
    """Keep the graph and its limits as the engine."""
    low, usual, high = (shapes(given[f"{one}Shapes"]) for one in ("min", "opt", "max"))
    assert all(a <= b <= c for name in low for a, b, c in zip(low[name], usual[name], high[name], strict=True))
    shutil.copyfile(given["onnx"], given["saveEngine"])
    Path(given["saveEngine"] + ".limits").write_text(json.dumps(high))


def run(given: dict[str, str]) -> None:
    """Run an engine on raw files, and write its outputs as C++ does: six digits, in dimensions joined by x."""
    import onnxruntime

    session = onnxruntime.InferenceSession(given["loadEngine"], providers=["CPUExecutionProvider"])
    files, sizes = dict(one.split(":", 1) for one in given["loadInputs"].split(",")), shapes(given["shapes"])
    limits = json.loads(Path(given["loadEngine"] + ".limits").read_text())
    feeds = {}
    for node in session.get_inputs():
        assert all(size <= most for size, most in zip(sizes[node.name], limits[node.name], strict=True))
        feeds[node.name] = np.fromfile(files[node.name], TYPES[node.type]).reshape(sizes[node.name])
    entries = []
    for node, value in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        values = ", ".join(f"{one:.6g}" if value.dtype == np.float32 else str(one) for one in value.ravel().tolist())
        dimensions = "x".join(map(str, value.shape))
        entries.append(
            f'{{ "name" : "{node.name}"\n  , "dimensions" : "{dimensions}"\n  , "values" : [ {values} ]\n  }}'
        )
    Path(given["exportOutput"]).write_text("[\n  " + "\n, ".join(entries) + "\n]\n")
    Path(given["exportTimes"]).write_text("[]")


def main() -> int:
    """Do what the arguments ask."""
    version, arguments = sys.argv[1], sys.argv[2:]
    known = f"{COMMON} {OWN.get(int(version) // 10000, '')}".split()
    sys.stdout.write(f"&&&& RUNNING TensorRT.trtexec [TensorRT v{version}] # trtexec {' '.join(arguments)}\n")
    if arguments == ["--help"]:
        sys.stdout.write("".join(f"  --{name}=spec      Explanation\n" for name in known))
        return 0
    given = dict(one[2:].partition("=")[::2] for one in arguments)
    if unknown := sorted(set(given) - set(known)):
        sys.stderr.write(f"[E] Unknown option: {' '.join(unknown)}\n")
        return 1
    (build if "saveEngine" in given else run)(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
