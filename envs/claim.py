"""What was measured of a placement when it was saved: for whoever wants to check it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Claim:
    """The speed of a placement over the reference's, and how near its outputs are.

    Speed-ups are claimed, not times: they hold from day to day and, nearly, from one
    machine to its like.
    """

    reference: str  # name of the device whose single it was compared with
    speedup: float  # over it
    max_output_error: float | None = None  # relative L2 error that was allowed

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Claim:
        """The inverse of `to_json`.

        Raises:
            TypeError: when a field is missing, unknown or of the wrong kind.
        """
        claim = cls(**content)
        numbers = [claim.speedup]
        if claim.max_output_error is not None:
            numbers.append(claim.max_output_error)
        if not isinstance(claim.reference, str) or not all(map(_is_positive, numbers)):
            raise TypeError(f"a claim of {dict(content)!r}")
        return claim


def _is_positive(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and 0 <= value < math.inf
