"""Step 3: what a placement can gain at most, by the profile, over what OpenVINO does by itself."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_placement.agents.optimizing.as_it_is import AsItIs
from device_placement.agents.optimizing.profiling import FittedProfile, with_schedule
from device_placement.agents.placers.exact.cp_sat import CpSat, warm_start
from device_placement.agents.placers.neighbourhoods import neighbourhood_search
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import single_assignments
from device_placement.envs.executors import DATAFLOW, HETERO
from device_placement.envs.executors.choice import choose_executor, hardware_of
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.simulation.simulator import SimulatedEvaluator

WORTH, PERHAPS = 0.05, 0.10  # gain that is worth a search; and one that its upper end must reach
SURE = 0.05  # error of a profile; the bound of a rougher one is lowered by its error
PATIENCE, MOST_PATIENCE = 8, 128  # batches without success after which the search of a plan ends
TRUSTED = 1e-3  # relative: how close a bound and a plan are that prove each other


@dataclass(frozen=True)
class Prediction:
    """What the profile predicts under one executor."""

    executor: str  # hetero or dataflow
    gain: float  # at most, relative to the best of what OpenVINO does by itself; NaN: none
    low: float  # with the profile's error, 0 or more
    high: float
    proven: bool  # by the exact plan for the profile; else it is the best plan found for it
    reason: str = ""  # why there is none
    plan: tuple[int, ...] = ()  # (num_groups,) the best for the profile
    bound_s: float = math.nan  # in seconds of the evaluator; no placement of the profile is faster
    most: float = math.nan  # gain of that bound, where the plan is not proven

    @property
    def promising(self) -> bool:
        """Whether a search is worth its time."""
        return self.gain >= WORTH or self.high > PERHAPS

    def describe(self, best: str) -> str:
        """Return a line about it.

        >>> Prediction("hetero", 0.04, 0.0, 0.09, True).describe("all on GPU")
        'hetero: predicted at most 4 % faster than all on GPU (0 to 9), proven for the profile'
        >>> Prediction("dataflow", 0.5, 0.42, 0.6, False).describe("AUTO")
        'dataflow: predicted up to 1.50x the speed of AUTO (1.42 to 1.60), by the best plan found'
        """
        if self.reason:
            return f"{self.executor}: {self.reason}"
        how = "proven for the profile" if self.proven else "by the best plan found"
        if math.isfinite(self.most):
            how += f"; proven for the profile: at most {1 + self.most:.2f}x"
        return f"{self.executor}: predicted {self._gain(best)}, {how}"

    def _gain(self, best: str) -> str:
        if self.gain < WORTH:
            numbers = f"({percent(self.low)} to {percent(self.high)})"
            return f"at most {percent(self.gain)} % faster than {best} {numbers}"
        low, high = 1 + self.low, 1 + self.high
        return f"up to {1 + self.gain:.2f}x the speed of {best} ({low:.2f} to {high:.2f})"


@dataclass(frozen=True)
class Verdict:
    """Whether splitting this model is worth it here."""

    best: str  # the fastest of what OpenVINO does by itself
    use: str  # the simplest that is as fast, but for noise
    error: float  # of the profile
    num_placements: int  # that its fit is made of
    predictions: tuple[Prediction, ...]  # of both executors
    executor: str  # that placements are measured with
    accuracy: bool = False  # whether outputs are limited, which no prediction knows

    @property
    def of_executor(self) -> Prediction:
        """The prediction for the executor that placements are measured with."""
        return next(one for one in self.predictions if one.executor == self.executor)

    @property
    def promising(self) -> bool:
        """Whether a search is worth its time."""
        return self.of_executor.promising

    def describe(self) -> str:
        """Return it as text."""
        lines = [one.describe(self.best) for one in self.predictions]
        lines.append(
            f"the profile's own error is {percent(self.error)} % of a placement's time "
            f"({self.num_placements} placements measured)"
        )
        if self.accuracy:
            lines.append("the limit on the outputs' error is not part of the prediction")
        return "\n".join([*(f"  {one}" for one in lines), f"Verdict: {self.summary}"])

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        found, other = self.of_executor, self._better
        few = f"predicted at most {percent(found.gain)} % ({percent(found.low)} to "
        few += f"{percent(found.high)})"
        if found.gain >= WORTH:
            numbers = f"{1 + found.low:.2f} to {1 + found.high:.2f}"
            text = f"up to {1 + found.gain:.2f}x ({numbers}): continuing"
        elif found.promising:
            text = f"{few}, but the profile is too rough to rule more out: continuing"
        else:
            text = f"{few}: not worth it, use {self.use}"
        if other:
            text += f" (or try --executor {other.executor})"
        return text

    @property
    def _better(self) -> Prediction | None:
        """The other executor's prediction, if it is promising and this one is not as good."""
        mine = self.of_executor.gain
        for one in self.predictions:
            if one.executor != self.executor and one.promising and one.low > max(mine, 0.0):
                return one
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        plain = {
            "summary": self.summary,
            "best": self.best,
            "use": self.use,
            "executor": self.executor,
            "profile_error": _finite(self.error),
            "profile_placements": self.num_placements,
            "predictions": [],
        }
        for one in self.predictions:
            fields = dataclasses.asdict(one) | {"plan": list(one.plan)}
            plain["predictions"].append({k: _finite(v) for k, v in fields.items()})
        return plain


