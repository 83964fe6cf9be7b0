"""MLPerf's scenarios (Reddi et al. 2020, arXiv:1911.02549; LoadGen), driven in this process against one subject.

single-stream   one query of one sample; the next is sent when it is answered
multi-stream    the same with queries of STREAMS samples
server          queries arrive at random moments (Poisson) and wait for each other; latency counts from the arrival
offline         all samples are there at once; what counts is samples a second

A run lasts until both its duration and its count are reached. Departures from LoadGen: one thread issues and answers,
as on a device that serves one user; offline asks batches until the run is over, in place of one query of known size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgerec.errors import UsageError

SCENARIOS = ("single-stream", "multi-stream", "server", "offline")
STREAMS = 8  # samples of a multi-stream query, as MLPerf's
BATCH = 32  # samples of an offline query
KEPT = 256  # answers kept of a run, to be compared with the accuracy run's (MLPerf's TEST01)
SPIN = 200e-6  # seconds before an arrival that are not slept: a timer wakes up late
SEARCHES = 8  # halvings of a server's rate, at most
NEAR = 0.02  # of a rate that holds: a higher one that does not ends the search, since rounds differ by more
TRIES = 2  # of a rate: what else the machine did in one second must not lower the rate for good
NANO = 1e-9

Ask = Callable[[Sequence[Any]], Sequence[Any]]
Clock = Callable[[], int]


@dataclass(frozen=True)
class Plan:
    """How one run goes."""

    scenario: str = SCENARIOS[0]
    seconds: float = 10.0
    """The least duration."""
    count: int = 1024
    """The fewest queries."""
    warmup: int = 20
    """Queries before the clock starts."""
    rate: float | None = None
    """Queries a second of a server; None searches for the highest that holds the bound."""
    bound_ms: float = 10.0
    """What a server's 99th percentile may be."""
    sample_seed: int = 0
    """Of which samples are asked, and of which answers are kept."""
    schedule_seed: int = 0
    """Of when a server's queries arrive."""

    def __post_init__(self) -> None:
        if self.scenario not in SCENARIOS:
            raise UsageError(f"got the scenario {self.scenario!r}; expected one of {', '.join(SCENARIOS)}")
        for name, least in (("seconds", 0.0), ("count", 0), ("bound_ms", 0.0)):
            if not getattr(self, name) > least:
                raise UsageError(f"got {name} = {getattr(self, name)}; expected above {least:g}")
        if self.warmup < 0 or (self.rate is not None and not self.rate > 0):
            raise UsageError(f"got warmup {self.warmup} and rate {self.rate}; expected at least 0, and above 0")


@dataclass
class Run:
    """What one run gave.

    Attributes:
        latencies: float64 [n] seconds per query, in order.
        samples: Answered samples.
        elapsed: Seconds from the first query to the last answer.
        kept: Pairs of a sample's number and its answer.
        extra: What a scenario adds.
    """

    latencies: NDArray[np.float64]
    samples: int
    elapsed: float
    kept: list[tuple[int, Any]] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


