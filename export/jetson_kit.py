"""The target ``tensorrt``: engines where there is a GPU, and a folder that builds and checks them on a Jetson.

The folder is written whole or not at all, and only if every graph answers on the CPU as the goldens say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from edgerec import __version__
from edgerec.distill.encoder import MAX_TOKENS
from edgerec.errors import EdgerecError, ParityError
from edgerec.export import kit_check
from edgerec.export.goldens import goldens
from edgerec.export.kit_files import build_script, readme
from edgerec.export.package import Draft
from edgerec.export.qdq import fp16_graph, qdq_graph
from edgerec.export.quantization import CANDIDATES
from edgerec.export.targets import Report
from edgerec.export.tensorrt_builder import (
    BATCHES,
    EXCLUDED,
    HISTORIES,
    LENGTHS,
    build,
    encoder_profiles,
    load_tensorrt,
    recommender_profiles,
)
from edgerec.export.tensorrt_ladder import OnnxRuntimeRunner, Runner
from edgerec.export.tensorrt_recommender import LOWEST, PRECISIONS, tensorrt_recommender
from edgerec.files import atomic_folder, write_bytes, write_json
from edgerec.runtime.cuda import Cuda
from edgerec.runtime.layout import Tower
from edgerec.runtime.tensorrt_engine import Arrays, Deserialized, TensorRTEngine

Case = tuple[Arrays, Arrays, float]  # golden inputs, golden outputs, tolerance of a score
K = 10
RANGES = ("smallest", "usual", "largest")
LIMITS = {  # of the engines that trtexec builds, in the order of RANGES
    "encoder": {"batch": (1, 1, BATCHES[-1]), "length": (1, LENGTHS[0], MAX_TOKENS)},
    "recommender": {
        "batch": (1, 1, BATCHES[-1]),
        "length": (1, HISTORIES[0], HISTORIES[-1]),
        "excluded": (1, HISTORIES[0], EXCLUDED),
        "remembered": (1, HISTORIES[0], EXCLUDED),
    },
}
TEXT_TOLERANCE = {"fp16": 1e-3, "int8-qdq": CANDIDATES["int8-qdq"].tolerance}  # cosine distance of a text vector


def export_to(
    prepared: Draft,
    precision: str,
    out: Path,
    tensorrt: Callable[[], Any] = load_tensorrt,
    cuda: Callable[[], Any] = Cuda,
) -> Report:
    """Write the kit, and engines beside it where this machine can build them.

    Args:
        prepared: The model.
        precision: Of the bundle; the kit holds every precision that TensorRT takes.
        out: The folder to write; it must be new.
        tensorrt: Imports TensorRT.
        cuda: Opens the GPU.

    Raises:
        ParityError: A graph or an engine does not answer as the goldens say; nothing was written.
    """
    with atomic_folder(out) as folder:
        cases = {"encoder": encoder_case(prepared), "recommender": recommender_case(prepared)}
        graphs = made_graphs(prepared)
        described = {name: describe(name, graph, *cases[kind_of(name)]) for name, graph in graphs.items()}
        kit = {"edgerec": __version__, "model": prepared.checkpoint.info["data"]["name"], "graphs": described}
        write_kit(folder, kit, graphs, cases)
        referee(
            folder, {name: OnnxRuntimeRunner(graph, "CPUExecutionProvider") for name, graph in graphs.items()}, cases
        )
        try:
            trt, device = tensorrt(), cuda()
        except EdgerecError as error:
            missing = str(error)
        else:
            missing = ""
            build_engines(folder, graphs, cases, prepared.rounded, trt, device)
    sizes = {name: len(graph) for name, graph in graphs.items()}
    lines = [f"{out}: {name} {size / 1e6:.2f} MB" for name, size in sizes.items()]
    lines.append(
        f"no engine: {missing}; wrote the Jetson build kit: {out}/build.sh" if missing else f"{out}/engines: built"
    )
    return Report(lines, {"kit": str(out), "graphs": sizes, "engines": not missing, "missing": missing or None})


def kind_of(name: str) -> str:
    """Return whether a graph of the kit is the ``encoder`` or the ``recommender``."""
    return name.split(".")[0]


def made_graphs(prepared: Draft) -> dict[str, bytes]:
    """Return every graph by its name, such as ``encoder.fp16``."""
    made = {"fp16": fp16_graph(prepared.graph), "int8-qdq": qdq_graph(prepared.graph, prepared.calibration().feeds)}
    graphs = {f"encoder.{precision}": made[precision] for precision in PRECISIONS}
    return graphs | {
        f"recommender.{precision}": tensorrt_recommender(prepared.rounded, precision, K) for precision in PRECISIONS
    }


def encoder_case(prepared: Draft) -> Case:
    """Return the golden texts as the encoder reads them, torch's text vectors, and no tolerance of its own."""
    encoded = [one.ids[:MAX_TOKENS] for one in prepared.tokenizer.encode_batch(prepared.texts)]
    ids = np.zeros((len(encoded), max(1, *map(len, encoded))), np.int64)
    mask = np.zeros_like(ids)
    for line, tokens in enumerate(encoded):
        ids[line, : len(tokens)], mask[line, : len(tokens)] = tokens, 1
    return {"input_ids": ids, "attention_mask": mask}, {"text_vector": prepared.vectors.astype(np.float32)}, 0.0


