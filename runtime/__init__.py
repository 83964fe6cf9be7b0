"""What ships: numpy and onnxruntime only. Importing it opens neither a graph nor onnxruntime."""

from edgerec.runtime.diversity import MMR, Calibrated
from edgerec.runtime.ranking import Blend, Fresh
from edgerec.runtime.recommender import Recommendation, Recommender
from edgerec.runtime.session import Session

__all__ = ["MMR", "Blend", "Calibrated", "Fresh", "Recommendation", "Recommender", "Session"]
