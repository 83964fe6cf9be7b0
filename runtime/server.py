"""A server of one bundle on one socket, until it is told to stop."""

from __future__ import annotations

import logging
import math
import signal
import socket
from pathlib import Path

import uvicorn

from edgerec.errors import UsageError
from edgerec.runtime.serve_app import application
from edgerec.runtime.serve_bundle import Shelf
from edgerec.runtime.serve_metrics import Metrics
from edgerec.runtime.serve_schema import Limits
from edgerec.signing import Key

LOG = logging.getLogger("edgerec.serve")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        UsageError: There cannot be one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio leaves Nagle's wait: 40 ms
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise UsageError(
            f"cannot listen on {host}, port {port} ({error}); expected an address of this machine and a free port"
        ) from error
    return sock


def opened(path: Path, key: Key | None, limits: Limits, token: str | None) -> uvicorn.Server:
    """Open a bundle; returns what serves it on a listening socket: ``run(sockets=[sock])``.

    SIGTERM and SIGINT stop it, when the requests that have begun are answered; SIGHUP has the file read anew.

    Raises:
        BundleError: The bundle cannot be used.
        ParityError: It answers otherwise on this machine.
    """
    metrics = Metrics()
    shelf = Shelf(path, key, metrics)
    config = uvicorn.Config(
        application(shelf, metrics, limits, token),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=math.ceil(2 * limits.seconds),  # a body may take that long, and an answer
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn has handlers while it runs, and raises again what ended it
        signal.signal(number, stop)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: shelf.look_again())
    LOG.info("serving %s, sha256 %s", path, shelf.current.sha256)
    return server
