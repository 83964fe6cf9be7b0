"""The server's routes, and every refusal, in this process."""

# ruff: noqa: E402  what an extra brings is asked for first

from __future__ import annotations

import asyncio
import gc
import logging
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import pytest

for module in ("httpx2", "msgspec", "prometheus_client", "starlette", "uvicorn"):
    pytest.importorskip(module)

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.testclient import TestClient

from edgerec.errors import BundleError
from edgerec.files import sha256
from edgerec.runtime import MMR, Blend, Calibrated, Fresh, Recommender
from edgerec.runtime.catalogue import optional_members
from edgerec.runtime.explain import explain
from edgerec.runtime.layout import GOLDENS, Tower
from edgerec.runtime.serve_answers import OPERATIONS, Operation, answer_recommend
from edgerec.runtime.serve_app import MOST_WAITING, THREADS, Workers, application, body, handler
from edgerec.runtime.serve_bundle import Shelf
from edgerec.runtime.serve_metrics import Metrics
from edgerec.runtime.serve_schema import Limits, Recommend

COLUMNS = {"year": [1990, 1990, 1994, 2001, 1970, 1995, None, 1980], "color": [["red"], [], [], ["red"], *"blue"]}
NO_PAGE = Path("no-page")
Write = Callable[..., Path]


@pytest.fixture
def path(ring: Tower, write: Write) -> Path:
    """The ring, in which b follows a, with texts and columns."""
    return write(ring, lambda members, model: members.update(optional_members(ring.titles, COLUMNS)))


@pytest.fixture
def back(ring: Tower, path: Path, write: Write, tmp_path: Path) -> Path:
    """The ring the other way round: h follows a."""
    first = shutil.copy(path, tmp_path / "first")
    write(replace(ring, item_out=np.roll(np.eye(8, dtype=np.float32), -1, axis=0)))
    back = path.rename(tmp_path / "back.edgerec")
    Path(first).rename(path)
    return back


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A folder as make web leaves it."""
    folder = tmp_path / "dist"
    folder.mkdir()
    for name, content in {"demo.html": "<p>demo", "demo.js": "start()", ".built": ""}.items():
        (folder / name).write_text(content)
    return folder


@pytest.fixture
def shelf(path: Path) -> Shelf:
    return Shelf(path, None, Metrics())


@pytest.fixture
def client(shelf: Shelf, page: Path) -> Iterator[TestClient]:
    limits = Limits(body=2000, k=20, history=5)
    with TestClient(application(shelf, Metrics(), limits, page=page)) as client:
        yield client


def answered(response: Any) -> list[tuple[str, str, float]]:
    """Return an answer as the runtime has it."""
    assert response.status_code == 200, response.text
    return [tuple(one.values()) for one in response.json()["items"]]


def refused(response: Any, status: int) -> str:
    """Return why a request was refused, after checking the shape of that."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found = response.json()
    assert found.keys() == {"title", "status", "detail"} and found["status"] == status
    return found["detail"]


def test_a_recommendation_is_the_runtimes(client: TestClient, path: Path) -> None:
    runtime = Recommender.load(path)
    features = {"d": {"price": 20.0}, "e": {"price": 3.0}}
    cases: list[tuple[dict[str, Any], list[Any]]] = [
        ({"history": ["a", "c"], "k": 3.0}, runtime.recommend(["a", "c"], 3)),
        ({}, runtime.recommend([])),
        ({"history": ["a", "zz"], "skip_unknown": True}, runtime.recommend(["a"])),
        ({"history": ["a"], "exclude_seen": False, "k": 20}, runtime.recommend(["a"], 20, exclude_seen=False)),
        ({"history": ["c"], "candidates": ["d", "a"]}, runtime.recommend(["c"], candidates=["d", "a"])),
        (
            {"history": ["c"], "where": {"year": [1990, None], "color": "red"}},
            runtime.recommend(["c"], where={"year": (1990, None), "color": "red"}),
        ),
        (
            {"history": ["c"], "fresh": {"column": "year", "now": 2026, "half_life": 5, "weight": 2}},
            runtime.recommend(["c"], fresh=Fresh("year", 2026, 5, 2)),
        ),
        (
            {"history": ["c"], "candidates": features, "blend": {"weights": {"price": -0.5}}},
            runtime.recommend(["c"], candidates=features, blend=Blend({"price": -0.5})),
        ),
        ({"history": ["c"], "diversity": {"by": "mmr", "weight": 0.5}}, runtime.recommend(["c"], diversity=MMR(0.5))),
        (
            {"history": ["c"], "diversity": {"by": "calibrated", "column": "color"}},
            runtime.recommend(["c"], diversity=Calibrated("color")),
        ),
    ]
    for asked, wanted in cases:
        response = client.post("/v1/recommend", json=asked)
        assert answered(response) == wanted, asked
        assert response.headers["edgerec-bundle"] == sha256(path)


