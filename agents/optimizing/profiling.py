"""Step 2: a profile within a time limit, fitted to a few placements, and its own error."""

from __future__ import annotations

import dataclasses
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from device_placement.envs.cost_features import KnownCosts
from device_placement.envs.executors import HETERO
from device_placement.envs.executors.choice import hardware_of
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.profiling.fit import Agreement
from device_placement.envs.profiling.measured_profile import HELD_OUT, profile_runs, profile_with
from device_placement.envs.profiling.random_placements import draw_placements
from device_placement.envs.simulation.profile import HardwareProfile
from device_placement.envs.simulation.simulator import SimulatedEvaluator
from device_placement.envs.untrusted import check_count, reading

LEAST, MOST = HELD_OUT, 20  # random placements that a profile is fitted to
TRIED = 4  # of them, to check a profile that is not fitted
SHARED = "sequential"  # requests in flight share the processor, so loads add up
LATENCY = "latency"


@dataclass(frozen=True)
class FittedProfile:
    """Profile, the schedule that predicts with it, and how far it is off."""

    profile: HardwareProfile
    schedule: str  # a name of `SCHEDULES`
    error: float  # relative, of predicted times
    num_placements: int  # that the error was seen on, or the fit made of
    tried: tuple[tuple[int, ...], ...] = ()  # placements that were measured for it

    def save(self, path: Path) -> None:
        """Write it as a profile whose provenance has the rest."""
        own = {
            "schedule": self.schedule,
            "error": self.error if math.isfinite(self.error) else None,
            "num_placements": self.num_placements,
        }
        provenance = {**self.profile.provenance, "optimize": own}
        replace(self.profile, provenance=provenance).save(path)

    @classmethod
    def load(cls, path: Path, evaluator: OpenVINOEvaluator) -> FittedProfile:
        """Read what `save` wrote, for the evaluator's devices.

        Raises:
            DevicePlacementError: when it is of another model or machine, or is none.
        """
        profile = HardwareProfile.load(path, evaluator.devices)
        with reading(path, "a profile of an optimization", "start again with another --out."):
            own = profile.provenance["optimize"]
            error = math.inf if own["error"] is None else float(own["error"])
            found = cls(profile, str(own["schedule"]), error, check_count(own["num_placements"]))
            found.predictor(evaluator)  # fails if it does not fit
        return found

    @property
    def knows_transfers(self) -> bool:
        """Whether the costs of transfers are fitted."""
        return "formula" in self.profile.provenance

    def known_costs(self, coarse: CoarseGraph) -> KnownCosts:
        """Return the costs of some groups, as agents see them."""
        return KnownCosts(self.profile.costs(coarse), self.schedule, self.knows_transfers)

    def predictor(self, evaluator: OpenVINOEvaluator, schedule: str = "") -> SimulatedEvaluator:
        """Return a simulator of the evaluator's placements; its own schedule by default."""
        return SimulatedEvaluator(
            evaluator.coarse,
            evaluator.devices,
            profile=self.profile,
            schedule=schedule or self.schedule,
        )


def fit_profile(evaluator: OpenVINOEvaluator, seed: int, deadline: float) -> FittedProfile:
    """Profile every device, and fit the costs of transfers and regions to random placements.

    For the throughput only the singles and one profiled run per device are known: transfers cost
    nothing in it, and a few placements show how far that is off.

    Args:
        evaluator: of the problem.
        seed: of the placements.
        deadline: on `time.monotonic`, after which no placement beyond `LEAST` is measured.

    Raises:
        DevicePlacementError: when a device can't be profiled, or most placements fail.
    """
    if evaluator.config.objective != LATENCY:
        return _unfitted(evaluator, seed)
    tried: list[tuple[int, ...]] = []

    def progress(placements: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
        least = len(evaluator.devices) + LEAST
        for one in sorted(placements, key=_num_changes):
            if len(tried) >= least and time.monotonic() > deadline:
                return
            tried.append(one)
            yield one

    profile = profile_with(evaluator, MOST, seed, progress)
    return FittedProfile(
        profile,
        profile.provenance["schedule"],
        _error_of(profile),
        profile.provenance["num_fitted"] + profile.provenance["num_held_out"],
        tuple(one for one in tried if len(set(one)) > 1),
    )


def _num_changes(placement: Sequence[int]) -> int:
    """Return how often neighbouring groups are on different devices.

    Singles have none. The fewer there are, the sooner a placement is compiled, and the more it is
    like good ones.
    """
    return sum(one != other for one, other in itertools.pairwise(placement))


def _error_of(profile: HardwareProfile) -> float:
    """Return the mean relative error on the held-out placements."""
    error = profile.provenance["held_out_mean_error"]
    return math.inf if error is None else float(error)


def _unfitted(evaluator: OpenVINOEvaluator, seed: int) -> FittedProfile:
    """Return a profile of the singles, and its error on a few placements."""
    profile = profile_runs(evaluator)
    shared = len({hardware_of(device) for device in evaluator.devices}) < 2
    found = FittedProfile(profile, SHARED if shared else "pipelined", 0.0, TRIED)
    drawn = draw_placements(evaluator.coarse, TRIED, np.random.default_rng(seed))
    measured_s = np.array([evaluator.evaluate(one).time_s for one in drawn])
    ran = ~np.isnan(measured_s)
    if not ran.any():
        return replace(found, error=math.inf, num_placements=0)
    predicted_s = found.predictor(evaluator).evaluate_many(np.array(drawn)[ran])
    error = Agreement.between(predicted_s, measured_s[ran]).mean_error
    return replace(found, error=error, num_placements=int(ran.sum()), tried=tuple(drawn))


def with_schedule(fitted: FittedProfile, executor: str) -> FittedProfile:
    """Return the same costs under the schedule of the other executor.

    Under HETERO each region is a subgraph, and no device is shared while it runs.
    """
    if executor != HETERO:
        return replace(fitted, schedule="dataflow")
    profile = dataclasses.replace(fitted.profile, subgraph_s=fitted.profile.region_s)
    return replace(fitted, profile=profile, schedule="sequential")
