"""From what is asked for to the sizes that a student is pruned to, and which parts of it these leave."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from edgerec.distill.shapes import Shape, spread
from edgerec.distill.static import StaticConfig
from edgerec.errors import UsageError

STEPS = 256  # of the scale that a target is searched over
MEASURES = {"params": "parameters", "flops": "of its FLOPs per token", "latency": "ms per title"}
Plan: TypeAlias = Shape | StaticConfig


@dataclass(frozen=True)
class Sizes:
    """What is asked for, heads and units as a mean over layers; None leaves a size to the target, or as it is."""

    layers: int | None = None
    heads: int | None = None
    intermediate: int | None = None
    hidden: int | None = None
    vocabulary: int | None = None


@dataclass(frozen=True)
class Target:
    """What a student may cost at most: a measure, one of ``MEASURES``."""

    measure: str
    most: float

    def __post_init__(self) -> None:
        if self.measure not in MEASURES or self.most <= 0:
            raise UsageError(f"got a target of {self.most} {self.measure}; expected one of {list(MEASURES)}, above 0")


def require_smaller(have: Plan, asked: Sizes) -> None:
    """Refuse sizes that a student does not have, or that are larger than its own.

    Raises:
        UsageError: As said.
    """
    if isinstance(have, StaticConfig):
        own: dict[str, float] = {"hidden": have.hidden}
    else:
        heads, units = sum(have.heads) / have.layers, sum(have.intermediate) / have.layers
        own = {"layers": have.layers, "heads": heads, "intermediate": units, "hidden": have.hidden}
    wanted = {name: value for name, value in asdict(asked).items() if value is not None and name != "vocabulary"}
    for name, value in wanted.items():
        if name not in own:
            raise UsageError(f"a static student has no {name}; expected --vocabulary or --hidden, or a target")
        if not 1 <= value <= own[name]:
            raise UsageError(
                f"got {name} {value}; expected 1 to {own[name]:g}, which the model has: pruning only removes"
            )


def planned(have: Plan, asked: Sizes, scale: float = 1.0) -> Plan:
    """Return the sizes that are asked for, the others scaled and at least 1, heads and units spread over the layers."""

    def scaled(given: int | None, own: float, least: int = 1) -> int:
        return max(round(scale * own), least) if given is None else given

    hidden = scaled(asked.hidden, have.hidden)
    if isinstance(have, StaticConfig):
        return StaticConfig(hidden)
    layers = scaled(asked.layers, have.layers)
    heads, units = (
        scaled(None if given is None else given * layers, sum(own) * layers / have.layers, layers)
        for given, own in ((asked.heads, have.heads), (asked.intermediate, have.intermediate))
    )
    return Shape(hidden, have.head_width, spread(heads, layers), spread(units, layers))


def within(have: Plan, asked: Sizes, target: Target, measure: Callable[[Plan], float]) -> Plan:
    """Return the largest uniform scaling of what is not asked for that meets a target.

    Layers are few, so that leaving one out can overshoot: the others then grow again as far as the target lets them.

    Raises:
        UsageError: The student meets it as it is, or no scaling does.
    """
    what, full = MEASURES[target.measure], measure(have)
    if full <= target.most:
        raise UsageError(
            f"got a target of {target.most:g} {what}, the model has {full:g} already; expected a smaller one"
        )
    found = [planned(have, asked, step / STEPS) for step in range(1, STEPS + 1)]
    place = bisect_right(found, target.most, key=measure)
    if place == 0:
        raise UsageError(
            f"got a target of {target.most:g} {what}, the smallest that pruning reaches is {measure(found[0]):g}; "
            "expected a larger target, or smaller sizes where they were given"
        )
    met = found[place - 1]
    if isinstance(met, Shape) and asked.layers is None:
        return within(have, replace(asked, layers=met.layers), target, measure)
    return met


def best(scores: Tensor, count: int) -> list[int]:
    """Return the places of the largest scores, ascending; of equal ones the first."""
    order = torch.sort(scores, descending=True, stable=True).indices
    return sorted(order[:count].tolist())


def best_over_layers(scores: Sequence[Tensor], count: int) -> list[Tensor]:
    """Return which parts of each layer stay, int [n], ``count`` in all and at least one in each layer."""
    return best_within(scores, [1.0] * len(scores), count)


def best_within(scores: Sequence[Tensor], costs: Sequence[float], budget: float) -> list[Tensor]:
    """Return which parts of each group stay: the best of each, then by score per cost as long as the budget allows.

    Args:
        scores: [n] of each group.
        costs: Of a part of each group.
        budget: What all may cost.

    Returns:
        Ascending int [k] of each group, k at least 1.
    """
    kept = [{int(one.argmax())} for one in scores]
    left = budget - sum(costs)
    worth = torch.cat([one / cost for one, cost in zip(scores, costs, strict=True)])
    places = [(group, place) for group, one in enumerate(scores) for place in range(len(one))]
    for row in torch.sort(worth, descending=True, stable=True).indices.tolist():
        group, place = places[row]
        if place not in kept[group] and costs[group] <= left + 1e-6 * costs[group]:
            kept[group].add(place)
            left -= costs[group]
    return [torch.tensor(sorted(one)) for one in kept]