def test_search_similar_and_explain_are_the_runtimes(client: TestClient, path: Path) -> None:
    runtime = Recommender.load(path)
    assert answered(client.post("/v1/search", json={"query": "red wine", "k": 2})) == runtime.search("red wine", 2)
    assert answered(client.post("/v1/similar", json={"item": "d"})) == runtime.similar("d")
    response = client.post("/v1/explain", json={"item": "d", "history": ["a", "c"], "k": 3})
    assert response.json() == explain(runtime, "d", ["a", "c"], 3).to_json()
    assert client.post("/v1/explain", json={"item": "d", "history": ["c"], "words": False}).json()["words"] == []


def test_items_are_looked_up_and_paged(client: TestClient) -> None:
    found = client.get("/v1/items", params={"id": ["d", "g"]}).json()
    assert found["items"][0] == {"item": "d", "title": "red film", "columns": {"year": 2001, "color": ["red"]}}
    assert found["items"][1]["columns"] == {"year": None, "color": ["u"]}
    ids, offset = [], 0
    while offset is not None:
        one = client.get("/v1/items", params={"offset": offset, "limit": 3}).json()
        ids, offset = ids + [item["item"] for item in one["items"]], one["next"]
        assert one["total"] == 8
    assert ids == list("abcdefgh")
    assert client.get("/v1/items", params={"offset": 99}).json() == {"items": [], "total": 8, "next": None}


def test_health_metrics_and_the_page(client: TestClient, path: Path) -> None:
    health = client.get("/healthz").json()
    assert health["status"] == "ok" and health["sha256"] == sha256(path) and health["items"] == 8
    client.post("/v1/search", json={"query": ""})
    client.get("/nothing")
    metrics = client.get("/metrics").text
    assert 'edgerec_requests_total{path="/v1/search",status="422"} 1.0' in metrics
    assert 'edgerec_requests_total{path="other",status="404"} 1.0' in metrics
    assert "edgerec_requests_running 1.0" in metrics and "process_resident_memory_bytes" in metrics
    assert client.get("/").text == client.get("/demo.html").text == "<p>demo"
    assert client.get("/demo.js").headers["content-type"].startswith("text/javascript")
    assert client.get("/demo.edgerec").content == path.read_bytes()
    refused(client.get("/.built"), 404)


def test_without_a_built_page_there_is_none(shelf: Shelf) -> None:
    with TestClient(application(shelf, Metrics(), Limits(), page=NO_PAGE)) as client:
        refused(client.get("/"), 404)
        refused(client.get("/demo.edgerec"), 404)


