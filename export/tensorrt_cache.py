"""Built engines on disk, under a name that changes with everything an engine depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgerec.export.tensorrt_builder import BuildOptions, Built, Profile
from edgerec.files import cache_dir, sha256, write_bytes, write_json

L4T = Path("/etc/nv_tegra_release")


def l4t_release() -> str | None:
    """Return the first line of a Jetson's release file; None elsewhere."""
    return L4T.read_text("utf-8", "replace").splitlines()[0].strip() if L4T.exists() else None


def digest(graph: bytes, stripped: bool) -> str:
    """Return the sha256 of a graph; without its weights where the engine does not hold them either."""
    if stripped:
        import onnx  # here: an engine with its weights is opened without it

        model = onnx.load_from_string(graph)
        for tensor in model.graph.initializer:
            for name in ("raw_data", "float_data", "int32_data", "int64_data"):
                tensor.ClearField(name)
        graph = model.SerializeToString(deterministic=True)
    return hashlib.sha256(graph).hexdigest()


@dataclass(frozen=True)
class EngineCache:
    """Engines, their records and timing caches of one TensorRT version on one kind of GPU.

    Attributes:
        version: Of TensorRT.
        architecture: Of the GPU, 87 for SM 8.7.
        folder: Where they lie.
        l4t: A Jetson's release.
    """

    version: str
    architecture: int
    folder: Path
    l4t: str | None = None

    @classmethod
    def here(cls, version: str, architecture: int) -> EngineCache:
        """Return this user's cache."""
        return cls(version, architecture, cache_dir() / "tensorrt", l4t_release())

    @property
    def device(self) -> dict[str, str | int | None]:
        """What an engine depends on beside its graph."""
        return {"tensorrt": self.version, "architecture": self.architecture, "l4t": self.l4t}

    def path(self, graph: bytes, profiles: Sequence[Profile], options: BuildOptions) -> Path:
        """Return where the engine of a graph lies, or would."""
        described = {"graph": digest(graph, options.stripped), "profiles": profiles, "options": asdict(options)}
        key = json.dumps({**described, **self.device}, sort_keys=True)
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.plan"

    def read(self, path: Path) -> bytes | None:
        """Return an engine, or None where there is none, or not the one that was written."""
        record = path.with_suffix(".json")
        if not path.exists() or not record.exists() or json.loads(record.read_text("utf-8"))["sha256"] != sha256(path):
            return None
        return path.read_bytes()

    def write(self, path: Path, built: Built) -> None:
        """Keep an engine; its record comes last, so that an engine with one is whole."""
        write_bytes(path, built.plan)
        if built.timing_cache:
            write_bytes(self.timing, built.timing_cache)
        write_json(path.with_suffix(".json"), {"sha256": sha256(path), **self.device, **built.record})

    @property
    def timing(self) -> Path:
        """Where the timing cache of this version on this GPU lies."""
        return self.folder / f"timing-{self.version}-sm{self.architecture}.cache"

    def timing_cache(self) -> bytes:
        """Return the timing cache, empty where there is none."""
        return self.timing.read_bytes() if self.timing.exists() else b""
