"""The C client answers as Python does, over the same file."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import pytest

from edgerec.benchmarks.c_client import RETURNED, SOURCE, Client, built, compiler, ort_library, table
from edgerec.benchmarks.documents import RESULTS
from edgerec.bundle import MANIFEST, SIGNATURE, Bundle, write_members
from edgerec.errors import BundleError
from edgerec.export.synthetic import random_tower, write_random
from edgerec.runtime import Recommender
from edgerec.runtime.engine import NOBODY
from edgerec.runtime.ids import ORDER, sorted_places
from edgerec.runtime.layout import Tower
from edgerec.runtime.verify import disagreement

EXACT = 1e-5  # of a score: the same graph in the same onnxruntime
ROUNDED = 3e-3  # of the same arithmetic elsewhere: a user vector enters in limbs, whose last may be another
TOWERS = {
    "shared": {},
    "two vectors": {"shared": False},
    "repeats": {"repeat_decays": np.float32([0.8, 0.98]), "repeat_weights": np.float32([0.9, 0.3])},
}

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C compiler: install cc, gcc or clang, or name one by CC"),
    pytest.mark.skipif(ort_library() is None, reason="the installed onnxruntime has no shared library"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("client"), "-shared", "-fPIC")


@pytest.fixture(scope="module")
def opened(library: Path) -> Iterator[Callable[[Path], Client]]:
    """Open bundles by the C client."""
    clients: list[Client] = []

    def make(path: Path) -> Client:
        clients.append(Client(library, path, str(ort_library())))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def agree(client: Client, python: Recommender, history: list[str], k: int, seen: bool | None) -> None:
    """Compare an answer with the graph's in Python, and with Python's own, which follows the history in numpy."""
    got = client.recommend(history, k, **({} if seen is None else {"seen": RETURNED - seen}))
    items, scores = [item for item, _ in got], [score for _, score in got]
    rows = np.array([python.rows(history)], np.int64) if history else NOBODY
    left_out = python.contents.model["mask_seen"] if seen is None else seen
    answer = python.ranker.rank(rows, k, exclude=np.unique(rows)[None] if left_out else None)
    kept = answer.items[0] >= 0
    assert items == [python.contents.ids[row - 1] for row in answer.items[0][kept].tolist()], history
    assert scores == pytest.approx(answer.scores[0][kept].tolist(), abs=EXACT), history
    wanted = python.recommend(history, k, exclude_seen=seen)
    request: dict[str, Any] = {"items": [one.item for one in wanted], "scores": [one.score for one in wanted]}
    assert disagreement(request, items, scores, ROUNDED) is None, history  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", TOWERS)
def test_c_answers_as_python_does(
    kind: str, make_tower: Callable[..., Tower], write: Callable[..., Path], opened: Callable[[Path], Client]
) -> None:
    def loosen(members: dict[str, bytes], model: dict[str, Any]) -> None:
        goldens = json.loads(members["goldens.json"])
        members["goldens.json"] = json.dumps(goldens | {"tolerance": ROUNDED}).encode()

    path = write(make_tower(**TOWERS[kind]), loosen)
    client, python, rng = opened(path), Recommender.load(path), np.random.default_rng(0)
    for number in range(60):
        history = [f"i{row}" for row in rng.integers(1, 41, rng.integers(0, 60))]
        agree(client, python, history, int(rng.integers(1, 60)), [None, True, False][number % 3])
    assert client.verify()[0] == 8
    assert client.item(7) == (python.contents.ids[6], python.contents.titles[6])
    assert client.item(0) == client.item(41) == ("", "")


def test_equal_scores_come_in_the_order_of_the_catalogue(
    ring: Tower, write: Callable[..., Path], opened: Callable[[Path], Client]
) -> None:
    client = opened(write(ring))
    assert [item for item, _ in client.recommend(["c"])] == list("dabefgh")  # d follows c, the others score 0
    assert [item for item, _ in client.recommend([], 3)] == list("abc")
    assert client.recommend(list("abcdefgh")) == []


def test_threads_share_an_open_bundle(
    make_tower: Callable[..., Tower], write: Callable[..., Path], opened: Callable[[Path], Client]
) -> None:
    client = opened(write(make_tower(**TOWERS["repeats"])))
    histories = [[f"i{row}" for row in range(1 + start % 7, 41, 1 + start % 5)] for start in range(200)]
    wanted = [client.recommend(history) for history in histories]
    with ThreadPoolExecutor(4) as pool:  # ctypes lets go of Python's lock
        assert [*pool.map(client.recommend, histories)] == wanted


def test_unknown_ids_are_refused_or_left_out(
    ring: Tower, write: Callable[..., Path], opened: Callable[[Path], Client]
) -> None:
    client = opened(write(ring))
    with pytest.raises(BundleError, match="2 of 3 items are not in the catalogue: 'nobody' is the first"):
        client.recommend(["nobody", "c", ""])
    assert client.recommend(["nobody", "c", ""], skip=True) == client.recommend(["c"])
    assert client.recommend(["nobody"], skip=True) == client.recommend([])
    with pytest.raises(BundleError, match="got k = 0"):
        client.recommend(["c"], 0)


def test_ids_are_found_by_the_order_that_a_large_bundle_holds(
    make_tower: Callable[..., Tower], write: Callable[..., Path], opened: Callable[[Path], Client]
) -> None:
    tower = make_tower(300)

    def ordered(members: dict[str, bytes], model: dict[str, Any]) -> None:
        members[ORDER] = sorted_places(tower.ids).tobytes()

    client = opened(write(tower, ordered))
    rows = [client.c.edgerec_item_row(client.handle, item.encode()) for item in [*tower.ids, "i0", "i30", "z", ""]]
    assert rows == [*range(1, 301), 0, 30, 0, 0]


def test_another_answer_than_the_golden_one_is_told(
    ring: Tower, write: Callable[..., Path], opened: Callable[[Path], Client]
) -> None:
    def spoil(members: dict[str, bytes], model: dict[str, Any]) -> None:
        goldens = json.loads(members["goldens.json"])
        goldens["requests"][2]["items"].reverse()
        members["goldens.json"] = json.dumps(goldens).encode()

    with pytest.raises(BundleError, match="golden request 2 is answered otherwise"):
        opened(write(ring, spoil)).verify()


def test_a_library_that_is_no_onnxruntime_is_told(ring: Tower, write: Callable[..., Path], library: Path) -> None:
    path = write(ring)
    for other in (library, library.parent / "missing.so"):
        with pytest.raises(BundleError, match=f"{other.name} cannot be loaded as onnxruntime; expected .* 1.17"):
            Client(library, path, other)
    with pytest.raises(BundleError, match="got threads = 0"):
        Client(library, path, str(ort_library()), threads=0)


FAKE = """
#include <stdint.h>
static const void *get(uint32_t version) { return 0; }
static const char *version(void) { return "VERSION"; }
static const struct { const void *(*get)(uint32_t); const char *(*version)(void); } base = {get, version};
const void *OrtGetApiBase(void);
const void *OrtGetApiBase(void) { (void)get; return &base; }
"""


@pytest.mark.parametrize("version", ["1.16.3", "2.0.0", "1.99.0", "strange"])
def test_an_onnxruntime_without_the_functions_is_told(
    version: str, ring: Tower, write: Callable[..., Path], library: Path, tmp_path: Path
) -> None:
    (tmp_path / "fake.c").write_text(FAKE.replace("VERSION", version))
    flags = ("-shared", "-fPIC", "-Wno-unused-parameter")
    fake = built(tmp_path, *flags, sources=[tmp_path / "fake.c"], name="fake.so")
    with pytest.raises(BundleError, match=f"is onnxruntime {version}; expected 1.17 or a later 1.x"):
        Client(library, write(ring), fake)


def test_a_signed_bundle_opens(ring: Tower, write: Callable[..., Path], opened: Callable[[Path], Client]) -> None:
    path = write(ring)
    held = Bundle(path)
    members = {name: bytes(held[name]) for name in held.manifest["members"]}
    write_members(path, {MANIFEST: bytes(held[MANIFEST]), SIGNATURE: bytes(64), **members})
    assert opened(path).recommend(["c"], 1)[0][0] == "d"


def test_the_example_prints_what_python_answers(ring: Tower, write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(ring)
    example = built(tmp_path, sources=[SOURCE / "example.c", SOURCE / "edgerec.c"], name="example")
    done = subprocess.run([example, path, str(ort_library()), "c"], capture_output=True, text=True, check=True)
    found = Recommender.load(path).recommend(["c"])
    assert done.stdout == "".join(f"{one.score:.4f}\t{one.item}\t{one.title}\n" for one in found)
    unknown = subprocess.run([example, path, str(ort_library()), "z"], capture_output=True, text=True)
    assert unknown.returncode == 1 and "'z' is the first" in unknown.stderr


def test_the_header_is_one_of_cxx_too(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text(
        '#include "edgerec.h"\nint main() { edgerec_close(nullptr); return EDGEREC_SEEN_AS_EXPORTED; }\n'
    )
    flags = ("-x", "c++", "-std=c++11", f"-I{SOURCE}", "-fsyntax-only", "-Wall", "-Wextra", "-Werror")
    done = subprocess.run([str(compiler()), *flags, str(tmp_path / "main.c")], capture_output=True, text=True)
    if "cannot execute" in done.stderr:
        pytest.skip("the compiler has no C++")
    assert done.returncode == 0, done.stderr


def test_the_measured_table_is_its_result() -> None:
    path = RESULTS / "c-client.json"
    assert path.with_suffix(".md").read_text("utf-8") == table(json.loads(path.read_text("utf-8"))) + "\n"


@pytest.mark.slow
def test_the_bundle_of_ml_100k_answers_as_in_python(opened: Callable[[Path], Client]) -> None:
    """``EDGEREC_BUNDLE`` names one that ``make demo`` or ``make quality`` made."""
    if not (path := os.environ.get("EDGEREC_BUNDLE")):
        pytest.skip("EDGEREC_BUNDLE names no bundle")
    client, python, rng = opened(Path(path)), Recommender.load(path), np.random.default_rng(0)
    n = python.contents.n_items
    for _ in range(300):
        history = [python.contents.ids[int(row)] for row in rng.integers(0, n, rng.integers(0, 100))]
        agree(client, python, history, 10, None)
    requests, difference = client.verify()
    assert requests > 1 and difference < 1e-2


def test_a_larger_random_bundle_answers_as_in_python(tmp_path: Path, opened: Callable[[Path], Client]) -> None:
    write_random(random_tower(3000, 32, shared=False, repeats=True), tmp_path / "random.edgerec")
    client, python = opened(tmp_path / "random.edgerec"), Recommender.load(tmp_path / "random.edgerec")
    for start in range(1, 2900, 290):
        agree(client, python, [f"item-{row}" for row in range(start, start + 70, 7)], 20, None)