REFUSALS: list[tuple[str, dict[str, Any], int, str]] = [
    ("recommend", {"json": {"k": 21}}, 422, "got 21 as k; expected `int` <= 20"),
    ("recommend", {"json": {"k": 0}}, 422, "got 0 as k; expected `int` >= 1"),
    ("recommend", {"json": {"k": 2.5}}, 422, "got 2.5 as k; expected `int`, got `float`"),
    ("recommend", {"json": {"k": True}}, 422, "got True as k; expected `int`, got `bool`"),
    ("recommend", {"json": {"history": ["a"] * 6}}, 422, "got 6 values as history; expected `array` of length <= 5"),
    ("recommend", {"json": {"history": "a"}}, 422, "expected `array`, got `str`"),
    ("recommend", {"json": {"histroy": ["a"]}}, 422, "unknown field `histroy`"),
    ("recommend", {"json": {"history": ["zz"]}}, 404, "1 of 1 items are not in the catalogue: 'zz'"),
    ("recommend", {"json": {"where": {"x": 1}}}, 422, "no column 'x' in test.edgerec; it has year, color"),
    ("recommend", {"json": {"where": {"year": ["x"]}}}, 422, "got ['x'] for the column 'year'; expected a number"),
    ("recommend", {"json": {"candidates": {"a.b": {"c.d": "x"}}}}, 422, "expected `float`, got `str`"),
    ("recommend", {"json": {"blend": {"weights": {}}}}, 422, "a blend needs the features of candidates"),
    ("recommend", {"json": {"fresh": {"column": "year", "now": 1, "half_life": 0}}}, 422, "half-life above 0"),
    ("recommend", {"json": {"diversity": {"by": "luck"}}}, 422, "invalid value 'luck'"),
    ("recommend", {"json": []}, 422, "expected `object`, got `array`"),
    ("recommend", {"content": b"{", "headers": {"content-type": "application/json"}}, 400, "no strict JSON"),
    ("recommend", {"content": b'{"k": NaN}', "headers": {"content-type": "application/json"}}, 400, "no strict JSON"),
    ("recommend", {"content": b"[" * 1999, "headers": {"content-type": "application/json"}}, 400, "no strict JSON"),
    ("recommend", {"content": b"\xff", "headers": {"content-type": "application/json"}}, 400, "no strict JSON"),
    ("recommend", {"data": {"k": "1"}}, 415, "x-www-form-urlencoded; expected application/json"),
    ("recommend", {"json": {"history": ["a" * 2000]}}, 413, "expected at most 2000"),
    ("search", {"json": {"query": " "}}, 422, "got ' ' as query"),
    ("search", {"json": {}}, 422, "missing required field `query`"),
    ("similar", {"json": {"item": "zz"}}, 404, "'zz'"),
    ("explain", {"json": {"item": "a", "history": ["a"] * 6}}, 422, "got 6 values as history"),
]


@pytest.mark.parametrize(("verb", "asked", "status", "why"), REFUSALS)
def test_refusals_say_what_was_got_and_expected(
    client: TestClient, verb: str, asked: dict[str, Any], status: int, why: str
) -> None:
    assert why in refused(client.post(f"/v1/{verb}", **asked), status)


@pytest.mark.parametrize(
    ("asked", "status", "why"),
    [
        ({"offset": "x"}, 422, "got 'x' as offset; expected `int`"),
        ({"limit": 1001}, 422, "expected `int` <= 1000"),
        ({"page": 1}, 422, "unknown field `page`"),
        ({"id": "zz"}, 404, "'zz'"),
    ],
)
def test_refused_queries(client: TestClient, asked: dict[str, Any], status: int, why: str) -> None:
    assert why in refused(client.get("/v1/items", params=asked), status)


def test_other_methods_and_undeclared_large_bodies_are_refused(client: TestClient) -> None:
    response = client.get("/v1/recommend")
    refused(response, 405)
    assert response.headers["allow"] == "POST"
    parts = (b" " * 500 for _ in range(9))
    large = client.post("/v1/recommend", content=parts, headers={"content-type": "application/json"})
    assert "bytes or more; expected at most 2000" in refused(large, 413)


