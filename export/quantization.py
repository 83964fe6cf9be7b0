"""Every precision of a text encoder, each made of the fp32 graph by one function; the item tables are INT8 in each.

``fp32`` is therefore tables-only INT8. What computes in integers (``int8-dynamic``, ``int8-static``)
has weights of 7 bits, because u8s8 products of full range saturate on AVX2 without VNNI; what only stores integers
(``int8-weights``, the blocks) has all 8. The cold map and the head (Gemm), which enlarge errors, stay as they are.

A function refuses what it cannot make something of by a ``UsageError`` that says why; of all refusals, ``made`` is the
one door. Scales have a floor: a dead channel's would be 0, which TensorRT rejects.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgerec.distill.encoder import MAX_TOKENS
from edgerec.errors import EdgerecError, UsageError, require
from edgerec.export.rounded_graph import (
    floored,
    multiplies_by_constant,
    rounding_operators,
    stored_in_half,
    stored_in_int8,
)

Feed = dict[str, NDArray[np.int64]]
Make = Callable[[bytes, "Calibration"], bytes]
CALIBRATED = 128  # titles; a few runs of the encoder each
BLOCK = 32  # weights that share a scale in MatMulNBits: few, since a narrow student's columns are short


@dataclass(frozen=True)
class Calibration:
    """Real titles as a text encoder reads them: ``feeds`` hold ``input_ids`` and ``attention_mask`` int64 [1, L]."""

    feeds: Sequence[Feed]
    seed: int

    @property
    def record(self) -> dict[str, int]:
        """What a manifest says of it."""
        return {"titles": len(self.feeds), "seed": self.seed}


def calibration(tokenizer: Any, texts: Sequence[str], seed: int = 0, size: int = CALIBRATED) -> Calibration:
    """Draw different texts of a catalogue, each a feed of its own, so that no padding is calibrated on.

    Args:
        tokenizer: Of the text encoder.
        texts: Of the catalogue.
        seed: Of the draw.
        size: At most so many.
    """
    different = sorted(set(texts))
    rows = np.sort(np.random.default_rng(seed).permutation(len(different))[:size])
    own = type(tokenizer).from_str(tokenizer.to_str())  # the given one stays as it is
    own.enable_truncation(MAX_TOKENS)
    own.no_padding()
    encoded = own.encode_batch([different[int(row)] for row in rows])
    feeds = [
        {"input_ids": np.array([one.ids], np.int64), "attention_mask": np.ones((1, len(one.ids)), np.int64)}
        for one in encoded
        if one.ids
    ]
    return Calibration(feeds, seed)


@dataclass(frozen=True)
class Candidate:
    """A precision.

    Attributes:
        make: Returns its graph of the fp32 graph and a calibration.
        modules: What has to be importable.
    """

    make: Make
    modules: tuple[str, ...] = ()

    def unavailable(self) -> str | None:
        """Return why it cannot be made on this machine, None where it can."""
        try:
            for module in self.modules:
                require(module, "export")
        except EdgerecError as error:
            return str(error)
        return None


def made(name: str, graph: bytes, titles: Calibration) -> bytes:
    """Return a candidate's graph.

    Args:
        name: A key of ``CANDIDATES``.
        graph: The encoder in fp32, as ``item_encoder.export_fp32`` returns it.
        titles: To calibrate on.

    Raises:
        UsageError: The graph is quantized already, or the candidate cannot be made of it, or not on this machine.
    """
    candidate = CANDIDATES[name]
    if name != "qat" and (operators := rounding_operators(graph)):
        raise UsageError(
            f"the graph has {', '.join(operators)}: it is quantized already; expected qat for a student that "
            "was trained for INT8, or the fp32 graph"
        )
    if reason := candidate.unavailable():
        raise UsageError(reason)
    with quiet():
        return floored(candidate.make(graph, titles))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep a tool from filling the terminal: onnxruntime's warn and inform through the root logger."""
    root = logging.getLogger()
    before, level, handler = root.handlers[:], root.level, logging.NullHandler()
    root.handlers[:] = [handler]  # one that is there: logging.basicConfig, called by a tool, then adds none
    try:
        yield
    finally:
        root.handlers[:], root.level = before, level


def as_it_is(graph: bytes, titles: Calibration) -> bytes:
    """Return the graph."""
    return graph


