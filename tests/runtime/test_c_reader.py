"""The C client's reader: no file makes it read what is not its own, and JSON and hashes are Python's."""

from __future__ import annotations

import hashlib
import importlib
import random
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import pytest

from edgerec.benchmarks.c_client import built, compiler, ort_library
from edgerec.bundle import MANIFEST, Bundle, digest, write_members
from edgerec.errors import BundleError, UsageError
from edgerec.runtime import Recommender
from edgerec.runtime.ids import ORDER
from edgerec.runtime.layout import GRAPH, Tower
from edgerec.strict_json import parse

FUZZ = Path(__file__).parents[1] / "fuzz"
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
Ask = Callable[[Sequence[tuple[str, Path]]], list[str]]

pytestmark = [
    pytest.mark.skipif(compiler() is None, reason="no C compiler: install cc, gcc or clang, or name one by CC"),
    pytest.mark.skipif(ort_library() is None, reason="the installed onnxruntime has no shared library"),
]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Run client_check.c on words and files; a sanitizer's finding is a failure."""
    folder, source = tmp_path_factory.mktemp("check"), [Path(__file__).with_name("client_check.c")]
    try:
        program = built(folder, *SANITIZED, sources=source)
    except UsageError:  # a compiler without sanitizers
        program = built(folder, sources=source)

    def run(lines: Sequence[tuple[str, Path]]) -> list[str]:
        given = "".join(f"{word} {path}\n" for word, path in lines)
        done = subprocess.run([program, str(ort_library())], input=given, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr[-3000:]
        answers = done.stdout.split("\n")[:-1]
        assert len(answers) == len(lines)
        return answers

    return run


def spoilt(path: Path) -> dict[str, bytes]:
    """Return ways in which a file can be spoilt, each of which Python refuses."""
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    return {
        "flipped": bytes(flipped),
        "cut": whole[:-1],
        "half": whole[: len(whole) // 2],
        "escaping": whole.replace(b"ids.utf8", b"../.utf8"),
        "absolute": whole.replace(b"ids.utf8", b"/ds.utf8"),
        "backslash": whole.replace(b"ids.utf8", b"i\\s.utf8"),
        "drive": whole.replace(b"ids.utf8", b"i:s.utf8"),
        "newer": whole.replace(b'"format_version": 1', b'"format_version": 2'),
        "unlisted": whole.replace(b"ids.utf8", b"ids.utf9", 1),
        "twice": whole.replace(b"ids.utf8", b"goldens!").replace(b"goldens!", b"text.i8!"),
        "not json": whole.replace(b'"format_version": 1', b'"format_version": 1,'),
        "hash": whole.replace(b'"sha256": "', b'"sha256": "z', 1),
        "text": b"no zip",
        "empty": b"",
    }


def test_a_tampered_file_is_one_clear_error(
    ring: Tower, write: Callable[..., Path], check: Ask, tmp_path: Path
) -> None:
    paths = [tmp_path / "missing.edgerec", tmp_path]
    for number, content in enumerate(spoilt(write(ring)).values()):
        paths.append(tmp_path / f"{number}.edgerec")
        paths[-1].write_bytes(content)
    for path, answer in zip(paths, check([("use", path) for path in paths]), strict=True):
        assert answer.startswith(f"{path} ") and answer.endswith("copy or export it again"), answer
        with pytest.raises(BundleError):
            Recommender.load(path)


@pytest.mark.parametrize(
    ("changed", "replaced"),
    [
        ({"n_items": 2**31 - 1, "embedding_size": 2**14}, {}),
        ({"n_items": 10**60}, {}),
        ({"n_items": 8.0}, {}),
        ({"decays": [0.5] * 65}, {}),
        ({"shared": "true"}, {}),
        ({"mask_seen": None}, {}),
        ({}, {"bias.f32": b"\xff" * 36}),
        ({}, {"bias.f32": bytes(36)}),
        ({}, {"ids.offsets": bytes(35)}),
        ({}, {"titles.offsets": b"\xff" * 36}),
        ({}, {"ids.utf8": b"abcdefg\xff"}),
        ({}, {ORDER: np.arange(1, 9, dtype="<u4").tobytes()}),
        ({"embedding_size": 4}, {}),
        ({"decays": [0.5, 0.5], "mix": [1.0, 1.0]}, {}),
    ],
    ids=str,
)
def test_a_bundle_that_holds_no_recommender_is_refused(
    changed: dict[str, Any], replaced: dict[str, bytes], ring: Tower, write: Callable[..., Path], check: Ask
) -> None:
    def change(held: dict[str, bytes], described: dict[str, Any]) -> None:
        held |= replaced
        described |= changed

    path = write(ring, change)
    (answer,) = check([("use", path)])
    assert answer.startswith(str(path)) and "export" in answer
    with pytest.raises(BundleError):
        Recommender.load(path).recommend(["a"])


@pytest.mark.parametrize("where", ["initializer", "sparse initializer", "attribute", "tensors", "subgraph", "training"])
def test_a_graph_that_asks_for_a_file_is_not_opened(
    where: str, ring: Tower, write: Callable[..., Path], check: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    hostile = importlib.import_module("test_hostile")

    def change(members: dict[str, bytes], model: dict[str, Any]) -> None:
        graph = onnx.load_from_string(members[GRAPH])
        hostile.hide(graph, where)
        members[GRAPH] = graph.SerializeToString()

    assert "asks for a file that is not one of its tables" in check([("use", write(ring, change))])[0]


@pytest.mark.parametrize("location", ["../item_out.i8", "titles.utf8", "*/_ORT_MEM_ADDR_/*", ""])
def test_a_table_under_another_members_name_is_refused(
    location: str, ring: Tower, write: Callable[..., Path], check: Ask
) -> None:
    def change(members: dict[str, bytes], model: dict[str, Any]) -> None:
        graph = onnx.load_from_string(members[GRAPH])
        tensor = next(one for one in graph.graph.initializer if one.name == "item_out.i8")
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
        members[GRAPH] = graph.SerializeToString()

    assert "asks for a file that is not one of its tables" in check([("use", write(ring, change))])[0]


def test_mutated_files_are_refused_or_used_and_never_read_beyond(
    check: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python refuses as a file, C refuses; a graph that is no seed's is read, and not given to onnxruntime."""
    monkeypatch.syspath_prepend(str(FUZZ))
    mutate = importlib.import_module("mutate").mutate
    seeds = sorted((FUZZ / "corpus").glob("*.edgerec*"))
    graphs = {digest(Bundle(path)[GRAPH]) for path in seeds if path.suffix == ".edgerec"}
    lines, refused = [("use", path) for path in seeds], [path.suffix != ".edgerec" for path in seeds]
    rng = random.Random(0)
    for number in range(600):
        path, content = tmp_path / str(number), bytearray(seeds[number % len(seeds)].read_bytes())
        if number % 2:
            content = bytearray(mutate(bytes(content), number))
        else:
            for _ in range(rng.randint(1, 3)):
                at = rng.randrange(len(content)) if rng.random() < 0.5 else -rng.randint(1, 900)
                content[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
        path.write_bytes(content)
        word = "read"
        try:
            bundle = Bundle(path)
            members = {name: bytes(bundle[name]) for name in bundle.manifest["members"]}
            write_members(path, {MANIFEST: bytes(bundle[MANIFEST]), **members})  # aligned, to be read further
            refused.append(False)
            word = "use" if GRAPH in members and digest(members[GRAPH]) in graphs else "read"
        except BundleError as error:  # but for two fields of a zip that the client has no use for
            refused.append(not any(field in str(error) for field in ("extra field", "zip file version")))
        lines.append((word, path))
    answers = check(lines)
    wrong = [line for line, no, answer in zip(lines, refused, answers, strict=True) if no and answer.startswith("ok")]
    assert not wrong
    assert [answer.startswith("ok 8 4") for answer in answers[: len(seeds)]] == [not no for no in refused[: len(seeds)]]
    assert sum(answer.startswith("ok") for answer in answers) > 20


GOOD = [
    '{"a": [1, -0.5e-3, 1E+2, true, false, null, "\\u00e9\\ud800 \\"\\\\\\/"], "b": {}}',
    " 1 ",
    '"\x7f영🎉"',
    "-0",
    "[]",
]
BAD = [
    "{",
    "[1,]",
    "{,}",
    '{"a"}',
    '{"a":1,}',
    "01",
    "1.",
    ".5",
    "1e",
    "+1",
    "NaN",
    "Infinity",
    "-",
    "tru",
    "[1 2]",
    "'a'",
]
BAD += ['"\\x"', '"\\u12g4"', '"\n"', '"a', "[1]]", "1 2", "[" * 34 + "]" * 34, "\ufeff1", "{1:2}", "[1]\0", '"\ud800"']
BYTES = [
    b'"\xff"',
    b'"\xc0\x80"',
    b'"\xf4\x90\x80\x80"',
    b'"\xf0\x8f\xbf\xbf"',
    b'"\xe2\x82"',
    b'"\x80"',
    b'"\xe2\x82',
    b"\0",
]


def test_json_is_as_strict_as_in_python(check: Ask, tmp_path: Path) -> None:
    texts = [*GOOD, "[" * 32 + "1" + "]" * 32, *BAD]
    contents = [text.encode("utf-8", "surrogatepass") for text in texts] + BYTES
    paths, wanted = [], []
    for number, content in enumerate(contents):
        try:
            parse(memoryview(content))
            wanted.append("ok")
        except ValueError:
            wanted.append("no")
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(content)
    answers = check([("json", path) for path in paths])
    assert [*zip(contents, answers, strict=True)] == [*zip(contents, wanted, strict=True)]
    assert wanted.count("ok") == len(GOOD) + 1


def test_sha256_is_pythons(check: Ask, tmp_path: Path) -> None:
    contents = [random.Random(size).randbytes(size) for size in (1, 55, 56, 63, 64, 65, 119, 120, 1000, 70_001)]
    paths = [tmp_path / str(len(content)) for content in contents]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    expected = [hashlib.sha256(content).hexdigest() for content in contents]
    assert check([("hash", path) for path in paths]) == expected
