"""Validation of a placement: measure it again, and compare time and outputs with its claim."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import openvino as ov

from device_placement.envs.evaluation import (
    NAN,
    Evaluation,
    Evaluator,
    single_assignments,
)
from device_placement.envs.graph.computation_graph import IN_F32
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.inputs import Samples
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator, as_measuring
from device_placement.envs.measuring.program import Program, is_stateful
from device_placement.envs.measuring.verification import ERROR_FLOOR, output_difference
from device_placement.envs.placement import Claim, Placement

TIME_SLACK = 0.05  # may be slower than claimed by this share
ERROR_SLACK = 2.0  # two roundings may differ by twice what one differs from the exact value
MOST_ERROR = 0.5  # relative; outputs of nothing but zeros have 1


@dataclass(frozen=True)
class Validation:
    """Result of measuring and checking a placement again."""

    evaluation: Evaluation  # of the placement, now
    reference: str  # the device whose single it was compared with
    reference_s: float
    best_single: str
    best_single_s: float
    claimed_speedup: float  # over the reference; NaN: nothing was claimed
    allowed_error: float  # relative L2 error of the outputs
    other_inputs: bool = False  # its speed-up was claimed for other inputs
    claimed_error: float = NAN  # that the claim would allow; NaN: it says nothing

    @property
    def speedup(self) -> float:
        """The measured speed-up over the reference."""
        return self.reference_s / self.evaluation.time_s

    @property
    def time_holds(self) -> bool:
        """Whether it is as fast as claimed, or without a claim, as fast as the best single."""
        limit_s = self.best_single_s
        if not math.isnan(self.claimed_speedup):
            limit_s = self.reference_s / self.claimed_speedup
        return self.evaluation.valid and self.evaluation.interval_s[0] <= limit_s * (1 + TIME_SLACK)

    @property
    def judged(self) -> bool:
        """Whether the outputs could be compared: the reference's do not differ between runs."""
        return not self.evaluation.unverified

    @property
    def outputs_hold(self) -> bool:
        """Whether the error of the outputs is within the allowed one; False if not judged."""
        return self.evaluation.valid and self.evaluation.output_error <= self.allowed_error

    @property
    def holds(self) -> bool:
        """Whether time and outputs hold."""
        return self.time_holds and self.outputs_hold

    def _more(self) -> str:
        """Return how to allow as much as the claim does, if that is more; or ""."""
        if not self.claimed_error > self.allowed_error:
            return ""
        return f" (the claim allows {self.claimed_error:.3g}; to do so: --max-output-error)"

    def report(self) -> str:
        """Return the result as text."""
        found = self.evaluation
        if not found.valid:
            return f"does not run: {found.error}"
        low, high = found.interval_s
        claim = "no speed-up was claimed, so the best single is the limit"
        if self.other_inputs:
            claim = "its claim is for other inputs, so the best single is the limit"
        if not math.isnan(self.claimed_speedup):
            claim = f"{self.claimed_speedup:.3f}x was claimed"
        return "\n".join(
            [
                f"time     {1e3 * found.time_s:.3f} ms ({1e3 * low:.3f} - {1e3 * high:.3f}), "
                f"{found.num_subgraphs} subgraphs",
                f"         {self.speedup:.3f}x the speed of all on {self.reference} "
                f"({1e3 * self.reference_s:.3f} ms); {claim}",
                f"         {self.best_single_s / found.time_s:.3f}x the speed of the best single, "
                f"{self.best_single} ({1e3 * self.best_single_s:.3f} ms)",
                f"         {_verdict(self.time_holds)}",
                *self._report_outputs(),
            ]
        )

    def _report_outputs(self) -> list[str]:
        found = self.evaluation
        if not self.judged:
            return [f"outputs  {found.unverified}", "         CAN'T BE JUDGED"]
        return [
            f"outputs  relative L2 error {found.output_error:.3g}, cosine "
            f"{found.output_cosine:.7f}; {self.allowed_error:.3g} is allowed{self._more()}",
            f"         {_verdict(self.outputs_hold)}",
        ]


def claim_of(evaluator: Evaluator, reference: int, speedup: float) -> Claim | None:
    """Return what a measured speed-up over the reference claims; None for a predicted one."""
    if not evaluator.measures:
        return None
    measuring = as_measuring(evaluator)
    name = measuring.devices[reference].name
    return Claim(name, speedup, measuring.config.max_output_error, measuring.given_inputs)


