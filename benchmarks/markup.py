"""Tables as Markdown and HTML, and what stands in their cells."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NOTHING = "-"  # in a cell


@dataclass(frozen=True)
class Table:
    """Cells of text.

    >>> print(Table(["a", "b"], [["1", "`2`"]]).markdown())
    | a | b |
    | --- | --- |
    | 1 | `2` |
    """

    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    caption: str = ""

    def markdown(self) -> str:
        """As Markdown, the caption as a paragraph above."""
        rows = [self.heads, ["---"] * len(self.heads), *self.lines]
        text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        return f"{self.caption}\n\n{text}" if self.caption else text

    def html(self) -> str:
        """As HTML."""
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        head = "".join(f"<th>{inline(one)}</th>" for one in self.heads)
        body = "".join(
            "<tr>" + "".join(f"<td>{inline(cell)}</td>" for cell in line) + "</tr>"
            for line in self.lines
        )
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def number_cell(number: float, form: str = ".1f") -> str:
    """A number, where there is one.

    >>> number_cell(2.345), number_cell(float("nan"))
    ('2.3', '-')
    """
    return format(number, form) if math.isfinite(number) else NOTHING


def percent_cell(share: float) -> str:
    """A share in percent; what rounding made negative is zero.

    >>> percent_cell(0.0123), percent_cell(-1e-12)
    ('1.2', '0.0')
    """
    return number_cell(100 * max(0.0, share)) if math.isfinite(share) else NOTHING


def interval_cell(value: float, low: float, high: float, form: str = ".3f") -> str:
    """A number and what it is between.

    >>> interval_cell(0.912, 0.9, 0.92)
    '0.912 (0.900-0.920)'
    """
    return f"{value:{form}} ({low:{form}}-{high:{form}})" if math.isfinite(value) else NOTHING


def quartiles_cell(numbers: Sequence[float], form: str = ".3f") -> str:
    """A median and the quartiles.

    >>> quartiles_cell([1.0, 2.0, 4.0]), quartiles_cell([])
    ('2.000 (1.500-3.000)', '-')
    """
    if not numbers or not np.isfinite(numbers).all():
        return NOTHING
    low, high = np.quantile(numbers, [0.25, 0.75])
    return interval_cell(statistics.median(numbers), low, high, form)


def gap_cell(gaps: Sequence[float]) -> str:
    """A median and, where they differ, the quartiles, in percent.

    >>> gap_cell([0.01, 0.02, 0.04]), gap_cell([0.5]), gap_cell([])
    ('2.0 (1.5-3.0)', '50.0', '-')
    """
    if not gaps or not np.isfinite(gaps).all():
        return NOTHING
    percents = [100 * max(0.0, gap) for gap in gaps]
    differ = np.ptp(np.quantile(percents, [0.25, 0.75])) > 0.05
    return quartiles_cell(percents, ".1f") if differ else number_cell(statistics.median(percents))


def failed_note(number: int) -> str:
    """What follows in a cell when some of the runs failed.

    >>> failed_note(0), failed_note(2)
    ('', ', 2 failed')
    """
    return f", {number} failed" if number else ""


def inline(text: str) -> str:
    """As HTML: escaped, what stands in backticks as code.

    >>> inline("`a` < b")
    '<code>a</code> &lt; b'
    """
    parts = html.escape(text).split("`")
    return "".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(parts))
