"""A graph of a TensorRT kit as a subject of ``edgerec bench``: the bundle's runtime, one of its sessions replaced.

The engine is one that ``edgerec run-kit`` built and kept: a build takes minutes, and no start of an app should. With
``cuda_graph`` the lengths that vary are padded to powers of two, each of which is recorded when the engine is opened.
Without ``transfers`` the clock stands still while arrays go to the device and back; all else, padding included, counts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.benchmarks.adapters import NotHere
from edgerec.benchmarks.subjects import BundleSubject
from edgerec.bundle import Bundle
from edgerec.errors import MissingExtraError, UsageError
from edgerec.export.kit_check import distances
from edgerec.export.kit_run import ITEM_TABLE, golden_outputs, profiles_of, read_kit
from edgerec.export.tensorrt_builder import EXCLUDED, load_tensorrt
from edgerec.export.tensorrt_ladder import NotKeptError, Runner, open_kept
from edgerec.runtime.cuda import Cuda, NoGPUError
from edgerec.runtime.layout import GOLDENS

SHORTEST = 16  # of padded lengths
FIXED = ("history", "state")  # inputs whose shape no request changes: the runtime folds events into the state itself
SAME_TEXT = 1e-3  # cosine distance between the golden vectors of kit and bundle, which torch made twice


class TensorrtSubject(BundleSubject):
    """One graph of a kit as an engine, and the rest of the bundle as it ships.

    Args:
        kind: ``recommend`` or ``session`` for a recommender, ``search`` or ``encode`` for an encoder.
        bundle: The bundle of the same model: it has the ids, the tokenizer, and what is done on the host.
        graph: The kit's graph, ``KIT/graphs/NAME.onnx``.
        cuda_graph: Whether requests of one shape are recorded, and launched as one.
        transfers: Whether copies to the device and back count.
        threads: Of what is done on the host.
        tensorrt: Imports TensorRT.
        cuda: Opens the GPU.
    """

    device = "cuda"  # whose energy is read

    def __init__(
        self,
        kind: str,
        bundle: str,
        graph: str,
        cuda_graph: bool,
        transfers: bool,
        threads: int = 1,
        tensorrt: Callable[[], Any] = load_tensorrt,
        cuda: Callable[[], Any] = Cuda,
    ) -> None:
        super().__init__(kind, bundle, threads)
        self.graph, self.cuda_graph, self.transfers = Path(graph), cuda_graph, transfers
        self.tensorrt, self.cuda = tensorrt, cuda
        self.clock: Callable[[], int] = time.perf_counter_ns

    def stages(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield the bundle's stages, and between them TensorRT's import and the GPU's start."""
        first, *others = super().stages()
        yield from (first, ("TensorRT and GPU", self._start), *others)

    def goldens(self) -> None:
        """Replay nothing: a kit has golden outputs of its own, which ``edgerec run-kit`` compares."""

    def _start(self) -> None:
        try:
            self._trt, device = self.tensorrt(), self.cuda()  # before all else of TensorRT's, which needs a driver
        except (MissingExtraError, NoGPUError) as reason:
            raise NotHere(str(reason)) from reason
        if not self.transfers:
            device = Untimed(device)
            self.clock = device.clock
        self._gpu = device

    def _graphs(self) -> None:
        super()._graphs()
        folder, name = self.graph.parents[1], self.graph.stem
        kit = read_kit(folder)
        check_same_model(folder, kit, self._bundle)
        model, encodes = kit["model"], kit["graphs"][name]["kind"] == "encoder"
        profiles = profiles_of(model)["encoder" if encodes else "recommender"]
        try:
            runner = open_kept(self.graph.read_bytes(), profiles, self._trt, self._gpu, self.cuda_graph)
        except NotKeptError as reason:
            raise NotHere(f"{reason}; edgerec run-kit {folder} builds and keeps it") from reason
        session = EngineSession(runner, tokens() if encodes else nothing(model))
        if self.cuda_graph:
            session.record(model["max_tokens"] if encodes else EXCLUDED)
        if encodes:
            self.recommender.encoder.__dict__["_session"] = session
        else:
            self.recommender.ranker._session = session


