"""Tables in the documents, from committed results: ``python -m edgerec.benchmarks.documents docs/quality.md``.

A document names a result between two comments, ``<!-- begin quality-ml-100k -->`` and ``<!-- end quality-ml-100k -->``;
what stands between them is what the result prints, and for ``summary`` a line per planned study. A test keeps
document and results equal.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from edgerec.benchmarks.quality import summary
from edgerec.benchmarks.run_quality import PLANNED
from edgerec.errors import DataError
from edgerec.files import write_bytes

RESULTS = Path(__file__).resolve().parent / "results"
PLACE = re.compile(r"(<!-- begin (?P<name>[\w.-]+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)


def filled(document: str, results: Path = RESULTS) -> str:
    """Return a document with the reports of the results that it names.

    Raises:
        DataError: A result is not there.
    """

    def report(place: re.Match[str]) -> str:
        if place["name"] == "summary":
            return f"{place[1]}\n{summary(planned(results))}\n\n{place[3]}"
        path = results / f"{place['name']}.md"
        if not path.exists():
            raise DataError(f"{path} is not there; expected the report of a committed result: run make quality")
        return f"{place[1]}\n{path.read_text('utf-8')}\n{place[3]}"

    return PLACE.sub(report, document)


def planned(results: Path) -> dict[str, dict[str, Any] | None]:
    """Return the results of the planned studies by name, None where there is none."""
    studies = [one.name for one in PLANNED if one.part == "main"]
    paths = {name.removeprefix("quality-"): results / f"{name}.json" for name in studies}
    return {name: json.loads(path.read_text("utf-8")) if path.exists() else None for name, path in paths.items()}


def main(paths: list[str]) -> None:
    """Fill documents in place."""
    for path in map(Path, paths):
        write_bytes(path, filled(path.read_text("utf-8")).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
