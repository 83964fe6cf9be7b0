"""The committed result of the browser's runtime prints the committed tables."""

from __future__ import annotations

import json

from edgerec.benchmarks.documents import RESULTS
from edgerec.benchmarks.run_web import report


def test_the_report_is_what_the_result_prints() -> None:
    [path] = RESULTS.glob("web-*.json")
    result = json.loads(path.read_text("utf-8"))
    assert path.with_suffix(".md").read_text("utf-8") == report(result)
    for one in result["bundles"].values():
        assert all(one["latency"][engine]["verify"]["requests"] > 0 for engine in ("onnxruntime", "plain"))
