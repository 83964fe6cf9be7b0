"""The documents' tables are what the committed results print."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgerec.benchmarks import compare
from edgerec.benchmarks.documents import RESULTS, filled
from edgerec.benchmarks.million_bundle import report as million_report
from edgerec.benchmarks.schema import read
from edgerec.benchmarks.tables import markdown
from edgerec.errors import DataError
from edgerec.export.study import report

DOCUMENTS = sorted(
    path for path in (Path(__file__).parents[1] / "docs").glob("*.md") if "<!-- begin" in path.read_text("utf-8")
)
MEASURED = sorted(RESULTS.glob("bench-ml-100k*.json"))
COMPARISONS = sorted(RESULTS.glob("compare-*.json"))
STUDIES = sorted(RESULTS.glob("quality-*.json"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.stem for path in DOCUMENTS])
def test_a_document_is_what_the_results_say(path: Path) -> None:
    document = path.read_text("utf-8")
    assert filled(document) == document


@pytest.mark.parametrize("path", MEASURED, ids=[path.stem for path in MEASURED])
def test_a_committed_measurement_is_whole_and_prints_its_table(path: Path) -> None:
    assert path.with_suffix(".md").read_text("utf-8") == markdown(read(path))


@pytest.mark.parametrize("path", STUDIES, ids=[path.stem for path in STUDIES])
def test_a_committed_report_is_its_results(path: Path) -> None:
    assert path.with_suffix(".md").read_text("utf-8") == report(json.loads(path.read_text("utf-8")))


@pytest.mark.parametrize("path", COMPARISONS, ids=[path.stem for path in COMPARISONS])
def test_a_committed_comparison_is_its_results(path: Path) -> None:
    assert path.with_suffix(".md").read_text("utf-8") == compare.report(json.loads(path.read_text("utf-8")))


def test_the_numbers_of_security_are_their_results() -> None:
    document = (DOCUMENTS[0].parent / "security.md").read_text("utf-8")
    result = json.loads((RESULTS / "million-bundle.json").read_text("utf-8"))
    assert (RESULTS / "million-bundle.md").read_text("utf-8") == million_report(result)
    log = json.loads((RESULTS / "fuzz.json").read_text("utf-8"))
    assert f"{log['inputs']:,} inputs, {log['crashes']} findings" in document


def test_the_tables_of_the_runtime_are_their_results() -> None:
    from edgerec.benchmarks import diversity_curve, explain_fidelity, lean

    for name, table in (
        ("diversity-ml-100k", diversity_curve.table),
        ("lean-ml-100k", lambda result: lean.table(result).rstrip()),
        ("explain-fidelity-ml-100k", lambda result: explain_fidelity.table(result["rows"])),
    ):
        path = RESULTS / f"{name}.json"
        assert path.with_suffix(".md").read_text("utf-8") == table(json.loads(path.read_text("utf-8"))) + "\n"


def test_a_document_is_filled_between_its_comments_only(tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text("| 1 |")
    document = "before\n<!-- begin one -->\nold\n<!-- end one -->\nafter\n"
    made = filled(document, tmp_path)
    assert made == "before\n<!-- begin one -->\n\n| 1 |\n<!-- end one -->\nafter\n"
    assert filled(made, tmp_path) == made
    with pytest.raises(DataError, match="two.md is not there"):
        filled("<!-- begin two -->\n<!-- end two -->", tmp_path)
    assert "data not at hand" in filled("<!-- begin summary -->\n<!-- end summary -->", tmp_path)
