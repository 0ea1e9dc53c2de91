"""The table in the README, made from the rows of benchmarks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from device_placement.benchmarks.markup import Table, failed_note, percent_cell
from device_placement.benchmarks.scores import Scores, median
from device_placement.envs.errors import DevicePlacementError

SINGLE = "single"  # the placer, which finds the best single
BEGIN, END = "<!-- scores -->", "<!-- /scores -->"


def compact_table(scores: Scores, suites: Sequence[str]) -> Table:
    """Median gaps in percent: a row a placer, a column a problem; †: the optimum is not known.

    Placers that found nothing valid anywhere are left out; `report` tells why.
    """
    problems = [one for one in scores.problems if one[0] in suites]
    heads = ["", *(name + ("" if scores.proven((s, name)) else " †") for s, name in problems)]
    lines = [["best single", *(percent_cell(scores.single_gap(one)) for one in problems)]]
    for placer in scores.placers:
        gaps = {one: median(scores.gaps(one, placer)) for one in problems}
        if placer == SINGLE or all(map(math.isnan, gaps.values())):
            continue
        cells = [
            percent_cell(gap) + failed_note(scores.num_failed(one, placer))
            for one, gap in gaps.items()
        ]
        lines.append([f"`{placer}`", *cells])
    return Table(heads, lines)


def with_table(text: str, table: Table) -> str:
    """A text with the table in place of what stands between the two marks.

    Raises:
        DevicePlacementError: when it lacks them.
    """
    pattern = re.compile(f"{BEGIN}\n.*?{END}", flags=re.DOTALL)
    if not pattern.search(text):
        raise DevicePlacementError(f"There is no {BEGIN} followed by {END} in the text.")
    return pattern.sub(lambda _: f"{BEGIN}\n{table.markdown()}\n{END}", text)
