"""What leaving torch in fp32 may cost: below these limits an export exits 1 and leaves no file.

Every target reads them, and so does a device: a bundle's golden requests carry their ``text_distance``.
"""

from typing import NamedTuple

INDEX_RECALL = 0.95  # of the exact ten best, on average, that a bundle's index has to find


class Limits(NamedTuple):
    """What an engine must reach against torch with the tables before rounding."""

    overlap: float  # of the top 10, on average
    tau: float  # Kendall's, of the top 10, on average
    text_distance: float  # the largest 1 - cosine of a text vector


# Of the text encoder; the item tables are INT8 in each, and theirs is what overlap and tau pay for. fp32: sums in
# another order. int8-dynamic: one weight in 127 steps and one activation in 255 moved MiniLM's vectors by 0.01 to 0.03,
# and a narrow student's by more; static ranges do more harm.
LIMITS = {
    "fp32": Limits(0.97, 0.97, 1e-5),
    "fp16": Limits(0.97, 0.97, 1e-3),
    "int8-weights": Limits(0.97, 0.97, 0.01),
    "int8-blocks": Limits(0.97, 0.97, 0.01),
    "int8-dynamic": Limits(0.97, 0.97, 0.1),
    "int8-static": Limits(0.97, 0.97, 0.15),
    "int8-qdq": Limits(0.97, 0.97, 0.15),
    "int4-blocks": Limits(0.97, 0.97, 0.15),
    "qat": Limits(0.97, 0.97, 1e-3),
}
