"""A tolerance that grows with the distance from the best, and what it leaves in a store.

Everything is real but the clock, which follows a script.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from device_placement.envs import OpenVINOEvaluator
from device_placement.envs.evaluation import Evaluation, Measurement
from device_placement.envs.measuring.bench import Job
from device_placement.envs.measuring.program import take_pairs
from runs import evaluator_of, rows

REFERENCE, FAST, NEAR, SLOW = (0, 0, 0, 0), (0, 1, 0, 0), (0, 1, 1, 0), (0, 0, 1, 0)
RATIOS = {
    FAST: (0.5,),
    NEAR: (1.11,),
    SLOW: (1.1, 1.2, 1.3),
}  # to the reference's time, again and again
WHOLE = 30  # samples of a timing that is not cut short
SETTINGS: dict[str, Any] = {
    "isolation": "none",
    "max_samples": WHOLE,
    "max_seconds": 600.0,
    "give_up_factor": 100.0,
}


class Script:
    """Program whose runs take what a script says."""

    def __init__(self, times_s: Sequence[float]) -> None:
        self.times_s = times_s
        self.done = 0

    def sample(self, runs: int = 1) -> float:
        self.done += 1
        return self.times_s[self.done % len(self.times_s)]

    def core_share(self) -> float:
        return 1.0


class ScriptedBench:
    """Bench that compiles and runs, and tells the times of a script."""

    def __init__(self, evaluator: OpenVINOEvaluator) -> None:
        self.inner = evaluator.bench
        self.timing = evaluator.config.protocol
        groups = evaluator.coarse.op_group
        self.ratios = {bytes(key[group] for group in groups): RATIOS[key] for key in RATIOS}
        self.jobs: list[Job] = []

    def measure(self, job: Job) -> Measurement:
        self.jobs.append(job)
        measured = self.inner.measure(dataclasses.replace(job, best=math.inf))
        programs: Any = Script(self.ratios[job.op_devices]), Script([1.0])
        pairs, cut_short = take_pairs(*programs, self.timing, job.best)
        return dataclasses.replace(measured, pairs=pairs, cut_short=cut_short)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def evaluate(
    store: Path | None, *assignments: Sequence[int], **options: Any
) -> tuple[Evaluation, int]:
    """Evaluate placements in a run of its own; return the last evaluation, and the compiles."""
    evaluator = evaluator_of("diamond", store, **SETTINGS, **options)
    evaluator.bench = bench = ScriptedBench(evaluator)
    found = [evaluator.evaluate(one) for one in assignments]
    evaluator.close()
    return found[-1], len(bench.jobs)


def test_a_slower_placement_takes_few_samples_and_the_best_many() -> None:
    slow, _ = evaluate(None, REFERENCE, SLOW)
    assert slow.cut_short
    assert len(slow.samples_s) == 6
    flat, _ = evaluate(None, REFERENCE, SLOW, tolerance_growth=0.0)
    assert not flat.cut_short
    assert len(flat.samples_s) == WHOLE
    first, _ = evaluate(None, SLOW)  # there is no best to compare it with
    assert len(first.samples_s) == WHOLE


def test_a_stored_timing_serves_while_the_best_is_as_far_away(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    coarse, compiles = evaluate(store, REFERENCE, SLOW)
    assert (coarse.cached, compiles) == (False, 1)
    for before in ((REFERENCE,), (REFERENCE, FAST)):
        again, compiles = evaluate(store, *before, SLOW)
        assert again.cached
        assert again.samples_s == coarse.samples_s
        assert compiles == len(before) - 1  # that of FAST


@pytest.mark.parametrize("before", [(), (NEAR,)])
def test_a_stored_timing_is_made_again_if_the_best_is_nearer(
    tmp_path: Path, before: tuple[tuple[int, ...], ...]
) -> None:
    store = tmp_path / "store.sqlite"
    coarse, _ = evaluate(store, REFERENCE, FAST, SLOW)
    assert coarse.cut_short
    whole, _ = evaluate(store, *before, SLOW)  # now the best itself, or its interval reaches it
    assert (whole.cached, whole.cut_short) == (False, False)
    assert len(whole.samples_s) == WHOLE  # what was coarse does not count any more
    again, compiles = evaluate(store, REFERENCE, SLOW)
    assert again.cached
    assert again.samples_s == whole.samples_s
    assert compiles == 0
    assert sum(cut_short for *_, cut_short in rows(store)) == 1
