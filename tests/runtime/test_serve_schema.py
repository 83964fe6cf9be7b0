"""schemathesis holds the server to its OpenAPI document, with what that allows and with what it does not."""

# ruff: noqa: E402  what an extra brings is asked for first

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

for module in ("httpx2", "msgspec", "prometheus_client", "schemathesis", "starlette"):
    pytest.importorskip(module)

import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from edgerec.runtime.catalogue import optional_members
from edgerec.runtime.layout import Tower
from edgerec.runtime.serve_answers import OPERATIONS
from edgerec.runtime.serve_app import application
from edgerec.runtime.serve_bundle import Shelf
from edgerec.runtime.serve_metrics import Metrics
from edgerec.runtime.serve_schema import Limits

COLUMNS = {"year": [1990, 1990, 1994, 2001, 1970, 1995, None, 1980]}


@pytest.fixture
def schema(ring: Tower, write: Callable[..., Path]) -> Any:
    path = write(ring, lambda members, model: members.update(optional_members(ring.titles, COLUMNS)))
    app = application(Shelf(path, None, Metrics()), Metrics(), Limits(k=20, history=20), page=Path("no-page"))
    return schemathesis.openapi.from_asgi("/openapi.json", app)


KNOWN = {"item": "d", "history": ["a", "c"], "candidates": {"a": {"price": 1}, "d": {}}}  # what no schema can draw
CASES = [(one.path, mode) for one in OPERATIONS for mode in GenerationMode] + [("/healthz", GenerationMode.POSITIVE)]


@pytest.mark.parametrize(("path", "mode"), CASES, ids=[f"{path} {mode.value}" for path, mode in CASES])
def test_every_answer_is_as_described(schema: Any, path: str, mode: GenerationMode) -> None:
    operation = schema[path]["get" if path in ("/healthz", "/v1/items") else "post"]
    seen: set[int] = set()
    # which columns there are, and what goes together, no schema says: a recommendation may refuse what it allows
    excluded = [CHECKS.get_one("positive_data_acceptance")] if path == "/v1/recommend" else []

    @settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode), known=st.booleans())
    def check(case: Any, known: bool) -> None:
        if known and mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body = {name: KNOWN.get(name, value) for name, value in case.body.items()}
        seen.add(case.call_and_validate(excluded_checks=excluded).status_code)

    check()
    assert (200 if mode is GenerationMode.POSITIVE else 422) in seen
