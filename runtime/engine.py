"""onnxruntime sessions as a small device wants them, and the recommender graph behind one call."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgerec.bundle import Bundle
from edgerec.errors import BundleError, EdgerecError
from edgerec.runtime.contents import Contents
from edgerec.runtime.graph_scan import externals
from edgerec.runtime.layout import GRAPH, FloatArray

RowArray = NDArray[np.int64]
NOBODY = np.zeros((1, 1), np.int64)  # a history of nothing but padding: all that a session's request needs
INPUTS = ["exclude", "history", "k", "score_offset", "state"]
REPEAT_INPUTS = ["repeat_memory", "repeat_rows"]  # of a graph with repeat recencies
OUTPUTS = ["items", "scores", "state_out", "user"]
EXACT = {"session.x64quantprecision": "1"}  # onnxruntime: no saturating u8s8 products on x86 without VNNI


NO_VECTORS: FloatArray = np.zeros(0, np.float32)


class Answer(NamedTuple):
    """What the graph returns: ``items`` int64 and ``scores`` float32 [B, k], ``state`` [B, K, d], ``user`` [B, d].

    The last two are empty where they were not asked for.
    """

    items: RowArray
    scores: FloatArray
    state: FloatArray = NO_VECTORS
    user: FloatArray = NO_VECTORS


def open_graph(
    bundle: Bundle,
    name: str,
    threads: int,
    tables: Mapping[str, NDArray[Any]],
    entries: Mapping[str, str] = MappingProxyType({}),
    provider: str = "CPUExecutionProvider",
) -> Any:
    """Open a graph of the bundle, from memory; it can read no file.

    onnxruntime uses ``tables`` in place where they are given both as external initializers, which stand for the files
    that the graph names, and as initializers to share: as the first alone, they are copied. It packs the table of an
    integer product once more, and does not need the original for it any more.

    Args:
        bundle: An open bundle.
        name: The member that holds the graph.
        threads: Threads within one operator.
        tables: What the graph's external initializers stand for, by name: views of the mapped file.
        entries: Further session options of onnxruntime, such as ``EXACT``.
        provider: Of onnxruntime's, the one that is to run the graph.

    Raises:
        BundleError: The graph asks for a file that is not among ``tables``, or onnxruntime cannot open it.
    """
    check_externals(bundle, name, tables)
    runtime = importlib.import_module("onnxruntime")  # here, so that `import edgerec.runtime` stays light
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # errors arrive as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    values = [runtime.OrtValue.ortvalue_from_numpy(table) for table in tables.values()]
    for table, shared in zip(tables, values, strict=True):
        options.add_initializer(table, shared)
    if tables:
        options.add_external_initializers(list(tables), values)
    try:
        session = runtime.InferenceSession(bytes(bundle[name]), options, providers=[provider])
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise BundleError(
            f"{bundle.path}: {name} cannot be opened by onnxruntime {runtime.__version__} ({error}); "
            "update onnxruntime, or export the bundle again"
        ) from error
    session.shared_tables = values  # they must outlive it
    return session


def check_externals(bundle: Bundle, name: str, tables: Mapping[str, NDArray[Any]]) -> None:
    """Refuse a graph with tensors in other files than the members of ``tables``, each under its own name.

    Raises:
        BundleError: There are such tensors, or the graph cannot be read.
    """
    try:
        strange = [one for one in externals(bundle[name]) if one.name not in tables or one.location != one.name]
    except ValueError as error:
        raise BundleError(
            f"{bundle.path}: {name} cannot be opened: it is no ONNX file ({error}); export the bundle again"
        ) from error
    if strange:
        raise BundleError(
            f"{bundle.path}: {name} asks for the file {strange[0].location!r} as {strange[0].name!r}; expected no file "
            f"but the members {', '.join(tables) or 'none'}: do not use it, and export the bundle again"
        )


def run(bundle: Bundle, name: str, session: Any, outputs: Sequence[str], feed: Mapping[str, Any]) -> list[Any]:
    """Return what an opened graph answers.

    Raises:
        BundleError: onnxruntime cannot run it.
    """
    try:
        return session.run(outputs, feed)
    except EdgerecError:  # of an engine in onnxruntime's place, which says what it cannot do
        raise
    except Exception as error:  # onnxruntime's errors share no base class below Exception
        raise BundleError(f"{bundle.path}: {name} cannot run here ({error}); export the bundle again") from error


class Ranker:
    """``recommender.onnx`` with its tables."""

    def __init__(self, bundle: Bundle, contents: Contents, threads: int) -> None:
        self._bundle = bundle
        self._session = open_graph(bundle, GRAPH, threads, contents.external)
        given = self._session.get_inputs() + self._session.get_overridable_initializers()
        names = sorted(node.name for node in given)
        outputs = sorted(node.name for node in self._session.get_outputs())
        expected = sorted(INPUTS + REPEAT_INPUTS) if len(contents.repeat_decays) else INPUTS
        if names != expected or outputs != OUTPUTS:
            raise BundleError(
                f"{bundle.path}: {GRAPH} takes {names} and gives {outputs}; expected {expected} and {OUTPUTS}: "
                "export the bundle again"
            )
        self.no_state = np.zeros((len(contents.decays), contents.embedding_size), np.float32)

    def rank(
        self,
        history: RowArray,
        k: int,
        state: FloatArray | None = None,
        exclude: RowArray | None = None,
        offset: FloatArray | None = None,
        memory: tuple[RowArray, FloatArray] | None = None,
        vectors: bool = True,
    ) -> Answer:
        """Run the graph once.

        Args:
            history: int64 [B, L], 0 is padding; rows must exist.
            k: How many items.
            state: float32 [B, K, d]; none starts from nothing.
            exclude: int64 [B or 1, E] rows never to return.
            offset: float32 [B or 1, N + 1] added to the scores; -inf never returns a row.
            memory: int64 [M] rows and float32 [R, M] what is left of them before ``history``, as ``RepeatMemory``
                recalls it; for a model with repeat recencies.
            vectors: Whether the answer's ``state`` and ``user`` are wanted.
        """
        if state is None:
            state = np.broadcast_to(self.no_state, (len(history), *self.no_state.shape))
        feed = {"history": history, "state": state, "k": np.array([k])}
        if exclude is not None and exclude.size:
            feed["exclude"] = exclude
        if offset is not None:
            feed["score_offset"] = offset
        if memory is not None and memory[0].size:
            feed |= {"repeat_rows": memory[0][None], "repeat_memory": memory[1][None]}
        return Answer(*run(self._bundle, GRAPH, self._session, OUTPUTS if vectors else OUTPUTS[:2], feed))
