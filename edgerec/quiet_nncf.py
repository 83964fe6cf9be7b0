"""nncf without its telemetry: left alone, it reports each use to its makers and writes a client id into the home."""

from __future__ import annotations

import logging
from typing import Any

from edgerec.errors import require


def quiet_nncf() -> Any:
    """Import nncf so that it logs no more than warnings; ``require`` keeps it from sending anything.

    Raises:
        MissingExtraError: nncf is not installed.
    """
    nncf = require("nncf", "export")
    nncf.set_log_level(logging.WARNING)
    return nncf
