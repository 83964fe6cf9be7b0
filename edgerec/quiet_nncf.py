"""nncf without its telemetry: left alone, it reports each use to its makers and writes a client id into the home."""

from __future__ import annotations

import logging
import sys
from typing import Any

from edgerec.errors import require


def quiet_nncf() -> Any:
    """Import nncf so that it sends nothing and logs no more than warnings.

    It sends through ``openvino_telemetry`` where that can be imported. ``None`` in ``sys.modules`` is Python's way to
    say that it cannot, for nncf and for whatever else in this process would: nncf then takes a stub of its own. So this
    has to come before any other import of nncf.

    Raises:
        MissingExtraError: nncf is not installed.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    nncf = require("nncf", "export")
    nncf.set_log_level(logging.WARNING)
    return nncf
