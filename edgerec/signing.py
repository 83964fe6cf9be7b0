"""Ed25519 signatures (RFC 8032) of a bundle's manifest; ``cryptography`` is imported when a key is used, not before."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgerec.errors import UsageError, require

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Key: TypeAlias = "bytes | str | Path"  # PEM, or the name of a PEM file
PublicKey: TypeAlias = "Ed25519PublicKey"
SIZE = 64  # bytes of a signature


def library(name: str) -> Any:
    """Import a module of ``cryptography``, or say which extra brings it."""
    return require(f"cryptography.{name}", "sign")


def generate(private: Path, public: Path) -> None:
    """Write a new pair of keys in PEM; the private one is readable by its owner only, and not encrypted.

    Raises:
        UsageError: A file of either name is there: a key that was in use cannot be made again.
        MissingExtraError: ``cryptography`` is not installed.
    """
    if taken := [str(path) for path in (private, public) if path.exists()]:
        raise UsageError(f"{' and '.join(taken)} exist; expected new names: move them away, or choose others")
    forms = library("hazmat.primitives.serialization")
    key = library("hazmat.primitives.asymmetric.ed25519").Ed25519PrivateKey.generate()
    secret = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(secret)
    public.write_bytes(key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo))


def sign(content: bytes, private_key: bytes) -> bytes:
    """Return the 64 bytes that sign a content.

    Args:
        content: Any bytes.
        private_key: PEM, not encrypted.

    Raises:
        UsageError: It is no Ed25519 private key.
        MissingExtraError: ``cryptography`` is not installed.
    """
    return parsed(private_key, "private").sign(content)


def public_key(key: Key) -> PublicKey:
    """Return a public key.

    Raises:
        UsageError: It cannot be read, or is no Ed25519 public key.
        MissingExtraError: ``cryptography`` is not installed.
    """
    try:
        return parsed(key if isinstance(key, bytes) else Path(key).read_bytes(), "public")
    except OSError as error:
        raise UsageError(
            f"the key {str(key)!r} cannot be read ({error}); expected an Ed25519 public key in PEM"
        ) from error


def parsed(pem: bytes, kind: str) -> Any:
    """Return the ``kind`` ("private" or "public") of key that PEM holds, or refuse another."""
    forms, keys = library("hazmat.primitives.serialization"), library("hazmat.primitives.asymmetric.ed25519")
    expected = keys.Ed25519PrivateKey if kind == "private" else keys.Ed25519PublicKey
    try:
        key = forms.load_pem_private_key(pem, None) if kind == "private" else forms.load_pem_public_key(pem)
    except (ValueError, TypeError, library("exceptions").UnsupportedAlgorithm):
        key = None
    if not isinstance(key, expected):
        got = "no such key" if key is None else type(key).__name__
        raise UsageError(f"got {got}; expected an Ed25519 {kind} key in PEM, as edgerec keygen makes it")
    return key


def holds(content: bytes | memoryview, signature: bytes | memoryview, key: PublicKey) -> bool:
    """Tell whether a signature is that of a content."""
    try:
        key.verify(bytes(signature[: SIZE + 1]), bytes(content))
    except library("exceptions").InvalidSignature:
        return False
    return True