def test_a_token_opens_everything_but_health(shelf: Shelf, page: Path) -> None:
    with TestClient(application(shelf, Metrics(), Limits(), "s3cret", page)) as client:
        assert client.get("/healthz").status_code == 200
        for name in ("/", "/demo.edgerec", "/metrics", "/openapi.json", "/v1/items", "/nothing"):
            response = client.get(name)
            refused(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
        for header in ("Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "s3cret", "Bearer é"):
            refused(client.get("/v1/items", headers={"authorization": header.encode()}), 401)
        assert client.get("/v1/items", headers={"authorization": "bearer s3cret"}).status_code == 200
        assert client.get("/openapi.json", headers={"authorization": "Bearer s3cret"}).json()["security"]


def test_a_bundle_without_texts_cannot_explain_words(ring: Tower, write: Write) -> None:
    with TestClient(application(Shelf(write(ring), None, Metrics()), Metrics(), Limits(), page=NO_PAGE)) as client:
        why = refused(client.post("/v1/explain", json={"item": "b", "history": ["a"]}), 501)
        assert "test.edgerec" in why and "/" not in why.replace("test.edgerec", "")
        assert client.post("/v1/explain", json={"item": "b", "history": ["a"], "words": False}).status_code == 200


def test_what_nobody_foresaw_is_answered_and_nothing_asked_is_logged(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Recommender, history: list[str], *rest: object) -> None:
        raise RuntimeError(f"cannot read {history}")

    monkeypatch.setattr(Recommender, "recommend", fail)
    caplog.set_level(logging.DEBUG, "edgerec")
    assert "secret" not in refused(client.post("/v1/recommend", json={"history": ["secret"]}), 500)
    assert "RuntimeError at" in caplog.text and "secret" not in caplog.text
    assert 'status="500"} 1.0' in client.get("/metrics").text


def test_a_slow_body_is_refused() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    request = Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive)
    with pytest.raises(HTTPException, match="part of the body in 0.01 s") as caught:
        asyncio.run(body(request, Limits(seconds=0.01)))
    assert caught.value.status_code == 408


def test_an_answer_that_takes_too_long_is_given_up_and_one_that_waits_never_begins() -> None:
    workers, done, began = Workers(0.05), threading.Event(), []
    try:
        for _ in range(THREADS):
            with pytest.raises(HTTPException, match="no answer within") as caught:
                asyncio.run(workers.do(done.wait))
            assert caught.value.status_code == 503
        with pytest.raises(HTTPException, match="no answer within"):
            asyncio.run(workers.do(began.append, 1))
    finally:
        done.set()
    workers.close()
    assert not began


def test_more_than_can_wait_are_sent_away() -> None:
    async def crowd() -> list[Any]:
        workers, done = Workers(10), threading.Event()
        waiting = [asyncio.create_task(workers.do(done.wait)) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(HTTPException, match="at once; ask again"):
            await workers.do(done.wait)
        done.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(crowd()) == [True] * MOST_WAITING


def test_a_request_keeps_its_bundle_while_it_is_swapped(shelf: Shelf, path: Path, back: Path) -> None:
    old, new = sha256(path), sha256(back)

    def swap_then_answer(recommender: Recommender, asked: Recommend) -> Any:
        back.replace(path)
        asyncio.run(shelf.take())
        return answer_recommend(recommender, asked)

    first = OPERATIONS[0]
    routes = [
        Route(name, handler(one, shelf, Workers(10), Limits()), methods=["POST"])
        for name, one in {"/swap": Operation("/swap", Recommend, first.answered, swap_then_answer), "/": first}.items()
    ]
    client = TestClient(Starlette(routes=routes))
    response = client.post("/swap", json={"history": ["a"], "k": 1})
    assert answered(response)[0][0] == "b" and response.headers["edgerec-bundle"] == old
    response = client.post("/", json={"history": ["a"], "k": 1})
    assert answered(response)[0][0] == "h" and response.headers["edgerec-bundle"] == new


def test_the_old_bundle_is_freed(shelf: Shelf, path: Path, back: Path) -> None:
    old = weakref.ref(shelf.current.recommender)
    back.replace(path)
    asyncio.run(shelf.take())
    gc.collect()
    assert old() is None and shelf.current.sha256 == sha256(path)


def test_a_bad_file_is_refused_and_the_old_one_goes_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    shelf, before = Shelf(path, None, metrics), sha256(path)
    content = path.read_bytes()
    for bad in (b"", content[:-100], content.replace(b"red wine", b"red wind"), None):
        path.unlink()
        if bad is not None:
            path.write_bytes(bad)
        asyncio.run(shelf.take())
        assert shelf.current.sha256 == before
    assert caplog.text.count("refused a new file") == 4
    assert metrics.registry.get_sample_value("edgerec_swaps_total", {"taken": "false"}) == 4


def test_a_file_that_answers_otherwise_here_is_refused(ring: Tower, write: Write) -> None:
    def other(members: dict[str, bytes], model: object) -> None:
        members[GOLDENS] = members[GOLDENS].replace(b'"items": [1', b'"items": [2')

    with pytest.raises(Exception, match="goldens fail here"):
        Shelf(write(ring, other), None, Metrics())


def test_a_key_is_asked_of_every_file(path: Path) -> None:
    pytest.importorskip("cryptography")
    from edgerec.signing import generate

    generate(path.with_name("private.pem"), path.with_name("public.pem"))
    with pytest.raises(BundleError, match="is not signed"):
        Shelf(path, path.with_name("public.pem"), Metrics())
