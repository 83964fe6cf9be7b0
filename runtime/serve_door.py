"""What every request passes on its way in and out: the token, the metrics, one shape for all that went wrong.

Nothing here or elsewhere in the server writes down what was asked: a history is personal data.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgerec.errors import BundleError, EdgerecError, MissingExtraError, UnknownItemError
from edgerec.runtime.serve_metrics import Metrics
from edgerec.runtime.serve_schema import Problem

LOG = logging.getLogger("edgerec.serve")
OPEN = "/healthz"  # to whoever asks: a load balancer holds no token


class Door:
    """ASGI middleware around the application: asks for the token, counts, and answers for what nobody foresaw."""

    def __init__(self, app: ASGIApp, metrics: Metrics, token: str | None) -> None:
        self._app, self._metrics = app, metrics
        self._wanted = None if token is None else token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begun = 0, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        with self._metrics.running.track_inprogress():
            try:
                await (self._app if self._welcome(scope) else no_token)(scope, receive, watched)
            except Exception as error:  # its message may hold what was asked: the log gets the kind and the place only
                LOG.error("%s at %s", type(error).__name__, place_of(error))
                if not status:
                    await problem(500, "the server failed; its log says where")(scope, receive, watched)
        path = getattr(scope.get("route"), "path", "other")  # few different ones, whatever is asked for
        self._metrics.requests.labels(path, status).inc()
        self._metrics.seconds.labels(path).observe(time.perf_counter() - begun)

    def _welcome(self, scope: Scope) -> bool:
        if self._wanted is None or scope["path"] == OPEN:
            return True
        header: bytes = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, given = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(given, self._wanted)  # in constant time


async def no_token(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request without the token."""
    detail = "got no bearer token, or another one; expected the header Authorization: Bearer TOKEN"
    await problem(401, detail, {"WWW-Authenticate": "Bearer"})(scope, receive, send)


def place_of(error: BaseException) -> str:
    """Return the file and line where an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a refusal."""
    content = msgspec.json.encode(Problem(HTTPStatus(status).phrase, status, detail))
    return Response(content, status, headers, "application/problem+json")


def status_of(error: EdgerecError) -> int:
    """Return the HTTP status of the runtime's errors."""
    if isinstance(error, UnknownItemError):
        return 404
    return 501 if isinstance(error, MissingExtraError | BundleError) else 422


async def turned_away(request: Request, error: HTTPException) -> Response:
    """Answer what the server refused."""
    return problem(error.status_code, error.detail, error.headers)


async def refused(request: Request, error: EdgerecError) -> Response:
    """Answer what the runtime refused."""
    path = request.app.state.shelf.path  # where the file lies is nobody's business
    return problem(status_of(error), " ".join(str(error).replace(str(path), path.name).split()))


HANDLERS: Any = {HTTPException: turned_away, EdgerecError: refused}
