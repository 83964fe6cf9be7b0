"""A million items: what the integer product costs beside what others do, and what these lose.

    python -m edgerec.benchmarks.million_items --bundle FILE.edgerec --out benchmarks/results/million-items.json

The catalogue is drawn around a bundle's own item vectors, brought to 64 dimensions by their principal axes, with noise;
queries are user vectors of the beginnings of its golden histories. Beside exact fp32 (numpy) and INT8 (the operators of
the shipped graph) stand the index of ``--index usearch``, signs of 64 bits whose best R by Hamming distance are
rescored in INT8, and product quantization (faiss, where it is installed); and what reading the table takes. One thread,
interleaved; recall is of the exact ten best.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from edgerec.benchmarks.environment import environment
from edgerec.benchmarks.quality import markdown
from edgerec.benchmarks.timer import measure
from edgerec.cli import main as run
from edgerec.errors import UsageError, require
from edgerec.files import write_result
from edgerec.runtime import Recommender
from edgerec.runtime.contents import Contents, Strings
from edgerec.runtime.exact import row_products
from edgerec.runtime.layout import LIMB, FloatArray, quantize_rows, with_padding
from edgerec.runtime.nearest import Nearest, build
from edgerec.runtime.verify import read_goldens

K = 10
D = 64
RESCORED = (100, 1000, 10000)
READ = "the INT8 table, read once (numpy's sum of its 8-byte words)"  # what no exact answer can be faster than
PARTS = (16, 32)  # bytes per item of product quantization
TRAINED = 100_000  # vectors that its codebooks are fitted to
RowArray = NDArray[np.int64]
GRAPH = """<ir_version: 8, opset_import: ["": 17]>
integer_product (uint8[2, d] limbs, float[1, 2] steps, int64[1] k, int8[d, n] table, float[n] scale)
=> (float[1, m] scores, int64[1, m] items) <uint8 zero = {64}> {
  sums = MatMulInteger(limbs, table, zero)
  floats = Cast<to = 1>(sums)
  dots = MatMul(steps, floats)
  all = Mul(dots, scale)
  scores, items = TopK<axis = 1>(all, k)
}"""


class Method(NamedTuple):
    """A way to find the ten best: ``bytes`` of what it keeps, and a function of a query float32 [d]."""

    bytes: int
    search: Callable[[FloatArray], RowArray]


def drawn(vectors: FloatArray, n: int, noise: float, seed: int) -> FloatArray:
    """Return n rows around rows of ``vectors`` float32 [m, d]; the noise is a share of each dimension's deviation."""
    rng = np.random.default_rng(seed)
    around = vectors[rng.integers(0, len(vectors), n)]
    around += noise * vectors.std(axis=0) * rng.standard_normal(around.shape, dtype=np.float32)
    return around


def from_bundle(path: Path) -> tuple[FloatArray, FloatArray]:
    """Return item vectors float32 [m, 64] and user vectors float32 [R, 64] of a bundle, in its principal axes.

    Raises:
        UsageError: It has fewer dimensions.
    """
    recommender = Recommender.load(path)
    contents = recommender.contents
    if contents.embedding_size < D:
        raise UsageError(f"{path} has {contents.embedding_size} dimensions; expected at least {D}: name another bundle")
    items = contents.columns(range(1, contents.n_items + 1), as_history=False)
    axes = np.linalg.svd(items, full_matrices=False)[2][:D].T
    histories = [request["history"] for request in read_goldens(recommender)["requests"]]
    starts = [history[:length] for history in histories for length in range(1, len(history) + 1)]
    users = np.concatenate([recommender.ranker.rank(np.array([one], np.int64), 1).user for one in starts])
    return (items @ axes).astype(np.float32), (users @ axes).astype(np.float32)


def best(scores: NDArray[Any], k: int = K) -> RowArray:
    """Return the places of the k highest, best first."""
    found = np.argpartition(-scores, min(k, len(scores) - 1))[:k]
    ordered: RowArray = found[np.argsort(-scores[found], kind="stable")]
    return ordered


