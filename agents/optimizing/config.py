"""Options of `device-placement optimize`; light to import, so that ``--help`` is quick."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from device_placement.agents.options import HIDDEN, OptionGroups
from device_placement.agents.runs.config import SearchConfig
from device_placement.envs.errors import DevicePlacementError


@dataclass(frozen=True, kw_only=True)
class OptimizeConfig(SearchConfig):
    """Options of `device-placement optimize`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {
        HIDDEN: ("evaluator", "hardware", "profile", "schedule", "budget", "patience"),
    }

    minutes: float = 5.0
    """Time for everything; a measurement that has begun is ended."""
    verdict: bool = False
    """Stop after the verdict: what a placement can gain here at most."""
    out: str = ""
    """Folder for the result, which must not exist yet; default: a new one under runs/."""
    resume: bool = False
    """Continue in --out with its settings, for --minutes more; nothing is measured twice."""
    max_groups: int | None = 128
    """Merge groups until at most this many remain."""
    max_seconds: float | None = 2.0
    """Start no further sample of a placement after this time."""
    tolerance_growth: float | None = 1.0
    """Let the tolerance grow with the distance from the best time: stop sampling also when the
    interval is narrower than this multiple of its distance from the best; 0: never."""
    give_up_factor: float | None = 2.0
    """Stop a measurement when it is clearly slower than this multiple of the best time."""
    confirmations: int | None = 0
    """How often a new best placement is compiled and timed again before it counts; the fastest ones
    are measured again in turns at the end."""
    verify: bool = True
    """Compare each placement's outputs with those of the reference."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.minutes < math.inf:
            raise DevicePlacementError(f"Got minutes={self.minutes!r}; give a number above 0.")
        if self.rounds < 1:
            raise DevicePlacementError(
                f"Got rounds={self.rounds}; the result is measured again in turns, so give 1 or "
                "more."
            )
