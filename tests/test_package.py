"""The wheel holds what the tree holds, and imports flow one way."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("distill", "export", "runtime", "benchmarks")
# what each stage may import of the others at module level; functions of `commands` modules may import any
ALLOWED = {"edgerec": set(), "runtime": set(), "benchmarks": {"runtime"}, "distill": set(), "export": set(STAGES)}


def sources() -> list[Path]:
    """Return every module of the package by its real path."""
    return [path for name in ("edgerec", *STAGES) for path in sorted((ROOT / name).glob("*.py"))]


def data_files() -> list[Path]:
    """Return what lies beside the modules and ships with them."""
    others = [path for name in ("web", "c") for path in (ROOT / "runtime" / name).glob("[!.]*") if path.is_file()]
    return sorted([*(path for kind in ("*.md", "*.sh") for path in (ROOT / "export").glob(kind)), *others])


def test_wheel_holds_edgerec_only_and_every_module(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("edgerec", *STAGES):
        built = shutil.ignore_patterns("node_modules", "dist")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=built)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(tree),
    ]
    subprocess.run(command, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    packaged = {name for name in names if ".dist-info/" not in name}
    expected = {
        f"edgerec/{path.relative_to(ROOT / 'edgerec' if path.parent.name == 'edgerec' else ROOT).as_posix()}"
        for path in [*sources(), *data_files()]
    }
    assert packaged == expected | {"edgerec/py.typed"}


@pytest.mark.parametrize("path", sources(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_imports_flow_one_way(path: Path) -> None:
    tree = ast.parse(path.read_text())
    nodes = tree.body if path.name.endswith("commands.py") else list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgerec."):
            stage = (node.module or "").split(".")[1]
            own = path.parent.name
            assert stage not in STAGES or stage == own or stage in ALLOWED[own], f"{path.name} imports {node.module}"
