"""Tables as Markdown, HTML and CSV."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass


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
        head = "".join(f"<th>{_inline(one)}</th>" for one in self.heads)
        body = "".join(
            "<tr>" + "".join(f"<td>{_inline(cell)}</td>" for cell in line) + "</tr>"
            for line in self.lines
        )
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _inline(cell: str) -> str:
    """Escaped; what stands in backticks is code."""
    parts = html.escape(cell).split("`")
    return "".join(f"<code>{part}</code>" if odd % 2 else part for odd, part in enumerate(parts))
