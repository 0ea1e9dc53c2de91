"""Causes of failed placements: errors grouped by what they have in common."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from device_placement.envs.evaluation import Evaluation

MAX_CAUSE = 160  # characters
MAX_CAUSES = 5  # that a text lists; further ones are only counted
# Lines of OpenVINO's messages that name places in its source.
_PLACES = re.compile(r"Exception from |Check .* failed at |\[.*\.cpp")
# Parts of messages that differ from placement to placement, and what stands in their place.
_PARTICULARS = (
    (re.compile(r"0x[0-9a-fA-F]+"), "N"),
    (re.compile(r"\bop\d+_([A-Za-z]+)\w*"), r"\1"),  # an op is named by its type
    (re.compile(r"(?i)\b(subgraph|submodel)_?\d+"), r"\1"),
    (re.compile(r"(?<![\w.])-?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?(?!\w)"), "N"),
    (re.compile(r"\bN(?:, ?N\b)+"), "N"),
)


@dataclass(frozen=True)
class FailureCause:
    """Cause that several placements failed for, with one of them as an example."""

    cause: str  # the error without names and numbers, shortened
    count: int
    example: str  # the whole error of the first placement
    assignment: tuple[int, ...]  # (num_groups,) device numbers of that placement

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return dataclasses.asdict(self) | {"assignment": list(self.assignment)}


def group_failures(
    evaluations: Mapping[tuple[int, ...], Evaluation],
) -> tuple[FailureCause, ...]:
    """Return the causes of the invalid evaluations, the most frequent first.

    Args:
        evaluations: by one device per group, (num_groups,).
    """
    found: dict[str, FailureCause] = {}
    for assignment, evaluation in evaluations.items():
        if not evaluation.valid:
            cause = cause_of(evaluation.error)
            known = found.get(cause, FailureCause(cause, 0, evaluation.error, assignment))
            found[cause] = dataclasses.replace(known, count=known.count + 1)
    return tuple(sorted(found.values(), key=lambda one: -one.count))


def cause_of(error: str) -> str:
    r"""Return an error in one line, without what is particular to one placement.

    >>> cause_of("Exception from src/core.cpp:1:\nCan't set op12_Add_3 to [1,128]\n")
    "Can't set Add to [N]"
    """
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    kept = [line for line in lines if not _PLACES.match(line)] or lines[-1:]
    text = " ".join(" ".join(kept).split())
    for pattern, common in _PARTICULARS:
        text = pattern.sub(common, text)
    return text if len(text) <= MAX_CAUSE else f"{text[:MAX_CAUSE].rstrip()} ..."


def list_causes(causes: Sequence[FailureCause]) -> list[str]:
    """Return a line per cause, with how many placements failed for it.

    >>> list_causes([FailureCause("Ran out of memory", 3, "Ran out of memory", (0, 1))])
    ['3: Ran out of memory']
    """
    lines = [f"{one.count}: {one.cause}" for one in causes[:MAX_CAUSES]]
    if others := causes[MAX_CAUSES:]:
        lines.append(f"{sum(one.count for one in others)}: other causes")
    return lines


def describe_failures(causes: Sequence[FailureCause], total: int) -> str:
    """Return how many of all placements failed and why, with an example; empty if none did."""
    failed = sum(one.count for one in causes)
    if not failed:
        return ""
    example = " ".join(causes[0].example.split())
    lines = [
        f"{failed} of {total} placements failed:",
        *(f"  {one}" for one in list_causes(causes)),
    ]
    if example != causes[0].cause:
        lines.append(f"  The first in full: {example}")
    return "\n".join(lines)
