"""Clock of an optimization: time that is left, lines of progress, a budget that ends with it."""

from __future__ import annotations

import time
from dataclasses import dataclass

from device_placement.agents.runs.recording import Budget

NO_LIMIT = 10**9  # placements: the clock ends the search


class Clock:
    """Time of an optimization, from its beginning.

    Args:
        seconds: for everything.
    """

    def __init__(self, seconds: float) -> None:
        self.start = time.monotonic()
        self.seconds = seconds

    @property
    def elapsed_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.start

    @property
    def left_s(self) -> float:
        """Seconds that are left, 0 or more."""
        return max(0.0, self.seconds - self.elapsed_s)

    def say(self, text: str) -> None:
        """Print a line of progress, with the time that is left."""
        print(f"[{minutes(self.elapsed_s)}, {minutes(self.left_s)} left] {text}", flush=True)


def minutes(seconds: float) -> str:
    """Return seconds as minutes and seconds.

    >>> minutes(75.2)
    '1:15'
    """
    whole = int(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


@dataclass
class TimedBudget(Budget):
    """Budget that also ends at a time, or once a bound is reached."""

    limit: int = NO_LIMIT
    deadline: float = 0.0
    """On `time.monotonic`."""
    bound_reached: bool = False
    """Whether no placement can be faster than the best one."""

    @property
    def spent(self) -> bool:
        """Whether the search has to end."""
        return super().spent or self.bound_reached or time.monotonic() >= self.deadline
