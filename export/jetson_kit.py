"""The target ``tensorrt``: a folder that builds and checks engines on a Jetson, and engines where there is a GPU here.

It is written whole or not at all, and only if every graph answers on the CPU as the goldens say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgerec import __version__
from edgerec.distill.checkpoint import Checkpoint
from edgerec.errors import EdgerecError, ParityError
from edgerec.export import kit_check
from edgerec.export.kit_run import ITEM_TABLE, faults_of, profiles_of
from edgerec.export.limits import LIMITS
from edgerec.export.package import STRINGS, Draft, draft, sizes_of, unpack
from edgerec.export.qdq import fp16_graph, qdq_graph
from edgerec.export.tensorrt_builder import BuildOptions, build, load_tensorrt
from edgerec.export.tensorrt_cache import EngineCache
from edgerec.export.tensorrt_cases import Case, K, cases_of, describe, same_lists
from edgerec.export.tensorrt_ladder import OnnxRuntimeRunner
from edgerec.export.tensorrt_recommender import PRECISIONS, tensorrt_recommender
from edgerec.files import atomic_folder, sha256, write_bytes, write_json
from edgerec.runtime.cuda import Cuda
from edgerec.runtime.layout import TOKENIZER
from edgerec.runtime.tensorrt_engine import Arrays, Deserialized, TensorRTEngine

# What a text vector may be off on the board, as a multiple of what it is on the CPU, since the graph is the same: one
# limit for all models would pass an encoder that answers with another text's vector.
ON_THE_BOARD, SMALLEST_TOLERANCE = 2, 1e-4


def write_tensorrt(
    checkpoint: Checkpoint,
    precision: str,
    out: Path,
    tensorrt: Callable[[], Any] = load_tensorrt,
    cuda: Callable[[], Any] = Cuda,
) -> dict[str, Any]:
    """Write the kit, and engines in it where this machine can build them.

    Args:
        checkpoint: A teacher or a student.
        precision: Not used: the kit holds FP16 and INT8.
        out: A new folder.
        tensorrt: Imports TensorRT.
        cuda: Opens the GPU.

    Returns:
        ``files`` (sizes), ``precision``, ``parity`` (of the text vectors the largest distance; of the recommendations
        the share of histories with the portable graph's top 10, in its order), and a ``note`` on engines.

    Raises:
        UsageError: ``out`` is in use, or the model has no INT8 graph.
        ParityError: A graph or an engine does not answer as the goldens say; nothing was written.
        BuildError: TensorRT is here, and cannot build a graph.
    """
    with atomic_folder(out) as folder:
        prepared = draft(checkpoint)
        graphs, cases = graphs_of(prepared), cases_of(prepared)
        on_cpu = {name: OnnxRuntimeRunner(graph, "CPUExecutionProvider") for name, graph in graphs.items()}
        answers = {name: runner.run(cases[kind_of(name)].inputs) for name, runner in on_cpu.items()}
        parity = text_distances(answers, cases["encoder"])
        write_kit(folder, prepared, graphs, cases, parity)
        referee(folder, answers)
        for name in graphs:
            if kind_of(name) == "recommender":
                parity[name] = same_lists(prepared, on_cpu[name])
        note = build_engines(folder, graphs, cases, tensorrt, cuda)
        return {"precision": " and ".join(PRECISIONS), "files": sizes_of(folder), "parity": parity, "note": note}


def kind_of(name: str) -> str:
    """Return whether a graph of the kit is an ``encoder`` or a ``recommender``."""
    return name.split(".")[0]


def graphs_of(prepared: Draft) -> dict[str, bytes]:
    """Return every graph by its name, such as ``encoder.fp16``."""
    made = {"fp16": fp16_graph(prepared.graph), "int8-qdq": qdq_graph(prepared.graph, prepared.calibration().feeds)}
    graphs = {f"encoder.{precision}": made[precision] for precision in PRECISIONS}
    for precision in PRECISIONS:
        graphs[f"recommender.{precision}"] = tensorrt_recommender(prepared.rounded, precision, K)
    return graphs


def text_distances(answers: Mapping[str, Arrays], case: Case) -> dict[str, float]:
    """Return the largest distance of a text vector to torch's, by the name of the encoder.

    Raises:
        ParityError: One is beyond what its precision may cost.
    """
    found = {}
    for name, got in answers.items():
        if kind_of(name) == "encoder":
            found[name] = float(kit_check.distances(got["text_vector"], case.outputs["text_vector"]).max())
            limit = LIMITS[name.split(".", 1)[1]].text_distance
            if not found[name] <= limit:
                raise ParityError(
                    f"{name} gives a golden text's vector at a cosine distance of {found[name]:.2g}, expected at most "
                    f"{limit:g}; nothing was written: train longer, or calibrate on a larger catalogue"
                )
    return found


def write_kit(
    folder: Path,
    prepared: Draft,
    graphs: Mapping[str, bytes],
    cases: Mapping[str, Case],
    text_distances: Mapping[str, float],
) -> None:
    """Write graphs, goldens, the bundle's strings, and scripts."""
    for name, graph in graphs.items():
        write_bytes(folder / "graphs" / f"{name}.onnx", graph)
    for kind, case in cases.items():
        for name, array in {**case.inputs, **case.outputs}.items():
            write_bytes(folder / "goldens" / kind / f"{name}.bin", np.ascontiguousarray(array).tobytes())
    with TemporaryDirectory() as work:
        model = unpack(prepared, Path(work))
        for name in (TOKENIZER, *STRINGS):
            write_bytes(folder / name, (Path(work) / name).read_bytes())
        table = sha256(Path(work) / ITEM_TABLE)
    described = {}
    for name, graph in graphs.items():
        case = cases[kind_of(name)]
        own = max(ON_THE_BOARD * text_distances.get(name, 0), SMALLEST_TOLERANCE)
        described[name] = describe(name, graph, case, case.tolerance or own)
    write_json(folder / "kit.json", {"edgerec": __version__, "model": model, "item_table": table, "graphs": described})
    beside = files("edgerec.export")
    write_bytes(folder / "README.md", (beside / "jetson_notes.md").read_bytes())
    write_bytes(folder / "check.py", (beside / "kit_check.py").read_bytes())
    write_bytes(folder / "build.sh", (beside / "jetson_build.sh").read_bytes() + build_calls(described).encode())
    for name in ("check.py", "build.sh"):
        (folder / name).chmod(0o755)


def build_calls(graphs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the end of ``build.sh``: a line for each graph, as ``describe`` returns it."""
    lines = []
    for name, graph in graphs.items():
        shapes = [joined(graph["shapes"][which]) for which in ("smallest", "usual", "largest", "golden")]
        inputs = ",".join(f"{one}:goldens/{graph['kind']}/{one}.bin" for one in graph["inputs"])
        lines.append(" ".join(["engine", name, *shapes, inputs]))
    return "\n".join([*lines, 'python3 check.py --answers "$OUT"', ""])


def joined(shapes: Mapping[str, list[int]]) -> str:
    """Return shapes as trtexec reads them."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())


def referee(folder: Path, answers: Mapping[str, Arrays]) -> None:
    """Check answers to the golden inputs, by the name of the graph, by the kit's own check.

    Raises:
        ParityError: Some differ.
    """
    found = faults_of(folder, answers)
    if faults := [f"{name}: {fault}" for name in answers for fault in found[name]]:
        raise ParityError(
            f"{len(faults)} golden answers for TensorRT differ; first: {faults[0]}; nothing was written: "
            "train longer, or calibrate on a larger catalogue"
        )


def build_engines(
    folder: Path,
    graphs: Mapping[str, bytes],
    cases: Mapping[str, Case],
    tensorrt: Callable[[], Any],
    cuda: Callable[[], Any],
) -> str:
    """Build every engine for this machine, check its answers, and keep it with its record; or say why there is none.

    Raises:
        BuildError: TensorRT cannot build one.
        ParityError: One does not answer as the goldens say.
    """
    try:
        trt, device = tensorrt(), cuda()
    except EdgerecError as error:
        return f"no engine was built here: {error}; wrote the Jetson build kit: run its build.sh on the board"
    engines, timing, answers = Deserialized(trt), b"", {}
    cache = EngineCache.here(trt.__version__, device.architecture)
    profiles = profiles_of(json.loads((folder / "kit.json").read_text("utf-8"))["model"])
    for name, graph in graphs.items():
        built = build(trt, graph, profiles[kind_of(name)], None, timing, engines)
        timing = built.timing_cache
        cache.write(cache.path(graph, profiles[kind_of(name)], BuildOptions()), built)  # run-kit need not build again
        write_bytes(folder / "engines" / f"{name}.plan", built.plan)
        write_json(folder / "engines" / f"{name}.json", {**built.record, "architecture": device.architecture})
        runner = TensorRTEngine(trt, engines.open(built.plan), device)
        answers[name] = runner.run(cases[kind_of(name)].inputs)
        runner.close()
    referee(folder, answers)
    return f"engines of TensorRT {trt.__version__} for SM {device.architecture} were built and checked here"
