"""The application: a route for every operation, the page and its bundle, health, metrics and the OpenAPI document.

Answers are computed in a few threads, so that a slow one (an explanation of a long text) holds up neither health checks
nor the swap of a bundle. What handing over costs is measured in docs/embedding.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from edgerec import strict_json
from edgerec.runtime.serve_answers import OPERATIONS, Operation
from edgerec.runtime.serve_bundle import Shelf
from edgerec.runtime.serve_door import HANDLERS, OPEN, Door
from edgerec.runtime.serve_metrics import Metrics
from edgerec.runtime.serve_openapi import document
from edgerec.runtime.serve_schema import Health, Limits, limited

PAGE = Path(__file__).parent / "web" / "dist"
THREADS = 2  # one slow explanation does not hold up the rest; more bring little, since most of an answer holds the GIL
MOST_WAITING = 256  # requests that may wait for a thread
BLOCK = 1 << 16  # bytes of a bundle that are sent at once
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


class Workers:
    """The threads that answer; a request waits for one and for its answer no longer than ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._pool, self._seconds, self._waiting = ThreadPoolExecutor(THREADS, "edgerec-answer"), seconds, 0

    async def do(self, work: Callable[..., T], *given: Any) -> T:
        """Return what a function makes of its arguments.

        Raises:
            HTTPException: 503, too many requests wait, or it took too long: one that had not begun never will.
        """
        if self._waiting >= MOST_WAITING:
            raise HTTPException(503, f"got more than {MOST_WAITING} requests at once; ask again", {"Retry-After": "1"})
        self._waiting += 1
        try:
            begun = asyncio.get_running_loop().run_in_executor(self._pool, work, *given)
            return await asyncio.wait_for(begun, self._seconds)
        except asyncio.TimeoutError:
            raise HTTPException(503, f"no answer within {self._seconds:g} s; ask for less, or later") from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let no thread begin anything more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def application(
    shelf: Shelf, metrics: Metrics, limits: Limits, token: str | None = None, page: Path = PAGE
) -> Starlette:
    """Return the ASGI application.

    Args:
        shelf: The open bundle; it is watched while the application runs.
        metrics: What is counted.
        limits: What is taken on.
        token: What a client must know to be answered; None asks for nothing.
        page: The folder of the built page; there is no page where the folder is missing.
    """
    workers = Workers(limits.seconds)

    @contextlib.asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        watcher = asyncio.create_task(shelf.watch())
        yield
        watcher.cancel()
        workers.close()

    described = msgspec.json.encode(document(limits, token is not None))
    routes: list[BaseRoute] = [
        Route(one.path, handler(one, shelf, workers, limits), methods=["GET" if one.query else "POST"])
        for one in OPERATIONS
    ]
    routes += [
        Route(OPEN, lambda request: json_response(health(shelf))),
        Route("/metrics", lambda request: Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)),
        Route("/openapi.json", lambda request: Response(described, media_type="application/json")),
        *page_routes(shelf, page),
    ]
    door = Middleware(Door, metrics=metrics, token=token)
    app = Starlette(routes=routes, middleware=[door], exception_handlers=HANDLERS, lifespan=running)
    app.state.shelf = shelf
    return app


def handler(one: Operation, shelf: Shelf, workers: Workers, limits: Limits) -> Handler:
    """Return the handler of an operation."""
    kind = limited(one.asked, limits)

    async def handle(request: Request) -> Response:
        value = query(request) if one.query else parsed(await body(request, limits), limits)
        asked = checked(value, kind, strict=not one.query)
        current = shelf.current  # for all of this request, whatever is swapped meanwhile
        found = await workers.do(one.answer, current.recommender, asked)
        return json_response(found, {"Edgerec-Bundle": current.sha256})

    return handle


