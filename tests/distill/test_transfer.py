"""A model that starts from another is at first the other: its items keep their vectors, and the log adds to them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner

import pytest

from edgerec.cli import group
from edgerec.data import load
from edgerec.distill import checkpoint
from edgerec.distill.encoder import cached_text_vectors
from edgerec.distill.teacher import UPDATE, TeacherOptions, options_from
from edgerec.distill.transfer import matching, started
from edgerec.errors import UsageError
from edgerec.interactions import Dataset, Requests
from edgerec.metrics import ndcg, rank
from edgerec.splits import split


def run(*arguments: object) -> dict[str, object]:
    """Run fine-tune and return its report."""
    command = ["fine-tune", *arguments, "--json"]
    result = CliRunner().invoke(group, [str(one) for one in command], catch_exceptions=False)
    return json.loads(result.stdout.splitlines()[-1])


def write(folder: Path, items: dict[str, str], walks: Iterable[tuple[str, list[str]]]) -> Path:
    """Write a data folder."""
    folder.mkdir()
    (folder / "items.csv").write_text("item_id,title\n" + "\n".join(f"{key},{text}" for key, text in items.items()))
    log = [f"{user},{item},{1_600_000_000 + 60 * t}" for user, walk in walks for t, item in enumerate(walk)]
    (folder / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(log))
    return folder


ITEMS = {f"i{n}": f"Title {'red' if n % 2 else 'blue'} {n}" for n in range(12)}


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory, small_bert: Path) -> Path:
    """A teacher of the ring, trained too little, that knows no item "late"."""
    home = tmp_path_factory.mktemp("yesterday")
    log = [(f"u{u}", [f"i{(u + t) % 12}" for t in range(6)]) for u in range(40)]
    source = write(home / "data", {**ITEMS, "late": "Title red 11 blue"}, log)
    options = ("--steps", 40, "--batch-size", 16, "--learning-rate", 0.02, "--embedding-size", 16, "--tie", "separate")
    run(source, "--encoder", small_bert, "--out", home / "teacher", "--top-layers", 1, *options)
    return home / "teacher"


@pytest.fixture
def today(tmp_path: Path) -> Path:
    """Two more steps of the old users; new users, who come by "late" between i11 and i0; i3 has another text."""
    ring = [*ITEMS, "late"]
    old = [(f"u{u}", [f"i{(u + t) % 12}" for t in range(8)]) for u in range(40)]
    new = [(f"v{u}", [ring[(u + t) % 13] for t in range(8)]) for u in range(39)]
    items = {"new": "Title blue", **ITEMS, "late": "Title red 11 blue", "i3": "Title"}
    return write(tmp_path / "today", items, old + new)


def of_old_users(data: Dataset, requests: Requests) -> Requests:
    """Return the requests of the users that yesterday's model knew."""
    return requests.take(np.array([row for row, user in enumerate(requests.users) if data.user_ids[user][0] == "u"]))


def test_at_first_it_scores_as_the_other_with_new_items_cold(yesterday: Path, today: Path) -> None:
    init, data = checkpoint.load(yesterday), load(str(today))
    init.towers.set_cold(init.towers.cold_map(), -0.5)  # a catalogue's own cold items may lie below new ones
    divided, config = split(data), init.towers.tower_config
    vectors = cached_text_vectors(data.texts, init.encoder)
    towers = started(init, vectors, data, divided, config).eval()
    new, old = matching(init, data)
    assert [data.item_ids[row] for row in new] == [init.ids[row] for row in old]
    assert set(data.item_ids) - {data.item_ids[row] for row in new} == {"new", "i3"}
    mine, given = towers.arrays(), init.towers.arrays()
    warm = init.towers.warm.numpy()[old]
    assert (~warm).sum() == 1  # "late"
    for name in ("item_in", "item_out", "text", "bias"):
        np.testing.assert_array_equal(getattr(mine, name)[new[warm]], getattr(given, name)[old[warm]], err_msg=name)
        np.testing.assert_allclose(getattr(mine, name)[new], getattr(given, name)[old], atol=1e-5, err_msg=name)
    late, new_row = data.item_ids.index("late"), data.item_ids.index("new")
    assert towers.warm[late] and not towers.warm[new_row]
    assert mine.scale == given.scale
    assert all(np.array_equal(*parts) for parts in zip(mine.cold, given.cold, strict=True))
    np.testing.assert_array_equal(mine.mix, given.mix)


