"""The verbs, through click."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

import pytest

from edgerec.errors import BundleError, UnknownItemError
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


def test_keys_signatures_and_deltas(path: str, tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    from edgerec.cli import group

    def run(*arguments: object) -> str:
        return CliRunner().invoke(group, [str(one) for one in arguments], catch_exceptions=False).output

    private, public, signed = (tmp_path / name for name in ("private.pem", "public.pem", "signed.edgerec"))
    first, second = tmp_path / "1.edgerec-delta", tmp_path / "2.edgerec-delta"
    run("keygen", private, public)
    run("sign", path, "--key", private, "--out", signed)
    assert "signature valid" in run("verify", signed, "--key", public)
    assert "signature unchecked" in run("verify", signed) and "signature absent" in run("verify", path)
    with pytest.raises(BundleError, match="is not signed"):
        run("verify", path, "--key", public)
    (tmp_path / "items.csv").write_text("item_id,title\nx,영화\n", "utf-8")
    (tmp_path / "gone").write_text("d\n")
    assert "version 1" in run("delta", signed, "--add", tmp_path / "items.csv", "--out", first)
    assert "version 2" in run("delta", signed, "--remove", tmp_path / "gone", "--after", first, "--out", second)
    with pytest.raises(BundleError, match=r"1.edgerec-delta is not signed"):
        run("verify", signed, "--key", public, "--delta", first)
    for one in (first, second):
        run("sign", one, "--key", private)
    assert "signature valid" in run("verify", signed, "--key", public, "--delta", first, "--delta", second)