class Watch:
    """A clock that must not go backwards; ``sleep`` is a parameter so that tests can own time.

    Raises:
        RuntimeError: It did.
    """

    def __init__(self, clock: Clock = time.perf_counter_ns, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock, self._sleep, self._last = clock, sleep, clock()

    def __call__(self) -> int:
        """Return nanoseconds."""
        now = self._clock()
        if now < self._last:
            raise RuntimeError(f"the clock went backwards by {self._last - now} ns")
        self._last = now
        return now

    def until(self, moment: int) -> None:
        """Wait for a moment: asleep, and at last awake."""
        if (left := (moment - self()) * NANO) > SPIN:
            self._sleep(left - SPIN)
        while self() < moment:
            self._sleep(0)


class Keeper:
    """Keeps the answers of a random share of the queries: reservoir sampling (Vitter 1985, algorithm R)."""

    def __init__(self, seed: int) -> None:
        self._rng, self._seen = np.random.default_rng([seed, 1]), 0
        self.kept: list[tuple[int, Any]] = []

    def offer(self, number: int, answer: Any) -> None:
        """Keep an answer, or not."""
        self._seen += 1
        if len(self.kept) < KEPT:
            self.kept.append((number, answer))
        elif (place := int(self._rng.integers(self._seen))) < KEPT:
            self.kept[place] = (number, answer)


def run(ask: Ask, inputs: Sequence[Any], plan: Plan, watch: Watch | None = None) -> Run:
    """Warm up, and run one scenario.

    Args:
        ask: Answers a batch of inputs, in order.
        inputs: The samples, drawn from with replacement.
        plan: How.
        watch: The clock; for tests.

    Raises:
        UsageError: There are no inputs.
        RuntimeError: The clock went backwards.
    """
    if not inputs:
        raise UsageError("got no inputs; expected histories or texts to ask about")
    watch = watch or Watch()
    numbers = np.random.default_rng(plan.sample_seed)
    size = {"multi-stream": STREAMS, "offline": BATCH}.get(plan.scenario, 1)
    for _ in range(plan.warmup):
        ask([inputs[row] for row in numbers.integers(0, len(inputs), size)])
    if plan.scenario != "server":
        return closed_loop(ask, inputs, plan, watch, size)
    return server(ask, inputs, plan, watch) if plan.rate else search(ask, inputs, plan, watch)


def closed_loop(ask: Ask, inputs: Sequence[Any], plan: Plan, watch: Watch, size: int) -> Run:
    """Send the next query of ``size`` samples when the last is answered."""
    draw, keeper = drawer(plan.sample_seed, len(inputs)), Keeper(plan.sample_seed)
    latencies: list[float] = []
    first = watch()
    end = first + int(plan.seconds / NANO)
    while len(latencies) < plan.count or watch() < end:
        chosen = [draw() for _ in range(size)]
        query = [inputs[number] for number in chosen]
        start = watch()
        answers = ask(query)
        latencies.append((watch() - start) * NANO)
        keeper.offer(chosen[0], answers[0])
    return Run(np.array(latencies), size * len(latencies), (watch() - first) * NANO, keeper.kept)


def server(ask: Ask, inputs: Sequence[Any], plan: Plan, watch: Watch) -> Run:
    """Answer queries that arrive ``plan.rate`` times a second, in the order of their arrival."""
    assert plan.rate
    draw, keeper = drawer(plan.sample_seed, len(inputs)), Keeper(plan.sample_seed)
    latencies: list[float] = []
    gaps, arrival = np.random.default_rng(plan.schedule_seed), 0.0
    first, late = watch(), 0
    while len(latencies) < plan.count or arrival < plan.seconds:
        arrival += float(gaps.exponential(1 / plan.rate))
        moment, number = first + int(arrival / NANO), draw()
        late += watch() > moment
        watch.until(moment)
        answer = ask([inputs[number]])[0]
        latencies.append((watch() - moment) * NANO)
        keeper.offer(number, answer)
    extra = {"rate": plan.rate, "waited": late / len(latencies)}
    return Run(np.array(latencies), len(latencies), (watch() - first) * NANO, keeper.kept, extra)


def search(ask: Ask, inputs: Sequence[Any], plan: Plan, watch: Watch) -> Run:
    """Halve between rates to find the highest whose p99 holds the bound; the run that held at it is returned.

    A rate that does not hold is tried once more, with other arrivals.

    Rates are between none and the inverse of the mean service time, above which a queue grows without end. Where no
    rate holds, the slowest one tried is returned, with ``holds`` false.
    """
    alone = closed_loop(ask, inputs, replace(plan, seconds=min(plan.seconds, 1.0), count=32), watch, 1)
    high = 1 / max(float(alone.latencies.mean()), NANO)
    low, best, tried = 0.0, None, []
    for _ in range(SEARCHES):
        rate = (low + high) / 2
        for attempt in range(TRIES):
            found = server(ask, inputs, replace(plan, rate=rate, schedule_seed=plan.schedule_seed + attempt), watch)
            p99_ms = float(np.percentile(found.latencies, 99, method="inverted_cdf")) * 1e3
            holds = p99_ms <= plan.bound_ms
            tried.append({"rate": rate, "p99_ms": p99_ms, "holds": holds})
            if holds:
                break
        if holds:
            low, best = rate, found
        else:
            high = rate
        if high - low <= NEAR * low:
            break
    result = best or found
    result.extra |= {"tried": tried, "bound_ms": plan.bound_ms, "holds": best is not None}
    return result


def drawer(seed: int, n: int) -> Callable[[], int]:
    """Return a function that draws the next sample's number; a thousand at a time, to cost little."""
    rng = np.random.default_rng([seed, 0])
    waiting: list[int] = []

    def draw() -> int:
        if not waiting:
            waiting.extend(rng.integers(0, n, 1024).tolist())
        return waiting.pop()

    return draw