def half(graph: bytes, titles: Calibration) -> bytes:
    """Return the graph with weights stored in float16.

    Computed with in float32: a CPU has no faster way. onnxruntime's own converter, which computes in float16 too, made
    an encoder of 2 x 128 take 1.2 times as long there as fp32.
    """
    return stored_in_half(graph)


def dynamic(graph: bytes, titles: Calibration, reduce_range: bool = True) -> bytes:
    """Return onnxruntime's dynamic quantization, the token embedding included, in 7 bits or 8."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options: dict[str, Any] = {"per_channel": True, "reduce_range": reduce_range}
    options["weight_type"] = QuantType.QInt8
    options["op_types_to_quantize"] = ["MatMul", "Gather"]
    return through_files(graph, lambda source, target: quantize_dynamic(source, target, **options))


class Reader:
    """Feeds as onnxruntime's calibration asks for them, one at a time and then None."""

    def __init__(self, feeds: Sequence[Feed]) -> None:
        self._rest = iter(feeds)

    def get_next(self) -> Feed | None:
        """Return the next feed."""
        return next(self._rest, None)


def static(graph: bytes, titles: Calibration) -> bytes:
    """Return u8s8 products with ranges of activations seen on real titles; embeddings as in ``int8-weights``."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    need_matmul(graph, "int8-static")
    if not titles.feeds:
        raise UsageError("int8-static got no title to calibrate on; expected at least 1: give a catalogue with texts")

    options: dict[str, Any] = {"per_channel": True, "reduce_range": True, "quant_format": QuantFormat.QDQ}
    options |= {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    options |= {"op_types_to_quantize": ["MatMul"], "extra_options": {"MatMulConstBOnly": True}}
    rounded = through_files(
        graph, lambda source, target: quantize_static(source, target, Reader(titles.feeds), **options)
    )
    return stored_in_int8(rounded, ("Gather",))


def weights(graph: bytes, titles: Calibration) -> bytes:
    """Return the graph with weights stored in INT8, a scale per column or table row, and computed with in fp32.

    Head and cold map, which enlarge errors, are stored in float16.
    """
    return stored_in_half(stored_in_int8(graph, ("MatMul", "Gather")))


def blocks(bits: int) -> Make:
    """Return how to make MatMulNBits of so many bits; embeddings as in ``int8-weights``."""

    def make(graph: bytes, titles: Calibration) -> bytes:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

        need_matmul(graph, f"int{bits}-blocks")
        model = onnx.load_from_string(graph)
        quantizer = MatMulNBitsQuantizer(model, bits=bits, block_size=BLOCK, is_symmetric=True, accuracy_level=4)
        quantizer.process()
        return stored_in_int8(quantizer.model.model.SerializeToString(), ("Gather",))

    return make


def pairs(graph: bytes, titles: Calibration) -> bytes:
    """Return the graph with the symmetric Q/DQ pairs that TensorRT wants."""
    from edgerec.export.qdq import qdq_graph

    return qdq_graph(graph, titles.feeds)


def trained_for_int8(graph: bytes, titles: Calibration) -> bytes:
    """Return the graph of a student that ``edgerec qat`` trained, its weights as int8."""
    from edgerec.export.qat_graph import qat_graph

    return qat_graph(graph)


def through_files(graph: bytes, work: Callable[[Path, Path], object]) -> bytes:
    """Return what a tool that reads and writes files makes of a graph."""
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "rounded.onnx"
        source.write_bytes(graph)
        work(source, target)
        return target.read_bytes()


def need_matmul(graph: bytes, name: str) -> None:
    """Refuse a graph without a MatMul by a constant, such as a static student's."""
    if not multiplies_by_constant(graph):
        raise UsageError(f"{name} quantizes MatMul by constants, the graph has none; its tables are for int8-weights")


CANDIDATES = {
    "fp32": Candidate(as_it_is),
    "fp16": Candidate(half),
    "int8-dynamic": Candidate(dynamic),
    "int8-static": Candidate(static),
    "int8-weights": Candidate(weights),
    "int8-blocks": Candidate(blocks(8), ("onnx_ir", "ml_dtypes")),
    "int4-blocks": Candidate(blocks(4), ("onnx_ir", "ml_dtypes")),
    "int8-qdq": Candidate(pairs, ("nncf",)),
    "qat": Candidate(trained_for_int8),
}
