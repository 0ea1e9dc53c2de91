"""Convert the raw measurements of a placement to its evaluation."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

from device_placement.envs.evaluation import NAN, Evaluation, Measurement
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.timing import Pairs, median_interval, relative_samples


def evaluate_measurements(
    measurements: Sequence[Measurement], reference_s: float, config: MeasureConfig
) -> Evaluation | None:
    """Return the combined evaluation of several measurements of one placement.

    The time is the median ratio of candidate and reference times the reference's time,
    over the sample pairs of all measurements; or the candidate's median if it ran alone.

    Args:
        measurements: of one placement under one protocol, oldest first.
        reference_s: the fixed time of the reference.
        config: whether outputs must be checked, and the error that is allowed.

    Returns:
        None if they are insufficient: no samples, or no output error although one is needed.
        Marked as cut short if every timing was; whether to time it again depends on the best so
        far.
    """
    if not measurements:
        return None
    last = measurements[-1]
    if last.error:
        return Evaluation.invalid(last.error, last.compile_s)
    checked = [one for one in measurements if one.unverifiable or not math.isnan(one.output_error)]
    if config.verifies and not checked:
        return None
    error, cosine = (checked[-1].output_error, checked[-1].output_cosine) if checked else (NAN, NAN)
    unverified = unverifiable(cosine) if checked and checked[-1].unverifiable else ""
    # A timing that was cut short does not count if another one was not.
    timed = [one for one in measurements if one.pairs]
    whole = [one for one in timed if not one.cut_short]
    pairs = [pair for one in whole or timed for pair in one.pairs]
    if error > config.error_limit:
        evaluation = Evaluation.invalid(_too_far(error, config), last.compile_s)
    elif pairs:
        evaluation = _timed(pairs, reference_s)
    else:
        return None
    return dataclasses.replace(
        evaluation,
        num_subgraphs=last.num_subgraphs,
        compile_s=last.compile_s,
        run_s=last.run_s,
        cut_short=bool(timed) and not whole,
        output_error=error,
        output_cosine=NAN if unverified else cosine,
        unverified=unverified,
    )


def unverifiable(cosine: float) -> str:
    """Return why outputs can't be verified, from the cosine of two runs of the reference."""
    return (
        "The reference's outputs differ between two runs, as with random numbers (cosine "
        f"{cosine:.3g}), so outputs can't be compared."
    )


def _timed(pairs: Pairs, reference_s: float) -> Evaluation:
    scale = 1.0 if math.isnan(pairs[0][1]) else reference_s
    samples = (scale * relative_samples(pairs)).tolist()
    return Evaluation(
        time_s=statistics.median(samples),
        samples_s=tuple(samples),
        interval_s=median_interval(samples),
    )


def _too_far(error: float, config: MeasureConfig) -> str:
    return (
        f"The outputs differ from the reference's by {error:.3g} in relative L2 norm; "
        f"max_output_error={config.max_output_error:g} is allowed."
    )
