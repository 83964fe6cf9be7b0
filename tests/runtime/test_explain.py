"""Contributions are the score, "without it" is a shorter history's answer, words are what the encoder makes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from click.testing import CliRunner

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgerec.errors import BundleError, UnknownItemError, UsageError
from edgerec.runtime import Recommender
from edgerec.runtime.catalogue import optional_members
from edgerec.runtime.commands import explain as command
from edgerec.runtime.commands import similar
from edgerec.runtime.explain import explain, ridge, sampled_masks
from edgerec.runtime.layout import Tower

REPEATS = {"repeat_decays": np.float32([0.6, 0.97]), "repeat_weights": np.float32([1.5, -0.4])}


@pytest.fixture
def path(ring: Tower, write: Callable[..., Path]) -> Path:
    """A ring with repeats, and texts that are not the titles."""
    texts = [f"{title} film wine" for title in ring.titles]
    made = replace(ring, bias=np.linspace(-1, 1, 8, dtype=np.float32), **REPEATS)
    return write(made, lambda members, model: members.update(optional_members(texts, {})))


def test_contributions_add_up_to_the_score_and_are_in_order(
    make_tower: Callable[..., Tower], load: Callable[..., Recommender]
) -> None:
    recommender = load(make_tower(shared=False, **REPEATS))

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.integers(1, 40), max_size=15), st.integers(1, 40))
    def check(rows: list[int], row: int) -> None:
        history = [f"i{one}" for one in rows]
        found = explain(recommender, f"i{row}", history, words=False)
        whole = recommender.recommend(history, 40, exclude_seen=False)
        score = next(one.score for one in whole if one.item == f"i{row}")
        assert found.score == pytest.approx(score, abs=2.5e-3)
        assert found.bias + found.repeats + sum(one.contribution for one in found.events) == pytest.approx(found.score)
        assert [one.item for one in found.events] == history
        assert [one.age for one in found.events] == list(range(len(rows)))[::-1]
        masked = [one.item for one in recommender.recommend(history, 40, exclude_seen=True)]
        assert found.rank == (masked.index(f"i{row}") + 1 if f"i{row}" in masked else 0)

    check()


def test_without_an_item_is_what_the_shorter_history_answers(path: Path) -> None:
    recommender = Recommender.load(path)
    history = ["a", "c", "e", "c"]
    found = explain(recommender, "d", history, k=1, words=False)
    assert found.rank == 1
    others = [one.item for one in recommender.recommend(["a", "e"], 8, exclude_seen=False) if one.item not in history]
    assert [(one.item, one.rank, one.leaves) for one in found.without] == [
        ("a", 1, False),
        ("c", others.index("d") + 1, True),
        ("e", 1, False),
    ]
    assert not any(one.leaves for one in explain(recommender, "h", history, k=1, words=False).without)


def test_words_are_what_their_absence_changes(path: Path) -> None:
    recommender = Recommender.load(path)
    recommender.add_items({"x": "green red"})
    found = explain(recommender, "x", ["c"])  # the user vector is 4 along "green": item c as history
    words = {one.word: one for one in found.words}
    full = 2 * 4 / np.sqrt(2)
    assert words["green"].occlusion == pytest.approx(full, abs=0.01)
    assert words["red"].occlusion == pytest.approx(full - 8, abs=0.01)  # alone, "green" is the whole direction
    assert words["green"].lime > 0 > words["red"].lime
    repeated = explain(recommender, "d", ["c"])
    assert [one.word for one in repeated.words] == ["red", "film", "film", "wine"]
    assert repeated == explain(recommender, "d", ["c"])  # seeded


def test_the_ridge_is_limes() -> None:
    lime_base = pytest.importorskip("lime.lime_base")
    masks = sampled_masks(7, 400, 0)
    rng = np.random.default_rng(1)
    scores = masks @ rng.normal(size=7) + masks[:, 0] * masks[:, 3] + rng.normal(size=400) / 10
    data = masks.astype(float)
    distances = 100 * (1 - data.sum(1) / np.maximum(np.sqrt(7 * data.sum(1)), 1e-12))
    base = lime_base.LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 25.0**2)), random_state=np.random.RandomState(0))
    labels = np.stack([scores, -scores], axis=1)
    found = base.explain_instance_with_data(data, labels, distances, 0, 7, feature_selection="none")[1]
    assert ridge(masks, scores) == pytest.approx([dict(found)[word] for word in range(7)], abs=1e-6)


def test_masks_leave_out_any_number_of_words() -> None:
    masks = sampled_masks(5, 2000, 0)
    assert masks[0].all() and masks.shape == (2000, 5)
    left = np.bincount(masks[1:].sum(axis=1), minlength=6)
    assert left[5] == 0 and (left[:5] > 300).all()


def test_what_cannot_be_explained_is_refused(path: Path, ring: Tower, write: Callable[..., Path]) -> None:
    recommender = Recommender.load(path)
    for item, history in (("nobody", ["a"]), ("a", ["nobody"])):
        with pytest.raises(UnknownItemError):
            explain(recommender, item, history)
    with pytest.raises(UsageError):
        explain(recommender, "a", "b")
    with pytest.raises(UsageError, match="got k = 0"):
        explain(recommender, "a", ["b"], k=0)
    unknown = explain(recommender, "b", [])
    assert (unknown.score, unknown.rank, unknown.events, unknown.words) == (7, 2, [], [])
    with pytest.raises(BundleError, match="holds no texts"):
        explain(Recommender.load(write(ring)), "a", ["b"])


def test_the_command_prints_json_or_lines_and_draws(path: Path, tmp_path: Path) -> None:
    run, figure = CliRunner().invoke, tmp_path / "why.svg"
    arguments = [str(path), "--item", "d", "a", "c", "--k", "1"]
    found: dict[str, Any] = json.loads(run(command, [*arguments, "--json"]).output)
    assert found["title"] == "red film" and len(found["words"]) == 4
    lines = run(command, [*arguments, "--figure", str(figure)]).output.splitlines()
    assert lines[0].startswith("d\tred film\trank 1\t")
    assert any("c\tgreen wine\t0 events ago\twithout it: rank" in line and "leaves the top 1" in line for line in lines)
    drawn = ElementTree.parse(figure).getroot()
    assert "red film: rank 1" in "".join(drawn.itertext())
    assert len(drawn.findall("{*}rect")) == 1 + 2 + 1 + 4  # paper, events, bias, words
    assert [line.split("\t")[1] for line in run(similar, [str(path), "d", "--k", "2"]).output.splitlines()]
