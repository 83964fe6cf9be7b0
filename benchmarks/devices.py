"""Devices by name, and what of a bundle or a model folder is measured on each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from edgerec.benchmarks import jetson
from edgerec.benchmarks.adapters import KINDS, TORCH_MODES, Empty
from edgerec.benchmarks.cuda_subject import CudaSubject
from edgerec.benchmarks.harness import Target
from edgerec.benchmarks.web_subject import ENGINES as WEB_ENGINES
from edgerec.benchmarks.web_subject import WebSubject
from edgerec.bundle import Bundle
from edgerec.errors import UsageError
from edgerec.runtime.cuda import NoGPUError, open_driver

BUNDLE_DEVICES = {
    "cpu-ort": "edgerec.benchmarks.subjects:BundleSubject",
    "openvino": "edgerec.export.openvino_subject:OpenvinoSubject",  # named, not imported, as torch's below
    "cuda-ort": f"{CudaSubject.__module__}:{CudaSubject.__name__}",
}
TORCH = "edgerec.export.torch_subject:TorchSubject"  # named, not imported: torch belongs into that cell's process alone
TORCH_DEVICES = {"cpu-torch": "cpu", "cuda-torch": "cuda"}
NO_STATE = "torch keeps no state between requests"
ON_THE_CPU = "only the text encoder runs there; ranking is cpu-ort's"
LACKING = {  # device -> kind of request -> why it has none
    "cuda-ort": dict.fromkeys(("recommend", "session"), ON_THE_CPU),
    "web": {
        "session": "a session in the page cannot be copied, and an answer must depend on its request alone",
        "encode": "the page answers with items, and gives no vector",
    },
    **dict.fromkeys(TORCH_DEVICES, {"session": NO_STATE}),
}
TENSORRT = "tensorrt"  # the graphs of a kit, each way that an engine can be driven
TENSORRT_SUBJECT = "edgerec.export.tensorrt_subject:TensorrtSubject"
TENSORRT_GRAPHS = {  # what each answers
    "recommender.fp16": ("recommend", "session"),
    "recommender.int8-qdq": ("recommend", "session"),
    "encoder.fp16": ("search", "encode"),
    "encoder.int8-qdq": ("search", "encode"),
}
WEB = "web"  # headless Chromium
JETSON = "jetson"  # cpu-ort on the board itself
DEVICES = (*BUNDLE_DEVICES, WEB, *TORCH_DEVICES, TENSORRT, JETSON)


def targets(
    devices: Sequence[str],
    bundles: Sequence[Path],
    models: Sequence[Path],
    kinds: Sequence[str],
    threads: Sequence[int],
    kits: Sequence[Path] = (),
    torch_modes: Sequence[str] = TORCH_MODES,
) -> list[Target]:
    """Return what is to be measured, the empty subject first.

    Raises:
        UsageError: There is nothing to measure on a device that was asked for.
    """
    if kits and len(kits) != len(bundles):
        raise UsageError(f"got {len(kits)} kits and {len(bundles)} bundles; expected a kit of each, in their order")
    kit_of = dict(zip(bundles, kits, strict=False))
    made = [Target("empty", "harness", f"{Empty.__module__}:{Empty.__name__}", (kinds[0],))]
    for device in devices:
        paths = models if device in TORCH_DEVICES else bundles
        if not paths:
            wanted = "a model folder with --model" if device in TORCH_DEVICES else "a bundle"
            raise UsageError(f"got nothing to measure on {device}; expected {wanted}")
        for path in paths:
            for count in threads:
                made += of_device(device, path.resolve(), tuple(kinds), count, kit_of.get(path), torch_modes)
    rows = [(one.name, kind) for one in made for kind in one.kinds]
    if double := sorted({row for row in rows if rows.count(row) > 1}):
        raise UsageError(f"{double[0][0]} would be measured twice; expected files of different names")
    return made


def of_device(
    device: str,
    path: Path,
    kinds: tuple[str, ...],
    threads: int,
    kit: Path | None = None,
    torch_modes: Sequence[str] = TORCH_MODES,
) -> list[Target]:
    """Return one file's targets on one device."""
    model = path.name.removesuffix(".edgerec")
    name = f"{model}, {device}" + (f", {threads} threads" if threads > 1 else "")
    if device == JETSON:
        missing = None if jetson.board() else "this machine is no Jetson; run it there, or name it with --host"
        return [
            replace(one, device=JETSON, name=name, missing=missing)
            for one in of_device("cpu-ort", path, kinds, threads)
        ]
    if device == TENSORRT:
        if missing := no_tensorrt(kit):
            return [Target(name, device, "", kinds, {"threads": threads}, path, model, missing=missing)]
        assert kit
        return of_kit(kit.resolve(), path, name, kinds, threads)
    if device in BUNDLE_DEVICES:
        options = {"bundle": str(path), "threads": threads}
        return parted(Target(name, device, BUNDLE_DEVICES[device], kinds, options, path, model, precision(path)))
    found = []
    if device == WEB:
        where = f"{WebSubject.__module__}:{WebSubject.__name__}"
        for engine in WEB_ENGINES:
            options = {"bundle": str(path), "engine": engine}
            found += parted(Target(f"{name}, {engine}", device, where, kinds, options, path, model, precision(path)))
        return found
    for mode in torch_modes:
        options = {"folder": str(path), "threads": threads, "mode": mode, "device": TORCH_DEVICES[device]}
        found += parted(Target(f"{name}, {mode}", device, TORCH, kinds, options, path, model, "fp32"))
    return found