class EngineSession:
    """What the runtime asks of an onnxruntime session: ``run``.

    Args:
        runner: An engine.
        defaults: A request of length 1: what the runtime may leave out is taken from it.
    """

    def __init__(self, runner: Runner, defaults: Mapping[str, NDArray[Any]]) -> None:
        self.runner, self.defaults = runner, defaults
        self.lengths: list[int] = []  # ascending, where requests are padded

    def record(self, longest: int) -> None:
        """From now on pad requests to powers of two up to ``longest``; answer each once, so that it is recorded.

        The longest comes first: a buffer that grew would make all records void.
        """
        powers = (1 << power for power in range(SHORTEST.bit_length() - 1, longest.bit_length()))
        self.lengths = sorted({*(length for length in powers if length < longest), longest})
        for length in reversed(self.lengths):
            self.runner.run(padded(self.defaults, length))

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Return outputs by name, of as many items as are asked for.

        Raises:
            UsageError: More items are asked for than the engine has, or scores are to be changed.
        """
        given = {**self.defaults, **feed}
        wanted = given.pop("k", None)
        if "score_offset" in given:
            raise UsageError("a TensorRT engine takes no score_offset; expected a plain request")
        if self.lengths:
            longest = max(value.shape[-1] for name, value in given.items() if name not in FIXED)
            given = padded(given, next((length for length in self.lengths if length >= longest), longest))
        found = self.runner.run(given, outputs)
        if wanted is None:
            return [found[name] for name in outputs]
        k, most = int(wanted[0]), found["items"].shape[1]
        if k > most:
            raise UsageError(f"got a request for {k} items; expected at most {most}, what the engine was built for")
        return [found[name][:, :k] if name in ("items", "scores") else found[name] for name in outputs]


def padded(feed: Mapping[str, NDArray[Any]], length: int) -> dict[str, NDArray[Any]]:
    """Return a request with zeros behind the last axis of what varies, up to a length: no token, no item."""
    return {
        name: value if name in FIXED else np.pad(value, [(0, 0)] * (value.ndim - 1) + [(0, length - value.shape[-1])])
        for name, value in feed.items()
    }


class Untimed:
    """A device whose clock stands still during transfers; what is under way is waited for before, and counts."""

    def __init__(self, device: Any, now: Callable[[], int] = time.perf_counter_ns) -> None:
        self._device, self._now, self._spent, self._busy = device, now, 0, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def clock(self) -> int:
        """Return nanoseconds, those of transfers left out."""
        return self._now() - self._spent

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        """Copy to the device, which has nothing else to do: every run of an engine ends in a wait."""
        self._outside(self._device.to_device, address, array)
        self._busy = True  # what follows a request's inputs is the engine

    def to_host(self, array: NDArray[Any], address: int) -> None:
        """Copy from the device, after what it is at."""
        if self._busy:
            self._device.wait()
        self._busy = False
        self._outside(self._device.to_host, array, address)

    def _outside(self, copy: Callable[..., None], *arguments: Any) -> None:
        began = self._now()
        copy(*arguments)
        self._device.wait()
        self._spent += self._now() - began


def tokens() -> dict[str, NDArray[Any]]:
    """Return a request to an encoder: one token."""
    return {name: np.ones((1, 1), np.int64) for name in ("input_ids", "attention_mask")}


def nothing(model: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return a request to a recommender of somebody who did nothing, with nothing to leave out or to remember."""
    request: dict[str, NDArray[Any]] = {name: np.zeros((1, 1), np.int64) for name in ("history", "exclude")}
    request["state"] = np.zeros((1, len(model["decays"]), model["embedding_size"]), np.float32)
    if repeats := len(model["repeat_decays"]):
        request["repeat_rows"] = np.zeros((1, 1), np.int64)
        request["repeat_memory"] = np.zeros((1, repeats, 1), np.float32)
    return request


def check_same_model(folder: Path, kit: Mapping[str, Any], bundle: Bundle) -> None:
    """Refuse a kit of another model than the bundle's.

    Raises:
        UsageError: Items have other vectors, or golden texts.
    """
    if "item_table" not in kit:
        raise UsageError(f"{folder} is of an older edgerec; export it again")
    texts = json.loads(bytes(bundle[GOLDENS]))["texts"]
    ours = np.array([one["text_vector"] for one in texts], np.float32)
    theirs = golden_outputs(folder, kit["graphs"]["encoder.fp16"])["text_vector"]
    same = kit["item_table"] == bundle.manifest["members"][ITEM_TABLE]["sha256"] and ours.shape == theirs.shape
    if not same or (distances(theirs, ours) > SAME_TEXT).any():
        raise UsageError(f"{folder} and {bundle.path} are not of one model; expected both exported from one folder")
