"""A graph of a TensorRT kit as a subject of ``edgerec bench``: the bundle's runtime, one of its sessions replaced.

The engine is one that ``edgerec run-kit`` built and kept: a build takes minutes, and no start of an app should. With
``cuda_graph`` the lengths that vary are padded to powers of two, since each shape is recorded on its own. Without
``transfers`` the clock stands still while arrays go to the device and back; all else, padding included, counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.benchmarks.adapters import NotHere
from edgerec.benchmarks.subjects import BundleSubject
from edgerec.errors import EdgerecError, UsageError
from edgerec.export.kit_run import ITEM_TABLE, profiles_of, read_kit
from edgerec.export.tensorrt_builder import EXCLUDED, load_tensorrt
from edgerec.export.tensorrt_ladder import Runner, open_kept
from edgerec.runtime.cuda import Cuda

SHORTEST = 16  # of padded lengths


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

    def _graphs(self) -> None:
        super()._graphs()
        folder, name = self.graph.parents[1], self.graph.stem
        kit = read_kit(folder)
        shipped = self._bundle.manifest["members"][ITEM_TABLE]["sha256"]
        if kit.get("item_table") != shipped:
            raise UsageError(f"{folder} and {self.path} hold other items' vectors; expected both of one model")
        model, encodes = kit["model"], kit["graphs"][name]["kind"] == "encoder"
        try:
            trt, device = self.tensorrt(), self.cuda()  # before all else of TensorRT's, which needs a driver
            if not self.transfers:
                device = Untimed(device)
                self.clock = device.clock
            profiles = profiles_of(model)["encoder" if encodes else "recommender"]
            runner = open_kept(self.graph.read_bytes(), profiles, trt, device, self.cuda_graph)
        except EdgerecError as reason:
            raise NotHere(f"{reason}; edgerec run-kit {folder} builds and keeps it") from reason
        longest = model["max_tokens"] if encodes else EXCLUDED
        session = EngineSession(runner, {} if encodes else nothing(model), longest if self.cuda_graph else None)
        if encodes:
            self.recommender.encoder.__dict__["_session"] = session
        else:
            self.recommender.ranker._session = session


class EngineSession:
    """What the runtime asks of an onnxruntime session: ``run``.

    Args:
        runner: An engine.
        defaults: Inputs that the runtime may leave out.
        longest: Where lengths are padded to powers of two, the most that a profile takes; None leaves them.
    """

    def __init__(self, runner: Runner, defaults: Mapping[str, NDArray[Any]], longest: int | None) -> None:
        self.runner, self.defaults, self.longest = runner, defaults, longest

    def run(self, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
        """Return outputs by name, of as many items as are asked for.

        Raises:
            UsageError: More items are asked for than the engine has, or scores are to be changed.
        """
        given = {**self.defaults, **feed}
        wanted = given.pop("k", None)
        if "score_offset" in given:
            raise UsageError("a TensorRT engine takes no score_offset; expected a plain request")
        if self.longest is not None:
            given = {name: value if name == "state" else self._padded(value) for name, value in given.items()}
        found = self.runner.run(given)
        if wanted is None:
            return [found[name] for name in outputs]
        k, most = int(wanted[0]), found["items"].shape[1]
        if k > most:
            raise UsageError(f"got a request for {k} items; expected at most {most}, what the engine was built for")
        return [found[name][:, :k] if name in ("items", "scores") else found[name] for name in outputs]

    def _padded(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array with zeros behind its last axis, up to the length of its bucket."""
        length = array.shape[-1]
        end = min(max(SHORTEST, 1 << (length - 1).bit_length()), self.longest or length)
        return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, max(end - length, 0))])


class Untimed:
    """A device whose clock stands still during transfers; what was queued before one is waited for first."""

    def __init__(self, device: Any, now: Callable[[], int] = time.perf_counter_ns) -> None:
        self._device, self._now, self._spent = device, now, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def clock(self) -> int:
        """Return nanoseconds, those of transfers left out."""
        return self._now() - self._spent

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        """Copy to the device."""
        self._outside(self._device.to_device, address, array)

    def to_host(self, array: NDArray[Any], address: int) -> None:
        """Copy from the device."""
        self._outside(self._device.to_host, array, address)

    def _outside(self, copy: Callable[..., None], *arguments: Any) -> None:
        self._device.wait()
        began = self._now()
        copy(*arguments)
        self._device.wait()
        self._spent += self._now() - began


def nothing(model: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return what a recommender's engine is given where a request has nothing to leave out or to remember."""
    given: dict[str, NDArray[Any]] = {"exclude": np.zeros((1, 1), np.int64)}
    if repeats := len(model["repeat_decays"]):
        given |= {
            "repeat_rows": np.zeros((1, 1), np.int64),
            "repeat_memory": np.zeros((1, repeats, 1), np.float32),
        }
    return given