def recommender_case(prepared: Draft) -> Case:
    """Return golden requests as one padded batch, torch's answers, and the tolerance of a score."""
    tower = prepared.rounded
    nothing = np.zeros((0, tower.embedding_size), np.float32)
    found = json.loads(goldens(tower, [one[-HISTORIES[-1] :] for one in prepared.histories], [], nothing, 0.0))
    requests = found["requests"][: BATCHES[-1]]
    longest = max(1, *(len(one["history"]) for one in requests))
    history, exclude = (np.zeros((len(requests), longest), np.int64) for _ in range(2))
    k = min(K, tower.n_items + 1)
    items, scores = np.full((len(requests), k), -1, np.int64), np.full((len(requests), k), LOWEST, np.float32)
    for line, one in enumerate(requests):
        history[line, : len(one["history"])] = one["history"]
        exclude[line, : len(one["history"])] = one["history"] if one["exclude_seen"] else 0
        items[line, : len(one["items"])], scores[line, : len(one["items"])] = one["items"], one["scores"]
    state = np.zeros((len(requests), len(tower.decays), tower.embedding_size), np.float32)
    inputs = {"history": history, "state": state, "exclude": exclude}
    if repeats := tower.repeat_decays.size:
        inputs["repeat_rows"] = np.zeros((len(requests), 1), np.int64)
        inputs["repeat_memory"] = np.zeros((len(requests), repeats, 1), np.float32)
    return inputs, {"items": items, "scores": scores}, float(found["tolerance"])


def describe(name: str, graph: bytes, inputs: Arrays, outputs: Arrays, tolerance: float) -> dict[str, Any]:
    """Return a graph's entry in ``kit.json``."""
    kind, precision = name.split(".", 1)
    shapes: dict[str, dict[str, list[int]]] = {which: {} for which in RANGES}
    for place, which in enumerate(RANGES):
        for value in onnx.load_from_string(graph).graph.input:
            dims = value.type.tensor_type.shape.dim
            shapes[which][value.name] = [dim.dim_value or LIMITS[kind][dim.dim_param][place] for dim in dims]
    shapes["golden"] = {one: list(array.shape) for one, array in inputs.items()}
    return {
        "kind": kind,
        "precision": precision,
        "tolerance": tolerance or TEXT_TOLERANCE[precision],
        "shapes": shapes,
        "inputs": {one: str(array.dtype) for one, array in inputs.items()},
        "outputs": {one: {"dtype": str(array.dtype), "shape": list(array.shape)} for one, array in outputs.items()},
    }


def write_kit(folder: Path, kit: dict[str, Any], graphs: Mapping[str, bytes], cases: Mapping[str, Case]) -> None:
    """Write graphs, goldens and scripts."""
    for name, graph in graphs.items():
        write_bytes(folder / "graphs" / f"{name}.onnx", graph)
    for kind, (inputs, outputs, _) in cases.items():
        for name, array in {**inputs, **outputs}.items():
            write_bytes(folder / "goldens" / kind / f"{name}.bin", np.ascontiguousarray(array).tobytes())
    write_json(folder / "kit.json", kit)
    write_bytes(folder / "README.md", readme(kit["graphs"]).encode())
    for name, text in (
        ("build.sh", build_script(kit["graphs"])),
        ("check.py", Path(kit_check.__file__).read_text("utf-8")),
    ):
        write_bytes(folder / name, text.encode())
        (folder / name).chmod(0o755)


def referee(folder: Path, runners: Mapping[str, Runner], cases: Mapping[str, Case]) -> None:
    """Check the answers of every graph by the kit's own check.

    Raises:
        ParityError: Some differ.
    """
    with TemporaryDirectory() as answers:
        for name, runner in runners.items():
            inputs, outputs, _ = cases[kind_of(name)]
            got = runner.run(inputs)
            for one in outputs:
                write_bytes(Path(answers) / name / f"{one}.bin", np.ascontiguousarray(got[one]).tobytes())
        found = kit_check.check_all(folder, Path(answers))
    if faults := [f"{name}: {fault}" for name in runners for fault in found[name]]:
        raise ParityError(
            f"{len(faults)} golden answers for TensorRT differ; first: {faults[0]}; nothing was written: "
            "train longer, or calibrate on a larger catalogue"
        )


def build_engines(
    folder: Path, graphs: Mapping[str, bytes], cases: Mapping[str, Case], tower: Tower, trt: Any, device: Any
) -> None:
    """Build every engine for this machine, check its answers, and keep it with its record.

    Raises:
        BuildError: TensorRT cannot build one.
        ParityError: One answers otherwise than its graph does on the CPU.
    """
    engines, timing, runners = Deserialized(trt), b"", {}
    sizes = len(tower.decays), tower.embedding_size, int(tower.repeat_decays.size)
    profiles = {"encoder": encoder_profiles(MAX_TOKENS), "recommender": recommender_profiles(*sizes)}
    for name, graph in graphs.items():
        built = build(trt, graph, profiles[kind_of(name)], None, timing, engines)
        timing = built.timing_cache
        write_bytes(folder / "engines" / f"{name}.plan", built.plan)
        write_json(folder / "engines" / f"{name}.json", {**built.record, "architecture": device.architecture})
        runners[name] = TensorRTEngine(trt, engines.open(built.plan), device)
    referee(folder, runners, cases)
    for runner in runners.values():
        runner.close()
