"""``edgerec keygen`` and ``edgerec sign``."""

from __future__ import annotations

from pathlib import Path

import click

from edgerec.signing import generate


@click.command()
@click.argument("private", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("public", type=click.Path(dir_okay=False, path_type=Path))
def keygen(private: Path, public: Path) -> None:
    """Make a pair of Ed25519 keys, to sign bundles and deltas with."""
    generate(private, public)
    click.echo(f"{private}: keep it where bundles are made, nowhere else; {public}: put it into the application")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--key", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True, help="Private, PEM."
)
@click.option("--out", type=click.Path(path_type=Path), help="The signed file.  [default: FILE itself]")
def sign(file: Path, key: Path, out: Path | None) -> None:
    """Sign a bundle or a delta."""
    from edgerec.bundle import sign as write

    write(file, key.read_bytes(), out or file)
    click.echo(f"{out or file}: signed")
