"""What a run may spend, and when it has waited long enough for something better."""

from __future__ import annotations

from dataclasses import dataclass

from device_placement.envs.errors import DevicePlacementError

REQUESTS_PER_BUDGET = 10


class BudgetError(DevicePlacementError):
    """More evaluations than the budget has."""


@dataclass
class Budget:
    """Counts what a run asks for, of one model or of several together.

    >>> budget = Budget(limit=4, patience=2)
    >>> for improves in (True, False, False):
    ...     budget.count(improves)
    >>> budget.spent, budget.out_of_patience
    (True, True)
    """

    limit: int
    """Distinct placements that may be asked for, singles included; a run also ends after ten
    times as many requests."""
    patience: int | None = None
    """Distinct placements in a row without a new best of their model, after which it ends."""
    num_distinct: int = 0
    num_requests: int = 0
    num_since_best: int = 0
    """Distinct placements since the last one that was better than all before of its model."""

    @property
    def out_of_patience(self) -> bool:
        """Whether the last new best is too long ago."""
        return self.patience is not None and self.num_since_best >= self.patience

    @property
    def spent(self) -> bool:
        """Whether the run has to end."""
        return (
            self.num_distinct >= self.limit
            or self.num_requests >= REQUESTS_PER_BUDGET * self.limit
            or self.out_of_patience
        )

    def count(self, improves: bool) -> None:
        """Count a distinct placement, and whether it is better than all before of its model."""
        self.num_distinct += 1
        self.num_since_best = 0 if improves else self.num_since_best + 1


def check_budget(budget: int, num_singles: int, patience: int | None = None) -> None:
    """Check that budget and patience leave something besides the singles.

    Raises:
        DevicePlacementError: when they do not.
    """
    if budget <= num_singles:
        raise DevicePlacementError(
            f"Got a budget of {budget}; {num_singles} of it go to the singles, so it must be at "
            f"least {num_singles + 1}."
        )
    if patience is not None and patience < num_singles:
        raise DevicePlacementError(
            f"Got a patience of {patience}; the {num_singles} singles alone may bring no new best, "
            f"so it must be at least {num_singles}."
        )
