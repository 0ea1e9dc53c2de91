from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from device_placement.envs import DevicePlacementError, MeasureConfig, OpenVINOEvaluator
from device_placement.envs.evaluation import Measurement
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.bench import Job
from problems import TWO_CPUS

LUCKY, SECOND, SLOW = (0, 1, 0, 0), (0, 0, 1, 0), (0, 1, 1, 0)


class LuckyBench:
    """A bench whose compiles have luck: what it tells is written down, the rest is real."""

    def __init__(self, evaluator: OpenVINOEvaluator, told: dict[bytes, list[float]]) -> None:
        self.inner = evaluator.bench
        self.told = told
        self.jobs: list[Job] = []

    def measure(self, job: Job) -> Measurement:
        """As measured, but with the next ratio that is told for the placement."""
        self.jobs.append(job)
        measured = self.inner.measure(dataclasses.replace(job, best=math.inf))
        ratio = self.told[job.op_devices].pop(0)
        if math.isnan(ratio):
            return Measurement(error="lost")
        return dataclasses.replace(measured, pairs=((ratio, 1.0),) * 3)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def lucky(
    told: dict[tuple[int, ...], list[float]], store: Path | None = None, **options: Any
) -> tuple[OpenVINOEvaluator, LuckyBench]:
    """An evaluator and its bench; the ratios are by group, one a compile."""
    evaluator = make_evaluator(
        "diamond",
        TWO_CPUS,
        isolation="none",
        store=store and str(store),
        max_samples=3,
        **options,
    )
    assert isinstance(evaluator, OpenVINOEvaluator)
    op_group = evaluator.coarse.op_group
    by_ops = {bytes(groups[group] for group in op_group): ratios for groups, ratios in told.items()}
    bench = LuckyBench(evaluator, by_ops)
    evaluator.bench = bench
    evaluator.evaluate([0] * 4)  # the reference, which the others have to beat
    return evaluator, bench


def ratio_of(evaluator: OpenVINOEvaluator, assignment: tuple[int, ...]) -> float:
    found = evaluator.evaluate(assignment)
    return found.time_s / evaluator.evaluate([0] * 4).time_s


def test_luck_in_one_compile_does_not_make_a_best_placement() -> None:
    told = {LUCKY: [0.5, 1.2, 1.3], SECOND: [0.9, 0.92, 0.94], SLOW: [1.1]}
    evaluator, bench = lucky(told)
    assert ratio_of(evaluator, LUCKY) == pytest.approx(1.2)  # the median over three compiles
    assert ratio_of(evaluator, SECOND) == pytest.approx(0.92)
    assert ratio_of(evaluator, SLOW) == pytest.approx(1.1)  # not of interest: one compile
    assert len(bench.jobs) == 3 + 3 + 1
    assert [math.isinf(job.best) for job in bench.jobs[:3]] == [False, True, True]


def test_what_a_second_compile_refutes_is_not_compiled_a_third_time() -> None:
    evaluator, bench = lucky({LUCKY: [0.9, 1.3]})
    assert ratio_of(evaluator, LUCKY) == pytest.approx(1.1)
    assert len(bench.jobs) == 2


def test_confirmations_can_be_left_out() -> None:
    evaluator, bench = lucky({LUCKY: [0.5]}, confirmations=0)
    assert ratio_of(evaluator, LUCKY) == pytest.approx(0.5)
    assert len(bench.jobs) == 1
    assert MeasureConfig(timing="plain").more_compiles == 0
    with pytest.raises(DevicePlacementError, match="Got confirmations=-1; it must be 0 or more"):
        MeasureConfig(confirmations=-1)
    for number in (-1, 10**9):
        with pytest.raises(DevicePlacementError, match=f"Got requests={number}; .*0 to 4096"):
            MeasureConfig(requests=number)


def test_a_placement_that_fails_when_it_is_confirmed_is_invalid() -> None:
    evaluator, _ = lucky({LUCKY: [0.5, math.nan]})
    assert evaluator.evaluate(LUCKY).error == "lost"


def test_outputs_are_verified_once_and_keep_to_their_limit() -> None:
    evaluator, bench = lucky({LUCKY: [0.5, 0.6, 0.7]}, verify=True)
    assert evaluator.evaluate(LUCKY).output_error >= 0
    assert [job.verify for job in bench.jobs] == [True, False, False]


def test_what_a_store_knows_is_confirmed_where_it_becomes_the_best(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    first, _ = lucky({SECOND: [0.4, 0.4, 0.4], LUCKY: [0.5]}, store)
    first.evaluate(SECOND)
    assert ratio_of(first, LUCKY) == pytest.approx(0.5)  # far from the best: one compile
    again, bench = lucky({LUCKY: [0.7, 0.8]}, store)
    found = again.evaluate(LUCKY)  # the best so far in this run
    assert not found.cached
    assert found.time_s / again.evaluate([0] * 4).time_s == pytest.approx(0.7)
    assert len(bench.jobs) == 2
    last, bench = lucky({}, store)
    assert last.evaluate(LUCKY).cached
    assert bench.jobs == []
