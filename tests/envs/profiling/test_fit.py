"""The fit finds the costs that times were made of."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from device_placement.envs import coarsen
from device_placement.envs.profiling.fit import MIN_FACTOR, Agreement, calibrate
from device_placement.envs.profiling.random_placements import draw_placements
from given_profiles import given_costs, predict, without_costs
from graphs import layered


@pytest.mark.parametrize(("num_devices", "count"), [(2, 40), (3, 120)])
def test_the_fit_recovers_known_costs(num_devices: int, count: int) -> None:
    graph = layered(90, 3)
    graph = dataclasses.replace(
        graph,
        devices=tuple(f"CPU.{number}" for number in range(num_devices)),
        supported=np.ones((graph.num_ops, num_devices), dtype=np.bool_),
    )
    coarse = coarsen(graph, "none")
    true = given_costs(coarse, num_devices)
    placements = np.array(draw_placements(coarse, count, np.random.default_rng(0)))
    times_s = predict(coarse, true, placements)
    told = without_costs(true, [1.5, 0.7, 1.0][:num_devices])
    fitted = calibrate(told, coarse, placements, times_s)
    for name in ("op_s", "latency_s", "bytes_per_s", "subgraph_s"):
        np.testing.assert_allclose(getattr(fitted, name), getattr(true, name), rtol=1e-6)

    disturbed = times_s * np.where(np.arange(count) % 10 == 0, 1.4, 1.0)
    fitted = calibrate(told, coarse, placements, disturbed)
    predicted_s = predict(coarse, fitted, placements)
    np.testing.assert_allclose(predicted_s, times_s, rtol=0.02)


def test_what_costs_nothing_is_fitted_as_free() -> None:
    coarse = coarsen(layered(60, 3), "none")
    free = without_costs(given_costs(coarse, 2), [1.0, 1.0])
    placements = np.array(draw_placements(coarse, 40, np.random.default_rng(0)))
    fitted = calibrate(
        without_costs(free, [2.0, 2.0]), coarse, placements, predict(coarse, free, placements)
    )
    assert not fitted.latency_s.any()
    assert np.isinf(fitted.bytes_per_s).all()
    assert not fitted.subgraph_s.any()
    np.testing.assert_allclose(fitted.op_s, free.op_s, rtol=1e-5)


def test_no_fit_makes_work_free() -> None:
    coarse = coarsen(layered(30, 3), "none")
    told = without_costs(given_costs(coarse, 2), [1.0, 1.0])
    placements = np.array(draw_placements(coarse, 20, np.random.default_rng(0)))
    singles = np.arange(2)[:, None].repeat(coarse.num_groups, axis=1)
    times_s = [*np.full(20, 1e-9), 1.0, 1.0]  # as if only the singles took any time
    fitted = calibrate(told, coarse, np.concatenate([placements, singles]), times_s)
    np.testing.assert_allclose(fitted.op_s, MIN_FACTOR * told.op_s)


def test_a_device_that_no_placement_uses_keeps_its_op_times() -> None:
    coarse = coarsen(layered(30, 3), "none")
    true = given_costs(coarse, 2)
    alone = np.zeros((1, coarse.num_groups), dtype=np.int64)
    told = without_costs(true, [2.0, 3.0])
    fitted = calibrate(told, coarse, alone, predict(coarse, true, alone))
    np.testing.assert_array_equal(fitted.op_s[:, 1], told.op_s[:, 1])
    assert predict(coarse, fitted, alone) == pytest.approx(predict(coarse, true, alone))


def test_agreement_of_times() -> None:
    measured_s = np.array([1.0, 2.0, 3.0, 4.0])
    assert Agreement.between(measured_s[::-1], measured_s).rank_correlation == pytest.approx(-1)
    assert Agreement.between(1.1 * measured_s, measured_s).mean_error == pytest.approx(0.1)
    nothing = Agreement.between(np.array([]), np.array([]))
    assert math.isnan(nothing.mean_error)
    assert math.isnan(nothing.rank_correlation)
    assert math.isnan(Agreement.between(np.ones(4), measured_s).rank_correlation)