def exact(items: FloatArray) -> Method:
    """Return the float32 product."""
    return Method(items.nbytes, lambda query: best(items @ query))


def integer(items: FloatArray) -> Method:
    """Return the shipped graph's product of two unsigned limbs with a constant INT8 table."""
    onnx = require("onnx", "export")
    codes, scale = quantize_rows(items)
    model = onnx.parser.parse_model(GRAPH)
    del model.graph.input[3:]  # the table and its scales are constants: overridable ones are twice as slow
    for name, array in (("table", np.ascontiguousarray(codes.T)), ("scale", scale)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def search(query: FloatArray) -> RowArray:
        steps, limbs = two_limbs(query)
        found: RowArray = session.run(["items"], {"limbs": limbs, "steps": steps, "k": np.array([K])})[0][0]
        return found

    return Method(codes.nbytes + scale.nbytes, search)


def two_limbs(query: FloatArray) -> tuple[FloatArray, NDArray[np.uint8]]:
    """Return steps float32 [1, 2] and limbs uint8 [2, d] around 64 whose product sum is the query."""
    coarse = max(float(np.abs(query).max()) / LIMB, 1e-30)
    fine = coarse / (2 * LIMB)
    high = np.rint(query / coarse)
    limbs = np.stack([high, np.rint((query - high * coarse) / fine)]) + LIMB + 1
    return np.array([[coarse, fine]], np.float32), limbs.astype(np.uint8)


def indexed(items: FloatArray) -> Method:
    """Return the shipped index, whose candidates are rescored in INT8."""
    codes, scale = quantize_rows(with_padding(items))
    zeros, nothing = np.zeros(len(codes), np.float32), Strings(memoryview(b""), memoryview(b""))
    model = {"n_items": len(items), "embedding_size": D, "mix": [1.0], "scale": 1.0, "repeat_decays": []}
    external: dict[str, NDArray[Any]] = {
        "item_out.i8": np.ascontiguousarray(codes.T),
        "item_out.scale": scale,
        "bias.f32": zeros,
    }
    contents = Contents(model, external, codes, scale, nothing, nothing, None)
    index = build(contents)
    found = Nearest(contents, index)
    none, memory = np.zeros(0, np.int64), (np.zeros(0, np.int64), np.zeros((0, 0), np.float32))
    size = len(index.save()) + codes.nbytes + scale.nbytes
    return Method(size, lambda query: found.rank(query[None], K, none, memory).rows - 1)


def rescored(items: FloatArray, seed: int) -> Iterator[tuple[str, Method]]:
    """Yield 64 signs per item, whose best R by Hamming distance are rescored in INT8, by name.

    Vectors are centred and turned at random first: along principal axes, most signs would say little.
    """
    codes, scale = quantize_rows(items)
    turn = np.linalg.qr(np.random.default_rng(seed).standard_normal((D, D)))[0].astype(np.float32)
    signs = np.packbits((items - items.mean(axis=0)) @ turn > 0, axis=1).view(np.uint64)[:, 0]

    def search(count: int, query: FloatArray) -> RowArray:
        wanted = np.packbits(query @ turn > 0).view(np.uint64)[0]
        near = np.argpartition(np.bitwise_count(signs ^ wanted), count)[:count]
        found: RowArray = near[best(row_products(codes[near], scale[near], query))]
        return found

    size = signs.nbytes + codes.nbytes + scale.nbytes + turn.nbytes
    for count in RESCORED:
        yield f"binary + rescoring {count:,}", Method(size, partial(search, min(count, len(items) - 1)))


def product_quantized(items: FloatArray, seed: int) -> Iterator[tuple[str, Method]]:
    """Yield faiss' product quantization by name; nothing where faiss is not installed."""
    if importlib.util.find_spec("faiss") is None:
        return
    faiss: Any = importlib.import_module("faiss")
    faiss.omp_set_num_threads(1)
    rows = np.sort(np.random.default_rng(seed).permutation(len(items))[:TRAINED])

    def search(index: Any, query: FloatArray) -> RowArray:
        found: RowArray = index.search(query[None], K)[1][0]
        return found

    for parts in PARTS:
        index = faiss.IndexPQ(D, parts, 8, faiss.METRIC_INNER_PRODUCT)
        index.train(items[rows])
        index.add(items)
        yield f"PQ, {parts} bytes", Method(len(items) * parts + D * 256 * 4, partial(search, index))


def compare(items: FloatArray, queries: FloatArray, rounds: int, seed: int) -> list[dict[str, Any]]:
    """Return a row per method: bytes, latency of a query and recall of the exact ten best."""
    methods = {"fp32": exact(items), "INT8, exact": integer(items)}
    if importlib.util.find_spec("usearch") is not None:
        methods["usearch, rescored"] = indexed(items)
    methods |= {**dict(rescored(items, seed)), **dict(product_quantized(items, seed))}
    truth = [set(methods["fp32"].search(query).tolist()) for query in queries]

    def ask(method: Method, number: int) -> RowArray:
        return method.search(queries[number % len(queries)])

    words = quantize_rows(items)[0].view(np.int64)
    subjects: dict[str, Callable[[int], object]] = {name: partial(ask, one) for name, one in methods.items()}
    subjects[READ] = lambda number: words.sum()
    clock = measure(subjects, rounds, warmup=2, seed=seed)
    read = {"name": READ, "bytes": words.nbytes, "recall10": None, "latency": clock[READ].summary()}
    return [read] + [
        {
            "name": name,
            "bytes": method.bytes,
            "recall10": recall([method.search(query) for query in queries], truth),
            "latency": clock[name].summary(),
        }
        for name, method in methods.items()
    ]


def recall(found: list[RowArray], truth: list[set[int]]) -> float:
    """Return the mean share of the true items that was found."""
    shares = [len(set(one.tolist()) & wanted) / len(wanted) for one, wanted in zip(found, truth, strict=True)]
    return float(np.mean(shares))


def table(result: dict[str, Any]) -> str:
    """Return a result as a Markdown table, under how busy the machine was: a busy one's times say little."""
    load = (result["environment"]["load_average"] or ["unknown"])[0]
    busy = f"{result['items']:,} items, {result['threads']} thread, load average {load}, {result['environment']['cpu']}"
    lines = []
    for row in result["rows"]:
        clock = row["latency"]
        times = [f"{clock[f'{p}_ms']:.2f}" for p in ("p50", "p90", "p99")]
        lines.append(
            [
                row["name"],
                f"{row['bytes'] / 1e6:.0f}",
                "" if row["recall10"] is None else f"{row['recall10']:.3f}",
                *times,
                str(clock["n"]),
            ]
        )
    return f"{busy}\n\n{markdown(['', 'MB', 'recall@10', 'p50 ms', 'p90 ms', 'p99 ms', 'n'], lines)}"


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="Whose items and users are drawn from.")
@click.option("--items", "n", type=click.IntRange(1000), default=1_000_000, show_default=True)
@click.option("--queries", type=click.IntRange(1), default=200, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=200, show_default=True)
@click.option("--noise", type=float, default=0.5, show_default=True, help="Share of each dimension's deviation.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="File for the result as JSON; its table lies beside it.")
def main(bundle: Path, n: int, queries: int, rounds: int, noise: float, seed: int, out: Path | None) -> None:
    """Measure ways to find the ten best of a million items."""
    vectors, users = from_bundle(bundle)
    items = drawn(vectors, n, noise, seed)
    asked = users[np.random.default_rng(seed).integers(0, len(users), queries)]
    result = {
        "schema": "edgerec-million-items-1",
        "items": n,
        "dimensions": items.shape[1],
        "drawn_around": len(vectors),
        "noise": noise,
        "queries": queries,
        "threads": 1,
        "seed": seed,
        "rows": compare(items, asked, rounds, seed),
        "environment": environment(),
    }
    if out:
        write_result(out, result, table(result) + "\n")
    click.echo(table(result))


if __name__ == "__main__":
    run(main)
