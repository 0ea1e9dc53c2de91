"""The time of the best placement, where it is known at once."""

from __future__ import annotations

from device_placement.agents.placers.knowledge import innermost
from device_placement.agents.placers.min_cut import MinimumCut
from device_placement.envs.execution.evaluation import NAN, Evaluator
from device_placement.envs.execution.simulator import SimulatedEvaluator


def known_optimum_s(evaluator: Evaluator) -> float:
    """The seconds of the best placement, or NaN where it is not known at once.

    It is where two devices are simulated one after the other: a minimum cut proves it in a
    fraction of a second. Nothing of it is told to who searches.

    Args:
        evaluator: of a model, recording or not; nothing is recorded.

    >>> from device_placement.envs import make_evaluator
    >>> f"{known_optimum_s(make_evaluator('inception_v3', evaluator='simulator')):.6f}"
    '0.005331'
    >>> known_optimum_s(make_evaluator("diamond", evaluator="simulator", schedule="concurrent"))
    nan
    """
    inner = innermost(evaluator)
    if not isinstance(inner, SimulatedEvaluator):
        return NAN
    if len(inner.devices) != 2 or inner.schedule != "sequential":
        return NAN
    found = MinimumCut().place(inner, budget=3, seed=0)
    return found.time_s if found.proven else NAN
