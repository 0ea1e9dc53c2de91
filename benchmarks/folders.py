"""What lies in folders of benchmarks, put together where it can be compared."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from device_placement.benchmarks.csv_file import read_lines
from device_placement.benchmarks.records import ROWS, Key, ProblemKey, RunRow, latest, read_rows
from device_placement.benchmarks.sessions import check_comparable, read_sessions
from device_placement.envs.errors import DevicePlacementError

REPLAYS = "replay.csv"


def read_folders(folders: Sequence[str], *, replayed: bool = False) -> list[RunRow]:
    """The runs in some folders, each once, in a fixed order.

    Args:
        folders: of benchmarks.
        replayed: leave out what did not reproduce, and say so on stderr.

    Raises:
        DevicePlacementError: when a folder has no runs, or some that were not replayed though
            that was asked for; when folders have the same run, or runs that can't be compared.
    """
    check_comparable([one for folder in folders for one in read_sessions(Path(folder))])
    rows: dict[Key, RunRow] = {}
    for folder in folders:
        found = latest(read_rows(str(Path(folder) / ROWS)))
        if not found:
            raise DevicePlacementError(
                f"There are no runs in {folder!r}; give the --out of a benchmark."
            )
        for row in _reproduced(folder, found) if replayed else found:
            if row.key in rows:
                raise DevicePlacementError(
                    f"{row.placer} on {row.problem} with the seed {row.seed} is in {folder!r} and "
                    "in a folder before it; give one of them."
                )
            rows[row.key] = row
    check_budgets({(row.suite, row.problem): row.budget for row in rows.values()}, rows.values())
    return latest([*rows.values()])


def check_budgets(budgets: Mapping[ProblemKey, int], rows: Iterable[RunRow]) -> None:
    """Check that runs had these budgets.

    Raises:
        DevicePlacementError: when one had another.
    """
    for row in rows:
        if (budget := budgets.get((row.suite, row.problem), row.budget)) != row.budget:
            raise DevicePlacementError(
                f"{row.placer} on {row.problem} was run with a budget of {row.budget}, others with "
                f"{budget}; runs are compared with the same --budget, in another --out."
            )


def read_replays(path: str) -> dict[Key, bool]:
    """Whether each row that was replayed reproduces."""
    return {
        (line["suite"], line["problem"], line["placer"], int(line["seed"])): (
            line["reproduces"] == "yes"
        )
        for line in read_lines(path)
    }


def _reproduced(folder: str, rows: Sequence[RunRow]) -> list[RunRow]:
    """Without those that were replayed and did not reproduce; failed ones stay."""
    known = read_replays(str(Path(folder) / REPLAYS))
    missing = sum(not row.failure and row.key not in known for row in rows)
    if missing:
        raise DevicePlacementError(
            f"{missing} of the {len(rows)} runs in {folder!r} were not replayed; do that first: "
            f"device-placement replay {folder}"
        )
    left_out = sum(not known.get(row.key, True) for row in rows)
    if left_out:
        print(f"{left_out} runs in {folder} did not reproduce and are left out", file=sys.stderr)
    return [row for row in rows if known.get(row.key, True)]
