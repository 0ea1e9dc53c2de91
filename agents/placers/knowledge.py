"""What a placer may know of an evaluator besides the times that it gives."""

from __future__ import annotations

from device_placement.agents.recording import RecordingEvaluator
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.execution.costs import Costs
from device_placement.envs.execution.evaluation import Evaluator


def innermost(evaluator: Evaluator) -> Evaluator:
    """The evaluator itself, without those that record what it does."""
    while isinstance(evaluator, RecordingEvaluator):
        evaluator = evaluator.inner
    return evaluator


def costs_of(evaluator: Evaluator) -> Costs | None:
    """The costs that an evaluator computes with; None for one that measures."""
    costs: Costs | None = getattr(innermost(evaluator), "costs", None)
    return costs


def needed_costs(evaluator: Evaluator) -> Costs:
    """The costs that an evaluator computes with, for a placer that plans from them.

    Raises:
        DevicePlacementError: for an evaluator that measures.
    """
    costs = costs_of(evaluator)
    if costs is None:
        raise DevicePlacementError(
            f"This placer plans from costs, and {type(innermost(evaluator)).__name__} has none; "
            "use evaluator='simulator', or a placer that searches, as local_search."
        )
    return costs
