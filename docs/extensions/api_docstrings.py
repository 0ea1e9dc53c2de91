"""Adapt docstrings, parts of which are Markdown, to the API pages, which read reStructuredText."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sphinx.application import Sphinx

BEFORE_NAPOLEON = 100
ENVIRONMENT = "DevicePlacementEnv"
SEE = "Spaces, rewards and arguments are on the page of each id: :doc:`/environments/index`."


def restructured(lines: Sequence[str]) -> list[str]:
    """Return a docstring with its Markdown headings and tables as reStructuredText."""
    result: list[str] = []
    rows: list[list[str]] = []
    for line in [*lines, ""]:
        indent = line[: len(line) - len(line.lstrip())]
        if line.lstrip().startswith("|") and line.rstrip().endswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
            continue
        if rows:
            result += [*_list_table(rows), ""]
            rows = []
        heading = re.fullmatch(r"#+ (.+)", line.strip())
        result.append(f"{indent}**{heading[1]}**" if heading else line)
    return result


def _list_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table; a row whose first cell is empty continues the row above."""
    joined: list[list[str]] = []
    for row in rows:
        if set("".join(row)) <= set("-: ") and any(row):
            continue
        if joined and not row[0]:
            joined[-1] = [" ".join(pair).strip() for pair in zip(joined[-1], row, strict=True)]
        else:
            joined.append(list(row))
    lines = ["", ".. list-table::", "   :header-rows: 1", ""]
    for row in joined:
        lines += [f"   {'*' if not number else ' '} - {cell}" for number, cell in enumerate(row)]
    return lines


def _adapt(app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    if kind == "class" and name.endswith(f".{ENVIRONMENT}"):
        lines[:] = [lines[0], "", SEE, ""]
    lines[:] = restructured(lines)
    if kind in ("attribute", "data", "property") and ":" in lines[0]:
        lines[0] = f": {lines[0]}"  # napoleon reads what precedes the first colon as the type


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the change of docstrings."""
    app.connect("autodoc-process-docstring", _adapt, priority=BEFORE_NAPOLEON)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
