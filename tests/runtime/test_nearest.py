"""An index finds what the exact product finds, and is refused where it does not, or is not one of these items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import pytest

from edgerec.bundle import Bundle, write_bundle
from edgerec.errors import BundleError, MissingExtraError, ParityError, UsageError
from edgerec.export import index
from edgerec.runtime import MMR, Recommender
from edgerec.runtime.layout import Tower
from edgerec.runtime.nearest import INDEX, build, user_vector

pytest.importorskip("usearch")

N = 3000
REPEATS = {"repeat_decays": np.float32([0.8]), "repeat_weights": np.float32([50]), "mask_seen": False}


@pytest.fixture
def indexed(make_tower: Callable[..., Tower], write: Callable[..., Path]) -> Callable[..., Path]:
    """Write a tower of many items with an index; its biases weigh as much as its products."""

    def make(**repeats: Any) -> Path:
        tower = make_tower(N, **repeats)
        path = write(replace(tower, bias=tower.bias * 16))
        index.add_index(path)
        return path

    return make


def both(path: Path) -> tuple[Recommender, Recommender]:
    return Recommender.load(path), Recommender.load(path, index="usearch")


def histories(count: int = 60) -> list[list[str]]:
    rng = np.random.default_rng(1)
    return [[f"i{row}" for row in rng.integers(1, N + 1, rng.integers(1, 30))] for _ in range(count)]


@pytest.mark.parametrize("repeats", [{}, REPEATS], ids=["seen-masked", "repeats"])
def test_the_index_finds_the_exact_best_and_scores_them_as_the_graph_does(
    indexed: Callable[..., Path], repeats: dict[str, Any]
) -> None:
    exact, near = both(indexed(**repeats))
    shares = []
    for history in histories():
        wanted = {one.item: one.score for one in exact.recommend(history)}
        found = {one.item: one.score for one in near.recommend(history)}
        shares.append(len(wanted.keys() & found.keys()) / len(wanted))
        for item in wanted.keys() & found.keys():
            assert found[item] == pytest.approx(wanted[item], rel=1e-5, abs=1e-5)
        if repeats:
            assert history[-1] in found  # whatever the index thinks of it
        else:
            assert not {*history} & {*found}
    assert np.mean(shares) > 0.98
    assert Bundle(near.bundle.path).manifest["index"]["recall10"] > 0.95


def test_what_an_index_cannot_know_is_answered_exactly(indexed: Callable[..., Path]) -> None:
    exact, near = both(indexed())
    near.ranker.rank, seen = count_calls(near.ranker.rank)
    assert near.recommend(["i1"]) and not seen
    assert near.recommend([]) == exact.recommend([])  # popularity
    assert near.recommend(["i1"], candidates=["i7", "i9"]) == exact.recommend(["i1"], candidates=["i7", "i9"])
    assert len(seen) == 2
    assert len(near.recommend(["i1"], diversity=MMR(weight=0.3, pool=50))) == 10
    assert len(seen) == 2  # a reranker chooses from what the index found


def count_calls(function: Callable[..., Any]) -> tuple[Callable[..., Any], list[None]]:
    seen: list[None] = []

    def counted(*given: Any, **named: Any) -> Any:
        seen.append(None)
        return function(*given, **named)

    return counted, seen


def test_sessions_and_changes_of_the_catalogue_go_through_it(indexed: Callable[..., Path]) -> None:
    exact, near = both(indexed())
    best = exact.recommend(["i1", "i2"], 3)
    for one in (exact, near):
        one.remove_items([best[0].item])
        one.add_items({"new": "red wine"})
    answers = []
    for one in (exact, near):
        session = one.session()
        session.observe("i1", "new", "i2")
        session.skip("i9")
        answers.append([found.item for found in session.recommend(10)])
    assert best[0].item not in answers[1] and len({*answers[0]} & {*answers[1]}) >= 9


def test_few_items_are_all_found(make_tower: Callable[..., Tower], write: Callable[..., Path]) -> None:
    path = write(make_tower(20))
    assert index.add_index(path)["recall10"] == 1
    exact, near = both(path)
    assert [one.item for one in near.recommend(["i3"], 100)] == [one.item for one in exact.recommend(["i3"], 100)]


def test_an_index_is_the_same_every_time(indexed: Callable[..., Path]) -> None:
    path = indexed()
    first = bytes(Bundle(path)[INDEX])
    assert bytes(build(Recommender.load(path).contents).save()) == first


def test_an_index_that_misses_the_best_is_not_written(
    make_tower: Callable[..., Tower], write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(make_tower(N))
    before = path.read_bytes()
    right = build
    monkeypatch.setattr(index, "build", lambda contents: right(replace(contents, external=turned(contents.external))))
    with pytest.raises(ParityError, match=r"finds .*% of the exact top 10; expected at least 95%"):
        index.add_index(path)
    assert path.read_bytes() == before


def turned(external: Any) -> dict[str, Any]:
    return {**external, "item_out.i8": external["item_out.i8"][:, ::-1]}


def test_no_index_and_a_wrong_one_are_refused_by_name(
    make_tower: Callable[..., Tower], write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_others = bytes(build(Recommender.load(write(make_tower(30))).contents).save())
    plain = write(make_tower(20))
    with pytest.raises(UsageError, match="holds no index; expected one: export it with --index usearch"):
        Recommender.load(plain, index="usearch")
    with pytest.raises(UsageError, match="got the index 'faiss'; expected exact or usearch"):
        Recommender.load(plain, index="faiss")
    bundle = Bundle(plain)
    members = {name: bytes(bundle[name]) for name in bundle.manifest["members"]}
    own = bytes(build(Recommender.load(plain).contents).save())
    for content, message in ((b"nothing", "cannot be opened"), (of_others, "holds 30 vectors")):
        write_bundle(tmp_path / "bad.edgerec", {"model": bundle.manifest["model"]}, {**members, INDEX: content})
        with pytest.raises(BundleError, match=message):
            Recommender.load(tmp_path / "bad.edgerec", index="usearch")
    write_bundle(tmp_path / "good.edgerec", {"model": bundle.manifest["model"]}, {**members, INDEX: own})
    monkeypatch.setitem(__import__("sys").modules, "usearch.index", None)
    with pytest.raises(MissingExtraError, match=r"edgerec\[index\]"):
        Recommender.load(tmp_path / "good.edgerec", index="usearch")
    assert Recommender.load(tmp_path / "good.edgerec").recommend(["i1"])


def test_the_user_vector_is_the_graphs(indexed: Callable[..., Path]) -> None:
    recommender = Recommender.load(indexed())
    answer = recommender.ranker.rank(np.array([[3, 1, 4]]), 1)
    assert user_vector(recommender.contents, answer.state[0]) == pytest.approx(answer.user[0], abs=1e-5)
