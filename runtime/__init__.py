"""What ships: numpy and onnxruntime only. Importing it opens neither a graph nor onnxruntime."""

from edgerec.runtime.recommender import Recommendation, Recommender
from edgerec.runtime.session import Session

__all__ = ["Recommendation", "Recommender", "Session"]