def parted(target: Target) -> list[Target]:
    """Return a target, and where its device lacks some kinds of request, those apart with the reason."""
    lacks = LACKING.get(target.device, {})
    own = tuple(kind for kind in target.kinds if kind not in lacks)
    missing = [replace(target, kinds=(kind,), missing=lacks[kind]) for kind in target.kinds if kind in lacks]
    return [*([replace(target, kinds=own)] if own else []), *missing]


def no_tensorrt(kit: Path | None) -> str | None:
    """Return what is missing to drive engines here, or None."""
    if find_spec("tensorrt") is None:
        return "tensorrt is not installed"
    try:
        open_driver()
    except NoGPUError as reason:
        return str(reason)
    return None if kit else "no --kit; edgerec export --target tensorrt makes one, and edgerec run-kit its engines"


def of_kit(kit: Path, bundle: Path, name: str, kinds: tuple[str, ...], threads: int) -> list[Target]:
    """Return a kit's targets: every graph, with and without a CUDA graph, copies to the GPU counted and not.

    Raises:
        UsageError: It lacks a graph.
    """
    found = []
    for graph, answers in TENSORRT_GRAPHS.items():
        file = kit / "graphs" / f"{graph}.onnx"
        if not file.exists():
            raise UsageError(f"got --kit {kit}, and {file} is not there; expected what export --target tensorrt wrote")
        for cuda_graph, transfers in product((False, True), (True, False)):
            way = ("CUDA graph" if cuda_graph else "no CUDA graph") + ("" if transfers else ", transfers not counted")
            options = {"bundle": str(bundle), "graph": str(file), "threads": threads}
            options |= {"cuda_graph": cuda_graph, "transfers": transfers}
            found.append(
                Target(
                    f"{name}, {graph}, {way}",
                    TENSORRT,
                    TENSORRT_SUBJECT,
                    tuple(kind for kind in kinds if kind in answers),
                    options,
                    file,
                    bundle.name.removesuffix(".edgerec"),
                    graph.split(".")[1],
                )
            )
    return [one for one in found if one.kinds]


def precision(path: Path) -> str:
    """Return a bundle's precisions in one phrase."""
    stated = Bundle(path).manifest.get("precision", {})
    return ", ".join(f"{part.replace('_', ' ')} {value}" for part, value in stated.items()) or "not stated"


def peer(given: str, kinds: Sequence[str], threads: int) -> Target:
    """Return the target of ``NAME=INTERPRETER:FILE.py:Class:kind[:OPTION=VALUE]...``; an empty interpreter is this one.

    The options ``file`` (or folder) of what is measured and ``precision`` are for the table; the class gets the others.

    Raises:
        UsageError: It does not read so, or the file is not there.
    """
    name, _, rest = given.partition("=")
    interpreter, *parts = rest.split(":")
    form = "expected NAME=[PYTHON]:FILE.py:Class:kind[:option=value]..."
    if not name or len(parts) < 3 or parts[2] not in KINDS:
        raise UsageError(f"got --peer {given}; {form}, kind one of {', '.join(KINDS)}")
    file, class_name, kind, *pairs = parts
    options = dict(pair.partition("=")[::2] for pair in pairs)
    measured, stated = options.pop("file", None), options.pop("precision", None)
    if measured and not Path(measured).exists():
        raise UsageError(f"got --peer {name} with file={measured}, which is not there; expected what is measured")
    missing = None if kind in kinds else f"{kind} was not asked for"
    if interpreter and not os.access(interpreter, os.X_OK):
        missing = f"{interpreter} is not there"
    where = f"{Path(file).resolve()}:{class_name}"
    return Target(
        name,
        "peer",
        where,
        (kind,),
        {**options, "threads": threads},
        Path(measured) if measured else None,
        precision=stated,
        interpreter=interpreter or None,
        missing=missing,
    )
