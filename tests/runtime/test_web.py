"""The browser's runtime in headless Chromium: it answers as Python does, over the same file."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

import pytest

from edgerec.benchmarks.web_subject import no_browser
from edgerec.bundle import MANIFEST, SIGNATURE, Bundle, write_members
from edgerec.errors import BundleError
from edgerec.runtime import Recommendation, Recommender
from edgerec.runtime.layout import ENCODER, TOKENIZER, Tower
from edgerec.runtime.verify import disagreement

ROOT = Path(__file__).parents[2]
WEB = ROOT / "runtime" / "web"
EXACT, ROUNDED = 1e-4, 3e-3  # of the same graph; of plain JS, which does not round the user vector
SIZE = 8  # dimensions of the towers that the fixtures draw
Ask = Callable[..., dict[str, Any]]
WORDS = ["red", "blue", "green", "wine", "film", "영화", "🎉", "[UNK]"]


pytestmark = [pytest.mark.browser, pytest.mark.skipif(no_browser() is not None, reason=str(no_browser()))]


def word_pieces(members: dict[str, bytes], model: dict[str, Any]) -> None:
    """Give a bundle a tokenizer of a kind that browsers know, with a token at both ends, and texts of six tokens."""
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="film $A wine", special_tokens=[("film", 4), ("wine", 3)]
    )
    members[TOKENIZER] = tokenizer.to_str().encode()
    goldens = json.loads(members["goldens.json"])
    goldens |= {"texts": [], "tolerance": ROUNDED}  # the texts are of the other tokenizer
    members["goldens.json"] = json.dumps(goldens).encode()
    model["max_tokens"] = 6


@pytest.fixture
def bundle(make_tower: Callable[..., Tower], write: Callable[..., Path]) -> Path:
    """Write a bundle with everything that a tower can have."""
    repeats = {"repeat_decays": np.float32([0.8, 0.98]), "repeat_weights": np.float32([0.9, 0.3])}
    return write(make_tower(shared=False, **repeats), word_pieces)


@pytest.fixture(scope="module")
def in_browser() -> Iterator[Ask]:
    """Return what a fresh page answers to steps; the browser is one for all."""
    command = ["node", str(WEB / "browser.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(path: Path, steps: Sequence[Any], **job: Any) -> dict[str, Any]:
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps({"bundle": str(path), "steps": steps, **job}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask


def in_python(path: Path, steps: Sequence[Any]) -> list[Any]:
    """Return what Python answers to the same steps."""
    recommender = Recommender.load(path)
    session = recommender.session()
    snake = {"excludeSeen": "exclude_seen", "skipUnknown": "skip_unknown"}
    answers = []
    for call, *args in steps:
        owner, name = (session, call[8:]) if call.startswith("session.") else (recommender, call)
        options = args.pop() if args and isinstance(args[-1], dict) and name != "addItems" else {}
        named = {snake.get(key, key): value for key, value in options.items()}
        answers.append(getattr(owner, {"addItems": "add_items"}.get(name, name))(*args, **named))
    return answers


def histories(seed: int, count: int, items: int = 40) -> list[list[str]]:
    """Draw histories of item ids, with repeats."""
    rng = np.random.default_rng(seed)
    return [[f"i{row}" for row in rng.integers(1, items + 1, rng.integers(0, 12))] for _ in range(count)]


def requests() -> list[Any]:
    """Return steps of every kind, among them such as need added items, twice over."""
    drawn = histories(0, 8)
    candidates = [f"i{row}" for row in range(1, 40, 3)]
    steps: list[Any] = [["recommend", history, {"k": 12}] for history in drawn]
    steps += [["recommend", history, {"excludeSeen": False, "candidates": candidates}] for history in drawn[:3]]
    steps += [["recommend", ["nothing", *drawn[1]], {"skipUnknown": True, "k": 1000}], ["recommend", []]]
    steps += [
        ["search", text] for text in ("red wine", "영화", "🎉 🎉 blue", "unheard of", "red blue green 영화 🎉 red blue")
    ]
    steps += [["similar", f"i{row}", {"k": 5}] for row in (1, 17, 40)]
    asked = [*steps]
    steps += [["addItems", {"n1": "red film", "n2": ["Bleu", "blue film"]}], ["addItems", {"n3": "🎉"}]]
    steps += [*asked, ["search", "blue film", {"k": 3}], ["similar", "n2"]]
    steps += [["recommend", ["i3", "n1", "i4", "n1"]], ["recommend", ["i3"], {"candidates": ["n1", "n3", "i9"]}]]
    for history in drawn:
        steps += [["session.observe", *history, "n2"], ["session.recommend", {"k": 8, "excludeSeen": False}]]
    return steps


def check(answers: list[Any], expected: list[Any], steps: Sequence[Any], tolerance: float = EXACT) -> None:
    """Compare rank by rank, near ties apart, as golden requests are."""
    assert len(answers) == len(expected)
    for step, answer, wanted in zip(steps, answers, expected, strict=True):
        if wanted is None:
            assert answer == {}, step
            continue
        titles = {entry.item: entry.title for entry in wanted}
        request = {"items": [entry.item for entry in wanted], "scores": [entry.score for entry in wanted]}
        found = [Recommendation(**entry) for entry in answer["value"]]
        rows, scores = [entry.item for entry in found], [entry.score for entry in found]
        assert disagreement(request, rows, scores, tolerance) is None, step  # type: ignore[arg-type]
        assert all(titles.get(entry.item, entry.title) == entry.title for entry in found)


@pytest.mark.parametrize(("engine", "tolerance"), [("onnxruntime", EXACT), ("plain", ROUNDED)])
def test_a_browser_answers_as_python_does(engine: str, tolerance: float, bundle: Path, in_browser: Ask) -> None:
    steps = requests()
    told = in_browser(bundle, [*steps, ["verify"]], engine=engine)
    assert told["engine"] == engine
    check(told["answers"][:-1], in_python(bundle, steps), steps, tolerance)
    assert told["answers"][-1]["value"]["requests"] == 8
    wasm = {"ort-wasm-simd-threaded.wasm"} if engine == "onnxruntime" else set()
    assert set(told["asked"]) == {"", "ort-web.js", "edgerec-web.js", "demo.edgerec"} | wasm


def test_an_old_browser_computes_in_plain_js(ring: Tower, write: Callable[..., Path], in_browser: Ask) -> None:
    path = write(ring, word_pieces)
    steps = [["recommend", ["c", "f"]], ["search", "영화"], ["addItems", {"z": "blue film"}], ["similar", "z"]]
    told = in_browser(path, steps, old=True)
    assert (told["engine"], told["reason"]) == ("plain", "no WebAssembly SIMD")
    check(told["answers"], in_python(path, steps), steps, ROUNDED)
    asked = in_browser(path, steps, old=True, engine="onnxruntime")
    assert asked["load"]["error"]["name"] == "UsageError"


@pytest.fixture(scope="module")
def bert(small_bert: Path) -> bytes:
    """Export a random BERT of two layers, pooled and projected, as a text encoder of the towers' size."""
    torch = pytest.importorskip("torch")
    from transformers import BertModel

    from edgerec.distill.towers import ColdMap
    from edgerec.export.item_encoder import ItemEncoder, export_fp32

    class Pooled(torch.nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.head = BertModel.from_pretrained(small_bert), torch.nn.Linear(24, SIZE)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
            weights = attention_mask[:, :, None].to(hidden.dtype)
            return self.head((hidden * weights).sum(1) / weights.sum(1))

    rng = np.random.default_rng(0)
    cold = ColdMap(*(rng.normal(size=shape).astype(np.float32) for shape in ((SIZE + 1, SIZE),) * 2 + ((SIZE + 1,),)))
    torch.manual_seed(0)
    return export_fp32(ItemEncoder(Pooled(), cold, shared=False).eval(), len(WORDS))


@pytest.mark.parametrize("precision", ["int8-weights", "fp32", "int8-dynamic", "int8-static"])
def test_plain_js_computes_a_bert(
    precision: str, bert: bytes, make_tower: Callable[..., Tower], write: Callable[..., Path], in_browser: Ask
) -> None:
    from edgerec.export.quantization import calibration, made

    def with_bert(members: dict[str, bytes], model: dict[str, Any]) -> None:
        word_pieces(members, model)
        tokenizer = tokenizers.Tokenizer.from_str(members[TOKENIZER].decode())
        members[ENCODER] = made(precision, bert, calibration(tokenizer, WORDS))

    path = write(make_tower(), with_bert)
    steps: list[Any] = [
        ["search", text] for text in ("red", "영화 🎉", "blue green wine film", "red red blue wine unheard")
    ]
    steps += [["addItems", {"new": "green film"}], ["recommend", ["i1", "new"]]]
    # in INT8, a number at the middle between two codes falls to either side
    check(in_browser(path, steps, engine="plain")["answers"], in_python(path, steps), steps, 0.03)


def test_an_encoder_of_unknown_kind_leaves_recommendations(
    ring: Tower, write: Callable[..., Path], in_browser: Ask
) -> None:
    def unknown(members: dict[str, bytes], model: dict[str, Any]) -> None:
        word_pieces(members, model)
        members[ENCODER] = members[ENCODER].replace(b"LpNormalization", b"lpNormalization")
        goldens = json.loads(members["goldens.json"])
        goldens |= {"texts": [{"text": "red", "text_vector": [1.0] * SIZE}], "text_tolerance": 0.1}
        members["goldens.json"] = json.dumps(goldens).encode()

    steps = [["recommend", ["c"]], ["search", "red"], ["verify"]]
    first, second, third = in_browser(write(ring, unknown), steps, engine="plain")["answers"]
    assert first["value"][0]["item"] == "d"
    assert second["error"]["name"] == "UnsupportedError"
    assert "does not know the operators lpNormalization" in second["error"]["message"]
    assert (third["value"]["requests"], third["value"]["texts"]) == (8, 0)
    assert third["value"]["skipped"] == second["error"]["message"]


def test_requests_at_once_do_not_mix(bundle: Path, in_browser: Ask) -> None:
    steps: list[Any] = [["recommend", history] for history in histories(1, 20)]
    steps += [["search", text] for text in ("red", "영화", "wine film")] * 3
    check(in_browser(bundle, steps, together=True)["answers"], in_python(bundle, steps), steps)


def test_what_cannot_be_answered_is_refused_as_in_python(bundle: Path, in_browser: Ask) -> None:
    calls = {
        "1 of 2 items are not in the catalogue: 'z'": ["recommend", ["i1", "z"]],
        "expected an array of item ids": ["recommend", "i1"],
        "got k = 0": ["similar", "i1", {"k": 0}],
        "expected some text": ["search", "  "],
        "in the catalogue already": ["addItems", {"new": "red", "i1": "red"}],
        "the text of 'new' is empty": ["addItems", {"new": " "}],
        "expected one of auto, onnxruntime, plain": ["load", "demo.edgerec", {"engine": "gpu"}],
    }
    answers = in_browser(bundle, [*calls.values(), ["search", "red", {"k": 1000}]])["answers"]
    for message, answer in zip(calls, answers[:-1], strict=True):
        assert message in answer["error"]["message"]
        assert answer["error"]["name"] in ("UsageError", "UnknownItemError")
    assert len(answers[-1]["value"]) == 40  # nothing was added


def damaged(whole: bytes) -> dict[str, bytes]:
    """Return ways in which a file can be spoilt, each of which Python refuses."""
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    return {
        "flipped": bytes(flipped),
        "cut": whole[: len(whole) // 2],
        "outside": whole.replace(b"ids.utf8", b"../.utf8"),
        "newer": whole.replace(b'"format_version": 1', b'"format_version": 2'),
        "unlisted": whole.replace(b"ids.utf8", b"ids.utf9", 1),
        "text": b"no zip",
        "empty": b"",
    }


@pytest.mark.parametrize("old", [False, True], ids=["new", "old"])
def test_a_tampered_bundle_is_refused(old: bool, bundle: Path, in_browser: Ask) -> None:
    ways = damaged(bundle.read_bytes())
    for way, content in ways.items():
        (bundle.parent / f"{way}.edgerec").write_bytes(content)
        with pytest.raises(BundleError):
            Recommender.load(bundle.parent / f"{way}.edgerec")
    steps = [["load", f"{way}.edgerec"] for way in [*ways, "missing"]]
    for step, answer in zip(steps, in_browser(bundle, steps, old=old)["answers"], strict=True):
        assert answer["error"]["name"] == "BundleError", step
        assert f"{step[1]} " in answer["error"]["message"]
        assert "expected a" in answer["error"]["message"]


def test_a_signed_bundle_opens(ring: Tower, write: Callable[..., Path], in_browser: Ask) -> None:
    path = write(ring, word_pieces)
    held = Bundle(path)
    members = {name: bytes(held[name]) for name in held.manifest["members"]}
    write_members(path, {MANIFEST: bytes(held[MANIFEST]), SIGNATURE: bytes(64), **members})
    (answer,) = in_browser(path, [["recommend", ["c"], {"k": 1}]])["answers"]
    assert answer["value"][0]["item"] == "d"


@pytest.mark.parametrize("change", ["decays", "bias.f32", "titles.offsets"])
def test_a_bundle_that_holds_no_recommender_is_refused(
    change: str, ring: Tower, write: Callable[..., Path], in_browser: Ask
) -> None:
    def spoil(members: dict[str, bytes], model: dict[str, Any]) -> None:
        if change == "decays":
            model["decays"] = [1.5]
        else:
            members[change] = b"\xff" * len(members[change])  # not numbers, and no places of a text

    path = write(ring, spoil)
    with pytest.raises(BundleError):
        Recommender.load(path)
    message = in_browser(path, [])["load"]["error"]["message"]
    assert "holds no usable recommender" in message
    assert change.split(".")[0] in message


def test_a_file_that_answers_differently_here_fails(ring: Tower, write: Callable[..., Path], in_browser: Ask) -> None:
    def spoil(members: dict[str, bytes], model: dict[str, Any]) -> None:
        word_pieces(members, model)
        goldens = json.loads(members["goldens.json"])
        goldens["requests"][2]["items"].reverse()
        members["goldens.json"] = json.dumps(goldens).encode()

    error = in_browser(write(ring, spoil), [["verify"]])["answers"][0]["error"]
    assert error["name"] == "ParityError"
    assert "1 of 8 goldens fail here; first: golden request 2 (history 1)" in error["message"]


def test_the_demo_needs_five_keys_and_no_network(bundle: Path, tmp_path: Path) -> None:
    script = Path(__file__).parent / "demo_check.mjs"
    done = subprocess.run(
        ["node", str(script), str(bundle), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("engine", ["onnxruntime", "plain"])
def test_a_browser_is_a_subject_of_bench_and_its_own_clock_counts(
    make_tower: Callable[..., Tower], write: Callable[..., Path], engine: str
) -> None:
    from edgerec.benchmarks.web_subject import WebSubject

    path = write(make_tower())
    subject, recommender = WebSubject("recommend", str(path), engine), Recommender.load(path)
    assert [name for name, stage in subject.stages() if stage() is None] == ["browser", "open"]
    before, outside = subject.clock(), time.perf_counter_ns()
    for history in (["i1"], ["i3", "i2"]):
        assert subject.run_one(history) == [one.item for one in recommender.recommend(history)]
    assert 0 < subject.clock() - before < time.perf_counter_ns() - outside
    replayed = subject.goldens()
    assert replayed["passes"] and replayed["requests"] > 0 and replayed["largest_score_difference"] < ROUNDED
    subject.close()
