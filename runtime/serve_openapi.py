"""The OpenAPI 3.1 document, generated from the types that check requests: they cannot disagree."""

from __future__ import annotations

from typing import Any

import msgspec

import edgerec
from edgerec.runtime.serve_answers import OPERATIONS, Operation
from edgerec.runtime.serve_schema import Health, Limits, Problem, limited

REF = "#/components/schemas/{name}"
PROBLEMS = {
    400: "The request is no strict JSON, or ended early",
    401: "The bearer token is missing or another one",
    404: "An item is not in the catalogue",
    408: "The body did not arrive in time",
    413: "The body is too large",
    415: "The body is not application/json",
    422: "A value cannot work",
    501: "This bundle or installation lacks what the answer needs",
    503: "The server is busy, or the answer took too long",
}
OF_BODIES = {400, 408, 413, 415}


def document(limits: Limits, token: bool) -> dict[str, Any]:
    """Return the document of a server with these limits, which may want a bearer token."""
    asked = [limited(one.asked, limits) for one in OPERATIONS]
    _, schemas = msgspec.json.schema_components(
        [*asked, *(one.answered for one in OPERATIONS), Health, Problem], ref_template=REF
    )
    paths = {one.path: {"get" if one.query else "post": operation(one, schemas)} for one in OPERATIONS}
    health = {"summary": "Tell which bundle answers.", "security": [], "responses": {"200": content("Health")}}
    components: dict[str, Any] = {"schemas": schemas}
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "edgerec",
            "version": edgerec.__version__,
            "description": f"A recommender from one file. A body has at most {limits.body:,} bytes.",
        },
        "paths": {**paths, "/healthz": {"get": health}},
        "components": components,
    }
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
    return made


def operation(one: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return an operation's entry."""
    problems = {
        str(status): content("Problem", said, "application/problem+json")
        for status, said in PROBLEMS.items()
        if not (one.query and status in OF_BODIES)
    }
    made: dict[str, Any] = {
        "operationId": one.path.rpartition("/")[2],
        "summary": one.answer.__doc__,
        "responses": {"200": content(one.answered.__name__), **problems},
    }
    name = one.asked.__name__
    if one.query:
        fields = schemas.pop(name)["properties"]
        made["parameters"] = [{"name": field, "in": "query", "schema": schema} for field, schema in fields.items()]
    else:
        made["requestBody"] = {"required": True, "content": content(name)["content"]}
    return made


def content(name: str, description: str = "The answer", media_type: str = "application/json") -> dict[str, Any]:
    """Return a response with a schema of the components."""
    return {"description": description, "content": {media_type: {"schema": {"$ref": REF.format(name=name)}}}}
