"""Engines in other processes answer as the one here does; one that fails is a row with one line that says why."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import tokenizers

import pytest

from edgerec.benchmarks.documents import RESULTS
from edgerec.benchmarks.web_subject import ENGINES, no_browser
from edgerec.bundle import write_bundle
from edgerec.export.elsewhere import in_browser, in_python
from edgerec.export.engines import token_feeds
from edgerec.export.onnx_engine import OnnxEngine
from edgerec.export.parity import Reference, compare, reference, require_parity
from edgerec.export.parity_report import row, table
from edgerec.export.recommender_graph import recommender_graph
from edgerec.export.synthetic import WORDS, random_tower, static_encoder
from edgerec.runtime.layout import ENCODER, GOLDENS, GRAPH, TOKENIZER, pack

TOWER = random_tower(90, 8)
SHAPE = (len(TOWER.decays), TOWER.embedding_size)
TEXTS = ["red", "blue wine film", "영화 book", "unheard of", "green"]
HISTORIES = [[1, 2, 3], [7], [7], *([row, 1] for row in range(1, 70))]  # more than a page is asked at once
THIS = shlex.quote(sys.executable)
WITHOUT_EDGEREC = """
import runpy, sys
sys.modules["edgerec"] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of a random tower's files, its tokenizer of a kind that browsers know, and of the bundle of them."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: row for row, word in enumerate(WORDS)}, unk_token=WORDS[0])
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    members, model = pack(TOWER)
    members |= {GRAPH: recommender_graph(TOWER).SerializeToString(), ENCODER: static_encoder(TOWER.embedding_size)}
    members[GOLDENS] = b"{}"
    members[TOKENIZER] = tokenizer.to_str().encode()
    for name, content in members.items():
        (tmp_path / name).write_bytes(content)
    write_bundle(tmp_path / "model.edgerec", {"model": model}, members)
    return tmp_path


@pytest.fixture
def here(files: Path) -> OnnxEngine:
    return OnnxEngine("here", files / GRAPH, files / ENCODER, SHAPE)


@pytest.fixture
def asked(files: Path, here: OnnxEngine) -> Reference:
    """What is asked, the texts in two batches, and what the engine here answers as the reference of texts."""
    feeds = token_feeds(tokenizers.Tokenizer.from_file(str(files / TOKENIZER)), TEXTS, 8, batch=3)
    return reference(TOWER, HISTORIES, np.concatenate([here.encode(feed) for feed in feeds]), feeds, TEXTS)


def test_another_python_answers_as_this_one_does(files: Path, here: OnnxEngine, asked: Reference) -> None:
    there = in_python(f"{THIS} -c {shlex.quote(WITHOUT_EDGEREC)}", files, SHAPE, asked)
    expected = {**compare(here, asked), "engine": there.name}
    assert compare(there, asked) == expected and expected["overlap"] > 0.9
    assert there.name.startswith("ORT ") and there.name.endswith(Path(sys.executable).name)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("no-such-emulator -cpu max", "no-such-emulator cannot be started (No such file or directory)"),
        (f"{THIS} -c 'raise SystemExit(\"no\\nnumpy\")'", "exited with 1 (numpy)"),
        (f"{THIS} -c 'raise SystemExit(3)'", "exited with 3 (it said nothing)"),
        (f"{THIS} -c ''", "left no usable answers (FileNotFoundError)"),
        (f'{THIS} -c \'import sys; open(sys.argv[2] + "/answers.npz", "w").write("no")\'', "(ValueError)"),
        (
            f'{THIS} -c \'import numpy, sys; numpy.savez(sys.argv[2] + "/answers.npz", version=1, processor=1, '
            "items=[[1]], scores=[[1]], vectors=[[1]])'",
            "(ValueError)",
        ),
    ],
)
def test_a_python_that_fails_is_a_row_with_a_reason(command: str, reason: str, files: Path, asked: Reference) -> None:
    (files / "answers.npz").write_bytes(b"of the command before")
    found = row("ORT on aarch64", "fp32", asked, lambda folder: in_python(command, files, SHAPE, asked))
    assert found.keys() == {"engine", "not_measured"} and found["engine"] == "ORT on aarch64, fp32"
    assert reason in found["not_measured"] and "\n" not in found["not_measured"]
    assert "expected a Python with numpy and onnxruntime" in found["not_measured"]


@pytest.mark.browser
@pytest.mark.skipif(no_browser() is not None, reason=str(no_browser()))
@pytest.mark.parametrize(("engine", "tolerance"), [*zip(ENGINES, (1e-4, 3e-2), strict=True)])
def test_a_browser_answers_as_this_machine_does(
    engine: str, tolerance: float, files: Path, here: OnnxEngine, asked: Reference
) -> None:
    there = in_browser(files / "model.edgerec", engine, TOWER.ids, asked)
    for history in map(np.array, ([HISTORIES[0]], [HISTORIES[-1]])):
        (items, scores), (rows, given) = here.rank(history, 90), there.rank(history, 90)
        own = dict(zip(items.tolist(), scores.tolist(), strict=True))
        assert set(rows) == set(items)
        assert np.abs(given - [own[one] for one in rows.tolist()]).max() < tolerance
    assert compare(there, asked)["largest_text_distance"] < 1e-5


def test_without_a_browser_the_row_says_what_lacks(
    files: Path, asked: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    found = row("browser", "fp32", asked, lambda folder: in_browser(files, "plain", TOWER.ids, asked))
    assert found == {"engine": "browser, fp32", "not_measured": "node is not installed"}


def test_the_committed_rows_are_what_the_table_prints_and_keep_the_limits() -> None:
    for path in RESULTS.glob("parity-*.json"):
        result = json.loads(path.read_text("utf-8"))
        assert path.with_suffix(".md").read_text("utf-8") == table(result)
        for one in result["rows"]:
            if "not_measured" not in one:
                require_parity(one, one["precision"])
