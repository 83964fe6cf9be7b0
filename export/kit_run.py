"""A kit of the target ``tensorrt``, opened here by the best way there is, and its golden requests replayed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from edgerec.errors import UsageError
from edgerec.export import kit_check
from edgerec.export.tensorrt_builder import BuildOptions, Profile, encoder_profiles, load_tensorrt, recommender_profiles
from edgerec.export.tensorrt_ladder import open_here
from edgerec.files import write_bytes
from edgerec.runtime.cuda import Cuda
from edgerec.runtime.tensorrt_engine import Arrays

ITEM_TABLE = "item_out.i8"  # of a bundle: no two teachers have the same


def run_kit(
    folder: Path,
    options: BuildOptions | None = None,
    tensorrt: Callable[[], Any] = load_tensorrt,
    cuda: Callable[[], Any] = Cuda,
) -> dict[str, dict[str, Any]]:
    """Open every graph of a kit and compare its answers with the goldens; engines that are built are kept.

    Args:
        folder: What ``edgerec export --target tensorrt`` wrote.
        options: Of engines that are built.
        tensorrt: Imports TensorRT.
        cuda: Opens the GPU.

    Returns:
        Name of a graph -> ``step`` (one of ``tensorrt_ladder.STEPS``), ``reasons`` (step -> why it did not work) and
        ``faults`` (what differs from the goldens).

    Raises:
        UsageError: It is no kit.
        EngineError: A graph runs nowhere here.
    """
    kit = read_kit(folder)
    profiles, graphs = profiles_of(kit["model"]), kit["graphs"]
    found: dict[str, dict[str, Any]] = {}
    answers: dict[str, Arrays] = {}
    for name, entry in graphs.items():
        graph = (folder / "graphs" / f"{name}.onnx").read_bytes()
        opened = open_here(graph, profiles[entry["kind"]], options, tensorrt, cuda)
        found[name] = {"step": opened.step, "reasons": dict(opened.reasons)}
        answers[name] = opened.runner.run(golden_inputs(folder, entry))
    faults = faults_of(folder, answers)
    return {name: {**row, "faults": faults[name]} for name, row in found.items()}


def read_kit(folder: Path) -> dict[str, Any]:
    """Return what ``kit.json`` says.

    Raises:
        UsageError: It is no kit.
    """
    try:
        kit: dict[str, Any] = json.loads((folder / "kit.json").read_text("utf-8"))
        profiles_of(kit["model"]), kit["graphs"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder} holds no usable kit.json ({error}); expected what edgerec export --target tensorrt wrote"
        ) from error
    return kit


def faults_of(folder: Path, answers: Mapping[str, Arrays]) -> dict[str, list[str]]:
    """Return what a kit's own check finds wrong with answers to its golden inputs, by the name of the graph."""
    with TemporaryDirectory() as given:
        for name, outputs in answers.items():
            for one, array in outputs.items():
                write_bytes(Path(given) / name / f"{one}.bin", np.ascontiguousarray(array).tobytes())
        return kit_check.check_all(folder, Path(given))


def profiles_of(model: Mapping[str, Any]) -> dict[str, list[Profile]]:
    """Return the shapes of each kind of graph, of a model as ``runtime.layout.pack`` describes it."""
    sizes = len(model["decays"]), model["embedding_size"], len(model["repeat_decays"])
    return {"encoder": encoder_profiles(model["max_tokens"]), "recommender": recommender_profiles(*sizes)}


def golden_outputs(folder: Path, entry: dict[str, Any]) -> Arrays:
    """Return the golden outputs of a graph, as ``kit.json`` describes it."""
    kept = folder / "goldens" / entry["kind"]
    return {one: kit_check.read_raw(kept / f"{one}.bin", kind) for one, kind in entry["outputs"].items()}


def golden_inputs(folder: Path, entry: dict[str, Any]) -> Arrays:
    """Return the golden inputs of a graph, as ``kit.json`` describes it."""
    kinds = {one: {"dtype": dtype, "shape": entry["shapes"]["golden"][one]} for one, dtype in entry["inputs"].items()}
    return {
        one: kit_check.read_raw(folder / "goldens" / entry["kind"] / f"{one}.bin", kind) for one, kind in kinds.items()
    }
