"""How a constraint program is solved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ortools.sat.python import cp_model

FULL_PORTFOLIO = 8  # workers from which on the solver's own choice of strategies is varied enough


@dataclass(frozen=True)
class Outcome:
    """What a solver found and proved."""

    solver: Any  # tells the value of each variable, where something was found
    found: bool
    bound: float  # no solution's value is less; inf: there is none, -inf: nothing proven


def solve(model: Any, seconds: float, workers: int, seed: int) -> Outcome:
    """Minimise the objective of a model.

    Args:
        model: a `CpModel`.
        seconds: the time limit.
        workers: threads; each strategy is one, so that more than there are cores may pay.
        seed: of everything random.

    >>> model = cp_model.CpModel()
    >>> number = model.new_int_var(3, 9, "")
    >>> model.minimize(2 * number)
    >>> solve(model, seconds=1.0, workers=1, seed=0).bound
    6.0
    """
    solver = cp_model.CpSolver()
    parameters = solver.parameters
    parameters.max_time_in_seconds = max(0.0, seconds)
    parameters.num_workers = workers
    parameters.random_seed = seed % 2**31
    parameters.linearization_level = 2  # the relaxations are strong
    # With presolve, OR-tools 9.15 proves wrong optima: github.com/google/or-tools/issues/5293.
    parameters.cp_model_presolve = False
    if workers >= FULL_PORTFOLIO:
        parameters.extra_subsolvers.append("lb_tree_search")
    elif workers > 1:
        parameters.subsolvers.extend(("max_lp", "lb_tree_search"))
    status = solver.solve(model)
    assert status != cp_model.MODEL_INVALID, model.validate()
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    bound = math.inf if status == cp_model.INFEASIBLE else solver.best_objective_bound
    return Outcome(solver, found, bound)