def validate_placement(evaluator: Evaluator, placement: Placement) -> Validation:
    """Measure a placement and the singles again, and check its outputs against the reference's.

    Nothing is taken from the store, and nothing that the claim says loosens the check: the allowed
    output error is the evaluator's, else twice that of the worst single, or twice that of the
    reference against f32, and at most `MOST_ERROR`. A claim of a smaller error is held to it.

    Args:
        evaluator: has the model, the devices and the way to measure; its cache is not used.
        placement: for that model; its claim is checked if it is over the same reference and for
            the same inputs.

    Raises:
        PlacementError: when the placement is not for this model, these groups or devices.
        DevicePlacementError: when the evaluator does not measure.
    """
    evaluator = as_measuring(evaluator)
    assignment = placement.with_devices(evaluator.devices).to_groups(evaluator.coarse)
    claim, reference = placement.claim, evaluator.config.reference
    if claim is not None and reference not in ("", claim.reference):
        claim = None
    other_inputs = claim is not None and claim.inputs != evaluator.given_inputs
    if claim is not None:
        reference = claim.reference
    fresh = _fresh(evaluator, dataclasses.replace(evaluator.config, reference=reference))
    with contextlib.closing(fresh):
        singles = [fresh.evaluate(single) for single in single_assignments(fresh).values()]
        found = fresh.evaluate(assignment)
        allowed_error = allowed_output_error(fresh, singles, evaluator.config.max_output_error)
    claimed_error = None if claim is None else claim.max_output_error
    valid = [number for number, single in enumerate(singles) if single.valid]
    best = min(valid, key=lambda number: singles[number].time_s, default=fresh.reference)
    return Validation(
        evaluation=found,
        reference=str(fresh.devices[fresh.reference]),
        reference_s=singles[fresh.reference].time_s,
        best_single=str(fresh.devices[best]),
        best_single_s=singles[best].time_s,
        claimed_speedup=NAN if claim is None or other_inputs else claim.speedup,
        allowed_error=min(allowed_error, math.inf if claimed_error is None else claimed_error),
        other_inputs=other_inputs,
        claimed_error=NAN if claimed_error is None else claimed_error,
    )


def allowed_output_error(
    evaluator: OpenVINOEvaluator, singles: Sequence[Evaluation], limit: float | None
) -> float:
    """Return the relative error that outputs may have.

    Args:
        evaluator: of the problem.
        singles: whose outputs were compared with the reference's.
        limit: what was asked for; None: twice the error of the worst single, or twice that of the
            reference against f32, and at most `MOST_ERROR`.
    """
    if limit is not None:
        return limit
    errors = [one.output_error for one in singles if one.valid and not math.isnan(one.output_error)]
    errors.append(_rounding_error(evaluator))
    return min(ERROR_FLOOR + ERROR_SLACK * max(errors), MOST_ERROR)


def _fresh(evaluator: OpenVINOEvaluator, config: MeasureConfig) -> OpenVINOEvaluator:
    """Return an evaluator of the same problem that ignores the cache and verifies outputs."""
    return OpenVINOEvaluator(
        evaluator.model,
        evaluator.coarse,
        evaluator.devices,
        config,
        where=evaluator.target,
        inputs=evaluator.samples,
        store=None,
        timing="paired",
        tolerance_growth=0.0,
        give_up_factor=math.inf,
        remeasure=True,
        verify=True,
        max_output_error=None,
    )


def _rounding_error(evaluator: OpenVINOEvaluator) -> float:
    """Return how the reference's outputs differ from those in f32; 0 if it can't compute in f32.

    The pieces of a model round otherwise than the whole, also on devices of one precision.
    """
    device = evaluator.devices[evaluator.reference].name
    return evaluator.call(rounding_error, device, evaluator.samples)


def rounding_error(core: ov.Core, model: ov.Model, device: str, inputs: Samples) -> float:
    """Return how a device's outputs differ from those in f32; 0 if it can't compute in f32."""
    outputs = []
    try:
        # In a thread of its own, as compiling may change how the calling one rounds.
        with ThreadPoolExecutor(1) as thread:
            for config in ({}, IN_F32):
                compiled = thread.submit(core.compile_model, model.clone(), device, config).result()
                samples = inputs.tensors(compiled)
                program = Program(compiled, samples, lambda _: NAN, 0.0, is_stateful(model))
                outputs.append(thread.submit(getattr, program, "outputs").result())
    except RuntimeError:
        return 0.0
    error, _ = output_difference(*outputs)
    return 0.0 if math.isnan(error) else error


def _verdict(holds: bool) -> str:
    return "holds" if holds else "DOES NOT HOLD"