def percent(share: float) -> str:
    """Return a share in whole percent.

    >>> percent(0.042), percent(float("inf"))
    ('4', 'unknown')
    """
    return f"{100 * share:.0f}" if math.isfinite(share) else "unknown"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def judge(
    evaluator: OpenVINOEvaluator, as_it_is: AsItIs, fitted: FittedProfile, seconds: float
) -> Verdict:
    """Predict the best placement under both executors, and say whether a search is worth it.

    Args:
        evaluator: of the problem.
        as_it_is: what OpenVINO does by itself.
        fitted: the profile.
        seconds: for the exact plans.
    """
    own = evaluator.executor.name
    predictions = []
    for executor in (HETERO, DATAFLOW):
        chosen = fitted if executor == own else with_schedule(fitted, executor)
        if reason := _obstacle(evaluator, executor):
            nan = math.nan
            predictions.append(Prediction(executor, nan, nan, nan, False, reason))
        else:
            half = seconds if executor == own else seconds / 2
            predictions.append(_predict(evaluator, as_it_is, chosen, executor, half))
    return Verdict(
        as_it_is.best,
        as_it_is.recommended,
        fitted.error,
        fitted.num_placements,
        tuple(predictions),
        own,
        evaluator.config.max_output_error is not None,
    )


def _obstacle(evaluator: OpenVINOEvaluator, executor: str) -> str:
    """Return why an executor runs no two devices to their advantage; empty if it can."""
    if executor == evaluator.executor.name:
        return ""
    if executor == HETERO:
        latency = evaluator.config.objective == "latency"
        return "" if latency else "its pipeline is not predicted here"
    if len({hardware_of(one) for one in evaluator.devices}) < 2:
        return "all devices share the processor, so none would run beside another"
    try:
        choose_executor(DATAFLOW, evaluator.model, evaluator.devices, evaluator.config.objective)
    except DevicePlacementError as error:
        return str(error)
    return ""


def _predict(
    evaluator: OpenVINOEvaluator,
    as_it_is: AsItIs,
    fitted: FittedProfile,
    executor: str,
    seconds: float,
) -> Prediction:
    """Return the best plan for a profile, and what it gains.

    Predicted times are compared with the predicted time of the best single, whose measured time is
    known relative to the others: so an error that all predictions share does not count.
    """
    simulator = fitted.predictor(evaluator)
    plan, plan_s, bound_s = best_plan(simulator, seconds)
    proven = bound_s >= plan_s * (1 - TRUSTED)
    singles = [tuple(one) for one in single_assignments(evaluator).values()]
    predicted_s = simulator.evaluate_many(np.array(singles)).tolist()
    best = as_it_is.singles.index(as_it_is.best_single)
    anchor_s = predicted_s[best]
    if plan in singles:  # what was measured in turns counts
        plan_s = bound_s = anchor_s
    ratio = as_it_is.relative(as_it_is.best, as_it_is.best_single) * anchor_s / plan_s
    lowered = bound_s if fitted.error <= SURE else bound_s * max(0.0, 1 - fitted.error)
    single_s = evaluator.evaluate(singles[best]).time_s
    return Prediction(
        executor,
        gain=max(ratio - 1, 0.0),
        low=max(ratio * (1 - fitted.error) - 1, 0.0),
        high=max(ratio * (1 + fitted.error) - 1, 0.0),
        proven=proven,
        plan=plan,
        bound_s=lowered / anchor_s * single_s if proven else math.nan,
        most=math.nan if proven or bound_s <= 0 else max(ratio * plan_s / bound_s - 1, 0.0),
    )


def best_plan(
    simulator: SimulatedEvaluator, seconds: float
) -> tuple[tuple[int, ...], float, float]:
    """Return the best placement for a simulator's costs, its seconds, and a bound in seconds.

    Args:
        simulator: has the costs and the schedule.
        seconds: a limit, beyond which a started step ends.
    """
    space, deadline = SearchSpace.of(simulator), time.perf_counter() + seconds
    exact = CpSat(time_limit_s=seconds / 2, workers=max(2, os.cpu_count() or 1))
    found = exact.place(simulator, 3 + len(simulator.devices), 0)
    choice, best_s = warm_start(simulator.costs, space, simulator.schedule, seconds / 8)
    if found.assignment and found.time_s <= best_s:
        choice, best_s = np.array(found.assignment)[space.first], found.time_s
    generator, patience = np.random.default_rng(0), PATIENCE
    while not found.proven and patience <= MOST_PATIENCE and time.perf_counter() < deadline:
        choice, best_s = neighbourhood_search(
            lambda choices: simulator.evaluate_many(choices[:, space.unit]),
            choice,
            space.allowed,
            generator,
            patience,
        )
        patience *= 2
    bound_s = 0.0 if math.isnan(found.bound_s) else found.bound_s
    return tuple(space.assignment(choice)), best_s, min(bound_s, best_s)
