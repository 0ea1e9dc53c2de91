"""The fit under `dataflow` finds costs that explain the times they made."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from device_placement.envs import HardwareProfile, coarsen
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.profiling.dataflow_fit import calibrate_dataflow
from device_placement.envs.profiling.fit import Agreement
from device_placement.envs.profiling.random_placements import draw_placements
from device_placement.envs.simulation.simulator import SimulatedEvaluator
from given_profiles import given_costs, without_costs
from graphs import layered

COARSE = coarsen(layered(60, 3), "none")
SINGLES = np.arange(2)[:, None].repeat(COARSE.num_groups, axis=1)


def flowing(coarse: CoarseGraph, profile: HardwareProfile, placements: np.ndarray) -> np.ndarray:
    simulator = SimulatedEvaluator(coarse, profile.devices, profile=profile, schedule="dataflow")
    return simulator.evaluate_many(placements)


def true_costs(**changes: list[float]) -> HardwareProfile:
    """Costs of regions that matter as much as those of moves."""
    given = given_costs(COARSE, 2)
    named = {name: np.array(values) for name, values in changes.items()}
    return dataclasses.replace(given, subgraph_s=np.zeros(2), **named)


def scaled_to_singles(profile: HardwareProfile, times_s: np.ndarray) -> HardwareProfile:
    """What the profiler tells once its op times add up to the singles."""
    plain = without_costs(profile, [1.0, 1.0])
    return dataclasses.replace(
        plain,
        op_s=plain.op_s * times_s / plain.op_s.sum(axis=0),
        **dict.fromkeys(("region_s", "crossing_s"), np.zeros(2)),
        split_factor=np.ones(2),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"region_s": [3e-4, 1e-4], "crossing_s": [1e-4, 2e-4], "split_factor": [1.2, 1.4]},
        {"split_factor": [1.3, 1.0]},
        {},
    ],
)
def test_the_fit_foretells_other_placements(changes: dict[str, list[float]]) -> None:
    true = true_costs(**changes)
    drawn = np.array(draw_placements(COARSE, 100, np.random.default_rng(0)))
    seen = np.concatenate([SINGLES, drawn[:60]])
    times_s = flowing(COARSE, true, seen)
    told = scaled_to_singles(true, times_s[:2])
    fitted = calibrate_dataflow(told, COARSE, seen, times_s)
    np.testing.assert_allclose(flowing(COARSE, fitted, SINGLES), times_s[:2], rtol=0.02)
    expected_s = flowing(COARSE, true, drawn[60:])
    found = Agreement.between(flowing(COARSE, fitted, drawn[60:]), expected_s)
    before = Agreement.between(flowing(COARSE, told, drawn[60:]), expected_s)
    assert found.mean_error < 0.02 < before.mean_error
    assert found.rank_correlation > 0.98


def test_what_costs_nothing_is_nearly_free() -> None:
    free = without_costs(true_costs(), [1.0, 1.0])
    drawn = np.array(draw_placements(COARSE, 60, np.random.default_rng(0)))
    seen = np.concatenate([SINGLES, drawn])
    fitted = calibrate_dataflow(free, COARSE, seen, flowing(COARSE, free, seen))
    np.testing.assert_allclose(flowing(COARSE, fitted, drawn), flowing(COARSE, free, drawn), 0.01)
    assert (fitted.split_factor < 1.02).all()
    assert (fitted.region_s < 0.01 * free.op_s.mean(axis=0)).all()


def test_a_device_may_lack_an_op() -> None:
    true = true_costs(region_s=[3e-4, 1e-4])
    lacking = true.op_s.copy()
    lacking[5, 1] = np.nan
    true = dataclasses.replace(true, op_s=lacking)
    drawn = np.array(draw_placements(COARSE, 60, np.random.default_rng(0)))
    drawn[:, 5] = 0
    fitted = calibrate_dataflow(true, COARSE, drawn, flowing(COARSE, true, drawn))
    assert np.isnan(fitted.op_s).sum() == 1
    expected_s = flowing(COARSE, true, drawn)
    np.testing.assert_allclose(flowing(COARSE, fitted, drawn), expected_s, rtol=0.03)


def test_a_single_that_was_timed_wrongly_does_not_decide() -> None:
    true = true_costs(region_s=[3e-4, 1e-4])
    drawn = np.array(draw_placements(COARSE, 60, np.random.default_rng(0)))
    seen = np.concatenate([SINGLES, drawn])
    times_s = flowing(COARSE, true, seen)
    told = scaled_to_singles(true, times_s[:2] * [1.15, 1.0])
    times_s[0] *= 1.15
    fitted = calibrate_dataflow(told, COARSE, seen, times_s)
    assert np.abs(flowing(COARSE, fitted, drawn) / times_s[2:] - 1).mean() < 0.01
