"""Package map: the stages live at the top level, and are imported as ``edgerec.<stage>``."""

from setuptools import setup

SUBPACKAGES = ("distill", "export", "runtime", "benchmarks")

setup(
    packages=["edgerec", *(f"edgerec.{name}" for name in SUBPACKAGES)],
    package_dir={"edgerec": "edgerec", **{f"edgerec.{name}": name for name in SUBPACKAGES}},
)
