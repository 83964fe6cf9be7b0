"""``python -m edgerec``."""

from edgerec.cli import main

main()