async def body(request: Request, limits: Limits) -> bytes:
    """Return a request's body.

    Raises:
        HTTPException: It is not called JSON, is too large, ends early, or does not arrive in time.
    """
    kind = request.headers.get("content-type", "nothing")
    if kind.partition(";")[0].strip().lower() != "application/json":  # which also keeps other sites' forms out
        raise HTTPException(415, f"got a body of {kind}; expected application/json")
    try:
        return await asyncio.wait_for(received(request, limits.body), limits.seconds)
    except asyncio.TimeoutError:
        raise HTTPException(408, f"got a part of the body in {limits.seconds:g} s; expected all of it") from None
    except ClientDisconnect:
        raise HTTPException(400, "got a part of the body; expected all of it") from None


async def received(request: Request, most: int) -> bytes:
    """Return a request's body of at most so many bytes; a longer one is refused as soon as that is known."""
    declared = request.headers.get("content-length", "")
    size, parts = int(declared) if declared.isdecimal() else 0, []
    if size <= most:
        size = 0
        async for part in request.stream():
            parts.append(part)
            if (size := size + len(part)) > most:
                break
    if size > most:
        raise HTTPException(413, f"got a body of {size} bytes or more; expected at most {most}")
    return b"".join(parts)


def parsed(content: bytes, limits: Limits) -> Any:
    """Return the value of a body."""
    try:
        return whole(strict_json.parse(content, limits.body))
    except ValueError as error:
        raise HTTPException(400, f"got a body that is no strict JSON ({error}); expected one JSON object") from error


def whole(value: Any) -> Any:
    """Return a JSON value with 2.0 as 2: to JSON Schema both are the same integer, to msgspec they are not."""
    if isinstance(value, dict):
        return {name: whole(part) for name, part in value.items()}
    if isinstance(value, list):
        return [whole(part) for part in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def query(request: Request) -> dict[str, Any]:
    """Return the fields of a query; ``id`` may come again for several."""
    fields = request.query_params
    return {name: fields.getlist(name) if name == "id" else fields[name] for name in fields}


def checked(value: Any, kind: type[T], strict: bool) -> T:
    """Return a value as a type of request; ``strict`` false takes numbers as text."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        said, _, at = str(error).partition(" - at `$.")
        at = at.rstrip("`")
        got = "" if not at else f"in {at}: " if "[" in at else f"got {shown(value, at)} as {at}; "
        raise HTTPException(422, f"{got}{said[:1].lower()}{said[1:]}") from error


def shown(value: Any, at: str) -> str:
    """Return what stands at a path of msgspec's, such as ``fresh.now``, in a few words."""
    try:
        found = reduce(lambda node, name: node[name], at.split("."), value)
    except (KeyError, TypeError):  # a key of the client's own, dots and all
        return "another value"
    return f"{len(found)} values" if isinstance(found, list | dict) else repr(found)[:100]


def json_response(value: Any, headers: dict[str, str] | None = None) -> Response:
    """Return a value as JSON."""
    return Response(msgspec.json.encode(value), 200, headers, "application/json")


def health(shelf: Shelf) -> Health:
    """Return which file answers."""
    now, versions = shelf.current, shelf.current.recommender.bundle.manifest.get("versions")
    version = versions.get("edgerec") if isinstance(versions, dict) else None
    items = now.recommender.contents.n_items
    return Health("ok", now.sha256, version if isinstance(version, str) else None, items, now.since.isoformat())


def page_routes(shelf: Shelf, folder: Path) -> list[BaseRoute]:
    """Return the built page's files, its start at ``/``, and the bundle that it opens."""

    def bundle(request: Request) -> Response:
        now = shelf.current
        headers = {"Content-Length": str(len(now.recommender.bundle.file)), "ETag": f'"{now.sha256}"'}
        return StreamingResponse(blocks(now.recommender.bundle.file), 200, headers, "application/octet-stream")

    def file(path: Path) -> Callable[[Request], Response]:
        return lambda request: FileResponse(path)

    files = {f"/{path.name}": path for path in sorted(folder.glob("[!.]*"))}
    if "/demo.html" not in files:
        return []
    return [
        Route("/demo.edgerec", bundle),
        *(Route(name, file(path)) for name, path in [*files.items(), ("/", files["/demo.html"])]),
    ]


def blocks(whole: memoryview) -> Iterator[bytes]:
    """Return a file block by block."""
    return (bytes(whole[start : start + BLOCK]) for start in range(0, len(whole), BLOCK))
