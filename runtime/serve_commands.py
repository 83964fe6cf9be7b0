"""``edgerec serve``."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path

import click

from edgerec.errors import UsageError, require
from edgerec.runtime.commands import bundle_argument


@click.command()
@bundle_argument
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Holds the bearer token that clients must send.  [default: the environment's EDGEREC_TOKEN, or none]",
)
@click.option(
    "--key", type=click.Path(path_type=Path), help="A public key, PEM: what is not signed with it is not served."
)
@click.option("--max-body", type=click.IntRange(1), default=1 << 20, show_default=True, help="Bytes of a request.")
@click.option("--max-k", type=click.IntRange(1), default=100, show_default=True, help="Items of an answer.")
@click.option("--max-history", type=click.IntRange(0), default=1000, show_default=True, help="Items of a history.")
@click.option(
    "--timeout", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Seconds for an answer."
)
def serve(
    bundle: Path,
    host: str,
    port: int,
    token_file: Path | None,
    key: Path | None,
    max_body: int,
    max_k: int,
    max_history: int,
    timeout: float,
) -> None:
    """Serve a bundle over HTTP; a new file under its name is taken without a pause."""
    import logging

    for module in ("msgspec", "prometheus_client", "starlette", "uvicorn"):
        require(module, "serve")
    from edgerec.runtime.serve_schema import Limits
    from edgerec.runtime.server import listen, opened

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    token = read_token(token_file)
    if token is None and not is_loopback(host):
        click.echo(f"edgerec: {host} may be reached from elsewhere, and no token is asked for: --token-file", err=True)
    with listen(host, port) as sock:
        server = opened(bundle, key, Limits(max_body, max_k, max_history, timeout), token)
        name = f"[{host}]" if ":" in host else host
        click.echo(f"http://{name}:{sock.getsockname()[1]}")
        server.run(sockets=[sock])
    logging.info("stopped")


def read_token(path: Path | None) -> str | None:
    """Return the token of a file, else that of EDGEREC_TOKEN, else None.

    Raises:
        UsageError: It is empty, or no word of ASCII.
    """
    given = os.environ.get("EDGEREC_TOKEN") if path is None else path.read_text("utf-8", "replace")
    if given is None:
        return None
    token = given.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        where = path or "EDGEREC_TOKEN"
        raise UsageError(f"got a token of {len(token)} characters in {where}; expected one word of ASCII")
    return token


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
