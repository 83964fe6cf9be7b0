from __future__ import annotations

from pathlib import Path

from edgerec.benchmarks.devices import targets


def test_torch_is_measured_in_the_modes_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "tiny"
    both = targets(["cpu-torch"], [], [folder], ["encode"], [1])
    eager = targets(["cpu-torch"], [], [folder], ["encode"], [1], torch_modes=["eager"])
    assert [one.name for one in both] == ["empty", "tiny, cpu-torch, eager", "tiny, cpu-torch, compiled"]
    assert eager == both[:2] and eager[1].options["mode"] == "eager"