def test_a_step_with_a_rate_of_0_writes_the_same_vectors(yesterday: Path, today: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = run(today, "--init-from", yesterday, "--out", out, "--steps", 1, "--learning-rate", 0)
    assert report["init_from"] == {**report["init_from"], "items": 14, "items_kept": 12}
    made, init = checkpoint.load(out), checkpoint.load(yesterday)
    for item in ("i0", "i11"):
        row, old = made.ids.index(item), init.ids.index(item)
        for name in ("residual_in", "residual_out", "bias", "text"):
            assert torch.equal(getattr(made.towers, name)[row], getattr(init.towers, name)[old])
    assert torch.equal(made.towers.projection, init.towers.projection)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (made.encoder, init.encoder)]
    assert weights[0] == weights[1]


def test_an_update_learns_the_new_item_and_forgets_nobody(yesterday: Path, today: Path, tmp_path: Path) -> None:
    run(today, "--init-from", yesterday, "--out", tmp_path / "out", "--learning-rate", 0.02, "--batch-size", 64)
    made, init, data = checkpoint.load(tmp_path / "out"), checkpoint.load(yesterday), load(str(today))
    divided = split(data)
    late = data.item_ids.index("late")
    assert made.towers.warm[late] and not init.towers.warm[init.ids.index("late")]
    vectors = cached_text_vectors(data.texts, init.encoder)
    before = started(init, vectors, data, divided, init.towers.tower_config).eval()
    old, quality, found = of_old_users(data, divided.test), [], []
    asked = divided.test.take(np.flatnonzero(divided.test.targets.values == late))
    for towers in (before, made.towers):
        quality.append(ndcg(rank(towers, old, 10, divided.mask_seen), old, 10).mean())
        found.append((rank(towers, asked, 1, divided.mask_seen)[:, 0] == late).mean())
    assert len(asked) == 3
    assert quality[1] >= quality[0]
    assert found[1] > found[0]


def test_another_catalogue_takes_the_user_tower_the_projection_and_the_encoder(yesterday: Path, tmp_path: Path) -> None:
    walks = [(f"u{u}", [f"other{(u + t) % 12}" for t in range(6)]) for u in range(40)]
    other = write(tmp_path / "other", {f"other{n}": f"Title red {n}" for n in range(12)}, walks)
    init, data = checkpoint.load(yesterday), load(str(other))
    options = options_from(init, data)
    assert (options.stage_1, options.top_layers) == (TeacherOptions().stage_1, TeacherOptions().top_layers)
    vectors = cached_text_vectors(data.texts, init.encoder)
    towers = started(init, vectors, data, split(data), options.towers)
    assert not towers.residual_in.any() and not towers.bias.any()
    assert torch.equal(towers.decay_logits, init.towers.decay_logits)
    np.testing.assert_allclose(towers.text.numpy(), vectors @ init.towers.projection.numpy(), atol=1e-6)


def test_an_update_is_short_and_what_contradicts_the_other_model_is_refused(
    yesterday: Path, today: Path, small_bert: Path, tmp_path: Path
) -> None:
    options = options_from(checkpoint.load(yesterday), load(str(today)))
    assert (options.stage_1, options.top_layers, options.tie) == (UPDATE, 0, "separate")
    out = ("--out", tmp_path / "out")
    with pytest.raises(UsageError, match="got --encoder and --tie with --init-from"):
        run(today, "--init-from", yesterday, *out, "--encoder", small_bert, "--tie", "shared")
    with pytest.raises(UsageError, match="got --search with --init-from"):
        run(today, "--init-from", yesterday, *out, "--search", 3)
    model = json.loads((yesterday / "model.json").read_text())
    assert not (tmp_path / "out").exists()
    student = checkpoint.Checkpoint(Path("student"), {**model, "kind": "student"}, None, [], [], [], [], [])
    with pytest.raises(UsageError, match="student is a student; expected a folder that fine-tune wrote"):
        options_from(student, load(str(today)))
