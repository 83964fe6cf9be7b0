"""The verbs, through click."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

import pytest

from edgerec.errors import UnknownItemError
from edgerec.runtime.commands import recommend, search, verify
from edgerec.runtime.layout import Tower


@pytest.fixture
def path(ring: Tower, write: Callable[[Tower], Path]) -> str:
    return str(write(ring))


def test_recommend_prints_lines_or_one_json_value(path: str) -> None:
    run = CliRunner().invoke
    lines = run(recommend, [path, "c", "--k", "2"]).output.splitlines()
    assert [line.split("\t")[:3] for line in lines] == [["1", "d", "red film"], ["2", "a", "red wine"]]
    found = json.loads(run(recommend, [path, "c", "f", "--json", "--k", "1"]).output)
    assert found[0]["item"] == "g"
    assert found[0]["title"] == "🎉 영화"
    assert len(json.loads(run(recommend, [path, "c", "--include-seen", "--json"]).output)) == 8
    assert len(json.loads(run(recommend, [path, "c", "--exclude-seen", "--json"]).output)) == 7
    assert run(recommend, [path, "c", "zz", "--skip-unknown"]).exit_code == 0
    assert isinstance(run(recommend, [path, "zz"]).exception, UnknownItemError)


def test_candidates_come_from_a_file(path: str, tmp_path: Path) -> None:
    (tmp_path / "ids").write_text("h\n\nb\r\n")
    output = CliRunner().invoke(recommend, [path, "--candidates-file", str(tmp_path / "ids")]).output
    assert [line.split("\t")[1] for line in output.splitlines()] == ["b", "h"]


def test_search_and_verify(path: str) -> None:
    run = CliRunner().invoke
    assert run(search, [path, "red wine", "--k", "1"]).output.startswith("1\ta\tred wine\t")
    assert json.loads(run(search, [path, "영화", "--k", "1", "--json"]).output)[0]["item"] == "f"
    assert "8 requests and 2 texts as expected" in run(verify, [path]).output
    assert json.loads(run(verify, [path, "--json"]).output)["requests"] == 8
