"""A model folder as a benchmark subject, run by torch in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgerec.benchmarks.adapters import Staged, importing

if TYPE_CHECKING:
    from edgerec.export.torch_model import TorchModel


class TorchSubject(Staged):
    """The towers and the text encoder that a student's or teacher's file is made from.

    Args:
        kind: Of the requests; sessions are not among them, torch keeps no state here.
        folder: What ``edgerec fine-tune`` or ``edgerec distill`` wrote.
        threads: Of torch.
        mode: "eager" or "compiled".
        device: "cpu" or "cuda".
    """

    model: TorchModel

    def __init__(self, kind: str, folder: str, threads: int, mode: str, device: str) -> None:
        self.kind, self.folder, self.threads, self.mode, self.device = kind, Path(folder), threads, mode, device
        self.run_one: Callable[[Any], Any]

    def stages(self) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yield import and the folder; compiling begins there, and is done at the first result."""
        yield "import", importing("edgerec.export.torch_model")
        yield "open", self._open

    def close(self) -> None:
        """Nothing is held outside the process."""

    def _open(self) -> None:
        from edgerec.export.torch_model import TorchModel

        self.model = TorchModel(self.folder, self.threads, self.device)
        if self.mode == "compiled":
            self.model.compile()
        self.run_one = getattr(self.model, self.kind)
