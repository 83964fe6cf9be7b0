"""What ships: numpy and onnxruntime only. Importing it opens neither a graph nor onnxruntime."""

from typing import TYPE_CHECKING, Any

from edgerec.runtime.naming import Recommendation
from edgerec.runtime.ranking import Blend, Fresh
from edgerec.runtime.recommender import Recommender
from edgerec.runtime.session import Session

if TYPE_CHECKING:
    from edgerec.runtime.diversity import MMR, Calibrated

__all__ = ["MMR", "Blend", "Calibrated", "Fresh", "Recommendation", "Recommender", "Session"]


def __getattr__(name: str) -> Any:
    """Import the rerankers when they are asked for (PEP 562)."""
    if name not in ("MMR", "Calibrated"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgerec.runtime import diversity

    return getattr(diversity, name)
