"""The result's schema, ``edgerec-bench-1``, as a JSON Schema, and a check that needs no package.

A file of a later version is refused by name; within a version, keys are only ever added.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgerec.errors import UsageError

NAME = "edgerec-bench-1"
TEXT, COUNT, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
AMOUNT = {"type": "number", "minimum": 0}
MAYBE_TEXT, MAYBE_AMOUNT = {"type": ["string", "null"]}, {"type": ["number", "null"], "minimum": 0}
STATUS = {"enum": ["measured", "failed", "not measured"]}
HEAD = {"subject": TEXT, "device": TEXT, "kind": {"enum": ["recommend", "session", "search", "encode"]}}
HEAD |= {"precision": MAYBE_TEXT, "threads": {"type": ["integer", "null"], "minimum": 1}}


def record(required: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an object with these keys, and any others."""
    return {"type": "object", "required": list(required), "properties": dict(required)}


def listed(items: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def or_none(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of what may be missing, and is null then."""
    kinds = schema["type"]
    return {**schema, "type": [*([kinds] if isinstance(kinds, str) else kinds), "null"]}


PERCENTILE = record({"value": AMOUNT, "bound": MAYBE_AMOUNT})
LATENCY = record({"n": COUNT, "mean": AMOUNT, **dict.fromkeys(("p50", "p90", "p99", "p99.9"), PERCENTILE)})
STABILITY = record({"windows": listed(AMOUNT), "spread": AMOUNT, "stable": FLAG})
RUN = record(
    {
        "round": COUNT,
        "latency_ms": LATENCY,
        "order_statistics_ms": {**listed(AMOUNT), "minItems": 1},
        "stability": STABILITY,
        "samples_per_second": AMOUNT,
        "seconds": AMOUNT,
        "memory": record({"before": {"type": "object"}, "prepared": {"type": "object"}, "after": {"type": "object"}}),
        "machine": record({"affinity": {"type": ["array", "null"]}, "foreign_cores": AMOUNT}),
        "energy": record({"net_joules_per_sample": MAYBE_AMOUNT, "reason": MAYBE_TEXT}),
    }
)
CELL = record(
    {
        **HEAD,
        "scenario": TEXT,
        "status": STATUS,
        "reason": MAYBE_TEXT,
        "runs": listed(RUN),
        "latency_ms": or_none(LATENCY),
        "stable": or_none(FLAG),
        "samples_per_second": MAYBE_AMOUNT,
        "peak_mb": MAYBE_AMOUNT,
        "rate": MAYBE_AMOUNT,
    }
)
AUDIT = {"status": STATUS, "reason": MAYBE_TEXT, "passes": or_none(FLAG)}
MAYBE_COUNT, MAYBE_NUMBER = or_none(COUNT), {"type": ["number", "null"]}
TEST01 = record({**AUDIT, "answers": MAYBE_COUNT, "different": MAYBE_COUNT})
TEST04 = record({**AUDIT, "faster": MAYBE_NUMBER, "least": MAYBE_NUMBER})
INTERVAL = record({"mean": AMOUNT, "low": AMOUNT, "high": AMOUNT})
QUALITY = record({"ndcg": INTERVAL, "hr": INTERVAL, "cold_hr": MAYBE_AMOUNT, "cold_users": COUNT})
LENGTH = record(dict.fromkeys(("least", "p50", "p90", "most"), AMOUNT))
ACCURACY = record(
    {
        **HEAD,
        "status": STATUS,
        "sha256": MAYBE_TEXT,
        "bytes": MAYBE_AMOUNT,
        "overlap10": MAYBE_AMOUNT,
        "quality": or_none(QUALITY),
        "goldens": or_none(record({"passes": FLAG})),
    }
)
COSINE = record(dict.fromkeys(("mean", "least"), {"type": "number"}))
ACCURACY["properties"] |= {"cosine": or_none(COSINE)}  # results from before it have none
COLD = record(
    {**HEAD, "status": STATUS, "reason": MAYBE_TEXT, "total_ms": MAYBE_AMOUNT, "stages_ms": {"type": "object"}}
)
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": NAME,
    **record(
        {
            "schema": {"enum": [NAME]},
            "environment": record(
                {
                    "cpu": TEXT,
                    "platform": TEXT,
                    "python": TEXT,
                    "packages": record({"onnxruntime": MAYBE_TEXT}),
                    "load_average": or_none(listed(AMOUNT)),
                }
            ),
            "settings": record({"plan": record({"seconds": AMOUNT, "count": COUNT}), "rounds": COUNT}),
            "inputs": record({"source": TEXT, "recommend": record({"n": COUNT, "length": LENGTH})}),
            "cells": listed(CELL),
            "cold": listed(COLD),
            "audits": listed(record({**HEAD, "test01": TEST01, "test04": TEST04})),
            "accuracy": listed(ACCURACY),
        }
    ),
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


def faults(value: Any, schema: Mapping[str, Any] = SCHEMA, where: str = "the result") -> Iterator[str]:
    """Yield where a JSON value departs from a schema; knows the keywords that ``SCHEMA`` uses."""
    if "enum" in schema:
        if value not in schema["enum"]:
            yield f"{where} is {json.dumps(value)[:60]}, expected one of {', '.join(schema['enum'])}"
        return
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(of_type(value, kind) for kind in kinds):
        yield f"{where} is {json.dumps(value)[:60]}, expected {' or '.join(kinds)}"
    elif isinstance(value, dict):
        yield from (f"{where} has no {key}" for key in schema.get("required", ()) if key not in value)
        for key, part in schema.get("properties", {}).items():
            yield from faults(value[key], part, f"{where}.{key}") if key in value else ()
    elif isinstance(value, list):
        yield from list_faults(value, schema, where)
    elif isinstance(value, (int, float)) and not value >= schema.get("minimum", value):
        yield f"{where} is {value}, expected at least {schema['minimum']}"


def list_faults(value: list[Any], schema: Mapping[str, Any], where: str) -> Iterator[str]:
    """Yield where a list departs from a schema."""
    if len(value) < schema.get("minItems", 0):
        yield f"{where} has {len(value)} entries, expected at least {schema['minItems']}"
    for place, entry in enumerate(value):
        yield from faults(entry, schema.get("items", {"type": list(TYPES)}), f"{where}[{place}]")


def contradictions(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a result of the right shape says of itself that cannot be."""
    for place, cell in enumerate(result["cells"]):
        if cell["status"] == "measured" and (cell["latency_ms"] is None or not cell["runs"]):
            yield f"the result.cells[{place}] is measured, and has no latencies"
    for place, audit in enumerate(result["audits"]):
        for name, figure in (("test01", "answers"), ("test04", "faster")):
            if audit[name]["status"] == "measured" and None in (audit[name][figure], audit[name]["passes"]):
                yield f"the result.audits[{place}].{name} is measured, and has no {figure}"


def of_type(value: Any, kind: str) -> bool:
    """Tell whether a JSON value has a type of JSON Schema, where true is no number."""
    return isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def read(path: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        UsageError: The file cannot be read, or is no result of this version; the first faults are named.
    """
    try:
        result = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); expected what `edgerec bench run --out` wrote") from error
    if found := list(faults(result)) or list(contradictions(result)):
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise UsageError(f"{path} is no {NAME}: {'; '.join(found[:3])}{more}; measure again with `edgerec bench run`")
    whole: dict[str, Any] = result
    return whole
