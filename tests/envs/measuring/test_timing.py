"""Samples, estimates and stop rules, on samples made up for the purpose; no clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from device_placement.envs import DevicePlacementError, Evaluation, MeasureConfig
from device_placement.envs.evaluation import Measurement
from device_placement.envs.measuring.estimate import evaluate_measurements
from device_placement.envs.measuring.program import Program, take_pairs, warm_up
from device_placement.envs.measuring.timing import (
    TIMINGS,
    Timing,
    is_clearly_slower,
    is_precise,
    median_interval,
    relative_samples,
)
from device_placement.envs.measuring.verification import output_difference

TIMES = st.floats(1e-6, 1e3)


class Scripted:
    """A program whose runs take what a script says, and a common log of who ran."""

    def __init__(
        self, name: str, times: list[float], log: list[str], shares: Sequence[float] = ()
    ) -> None:
        self.name, self.times, self.log = name, times, log
        self.done = 0
        self.shares = list(shares)  # of its only core, for each pair

    def core_share(self) -> float:
        """As `Program.core_share`: since the last call, so 1 before anything ran."""
        ran, self.ran = getattr(self, "ran", False), False
        return self.shares.pop(0) if ran and self.shares else 1.0

    def sample(self, runs: int = 1) -> float:
        self.log += [self.name] * runs
        self.done += 1
        self.ran = True
        return self.times[(self.done - 1) % len(self.times)]


def take(
    candidate: list[float], reference: list[float] | None, timing: Timing, **arguments: Any
) -> tuple[tuple[tuple[float, float], ...], bool, str]:
    log: list[str] = []
    one = Scripted("c", candidate, log)
    other = Scripted("r", reference, log) if reference else None
    pairs, cut = take_pairs(one, other, timing, **arguments)  # type: ignore[arg-type]
    return pairs, cut, "".join(log)


@given(st.lists(TIMES, min_size=1, max_size=60))
def test_the_interval_is_the_narrowest_pair_of_ranks_that_covers(samples: list[float]) -> None:
    low, high = median_interval(samples)
    ordered = sorted(samples)
    assert low <= float(np.median(samples)) <= high
    for rank in range(len(samples) // 2):  # rank samples lie outside on each side
        covers = 1 - 2 * binom.cdf(rank, len(samples), 0.5) >= 0.95
        if covers:
            assert ordered[rank] <= low
            assert high <= ordered[-1 - rank]


def test_the_interval_of_many_samples_is_found_too() -> None:
    low, high = median_interval([float(number) for number in range(5001)])
    assert (low, high) == (2430.0, 2570.0)


def test_candidate_and_reference_take_turns_and_swap() -> None:
    timing = Timing(min_samples=4, max_samples=4, tolerance=0.0)
    pairs, cut, log = take([2.0, 2.2, 2.4, 2.6], [1.0, 1.1, 1.2, 1.3], timing)
    assert log == "crrccrrc"
    assert pairs == ((2.0, 1.0), (2.2, 1.1), (2.4, 1.2), (2.6, 1.3))  # the drift cancels
    np.testing.assert_allclose(relative_samples(pairs), 2.0)
    assert not cut


def test_sampling_stops_when_precise_and_goes_on_while_it_is_not() -> None:
    timing = Timing(min_samples=6, max_samples=30, tolerance=0.02)
    pairs, _, _ = take([1.0, 1.001], [1.0], timing)
    assert len(pairs) == 6
    pairs, _, _ = take([1.0, 1.1], [1.0], timing)
    assert len(pairs) == 30
    outlier = [1.0, 1.0, 9.0, *[1.0] * 7]
    pairs, _, _ = take(outlier, [1.0], timing)
    assert len(pairs) == 9  # the first number of samples at which one outlier is outside


def test_a_hopeless_candidate_is_cut_short() -> None:
    timing = Timing(max_samples=30, tolerance=0.0, tolerance_growth=0.0, give_up_factor=2.5)
    pairs, cut, _ = take([3.0, 3.1, 2.9], [1.0], timing, best=1.0)
    assert cut
    assert len(pairs) == 3
    pairs, cut, _ = take([3.0, 2.4, 3.1], [1.0], timing, best=1.0)  # not clearly
    assert not cut
    assert not is_clearly_slower([9.0] * 2, timing, 1.0)
    assert not is_clearly_slower([9.0] * 9, timing, math.inf)


def test_the_tolerance_grows_with_the_distance_from_the_best() -> None:
    timing = Timing(max_samples=30, tolerance_growth=1.0, give_up_factor=9.0)
    varying = [1.10, 1.15, 1.20]  # 0.10 wide, its lower end 0.10 above 1.0
    pairs, cut, _ = take(varying, [1.0], timing, best=0.99)
    assert (len(pairs), cut) == (6, True)  # fewer samples have no 95 % interval
    pairs, cut, _ = take(varying, [1.0], timing, best=1.01)  # nearer than the interval is wide
    assert (len(pairs), cut) == (30, False)
    steady = [1.10, 1.11]
    pairs, cut, _ = take(steady, [1.0], timing, best=0.5)
    assert (len(pairs), cut) == (6, False)  # to the tolerance, so nothing was cut short
    pairs, cut, _ = take(varying, [1.0], timing)  # no best yet
    assert (len(pairs), cut) == (30, False)
    flat = Timing(max_samples=30, tolerance_growth=0.0, give_up_factor=9.0)
    pairs, cut, _ = take(varying, [1.0], flat, best=0.5)
    assert (len(pairs), cut) == (30, False)
    few = Timing(min_samples=3, max_samples=5, give_up_factor=9.0)
    pairs, cut, _ = take(varying, [1.0], few, best=0.5)
    assert (len(pairs), cut) == (5, False)


FACTORS = st.floats(0.0, 10.0)


@given(st.lists(TIMES, min_size=1, max_size=40), TIMES, TIMES, FACTORS, FACTORS)
def test_what_is_clearly_slower_stays_so_if_the_best_improves_or_the_tolerance_grows(
    values: list[float], one: float, other: float, growth: float, further: float
) -> None:
    low, high = sorted((one, other))
    strict, lax = (Timing(tolerance_growth=factor) for factor in sorted((growth, further)))
    if is_clearly_slower(values, strict, high):
        assert is_clearly_slower(values, strict, low)
        assert is_clearly_slower(values, lax, high)


@given(st.lists(TIMES, min_size=1, max_size=40), TIMES, FACTORS)
def test_a_candidate_whose_interval_reaches_the_best_is_never_clearly_slower(
    values: list[float], best: float, growth: float
) -> None:
    timing = Timing(tolerance_growth=growth)
    if is_clearly_slower(values, timing, best):
        assert median_interval(values)[0] > best
    assert not is_clearly_slower(values, timing, max(values))
    assert not is_clearly_slower(values, timing, math.inf)


@given(st.lists(TIMES, min_size=1, max_size=40), TIMES, FACTORS, st.integers(-20, 20), st.data())
def test_neither_the_unit_nor_the_order_of_samples_decides(
    values: list[float], best: float, growth: float, exponent: int, data: st.DataObject
) -> None:
    timing = Timing(tolerance_growth=growth)
    unit = 2.0**exponent  # exact
    shuffled = data.draw(st.permutations(values))
    other = is_clearly_slower([unit * one for one in shuffled], timing, unit * best)
    assert other == is_clearly_slower(values, timing, best)


def test_sampling_stops_when_its_time_is_up() -> None:
    pairs, _, _ = take([1.0], None, Timing.named("plain", max_samples=9, max_seconds=1e-9))
    assert len(pairs) == 1
    assert math.isnan(pairs[0][1])


def test_several_runs_make_a_sample_of_a_fast_model() -> None:
    timing = Timing.named("paired", max_samples=1)
    _, _, log = take([1.0], [1.0], timing, runs=(3, 2))
    assert log == "cccrr"
    fast = Scripted("c", [1e-5], [])
    assert warm_up(fast, 1) == 500  # type: ignore[arg-type]
    slow = Scripted("c", [9.0, 0.1], [])
    assert warm_up(slow, 2) == 1  # type: ignore[arg-type]
    assert slow.done == 2


@given(st.lists(st.tuples(TIMES, TIMES), min_size=1, max_size=40), TIMES)
def test_the_estimate_is_the_median_ratio_times_the_references_time(
    pairs: list[tuple[float, float]], reference_s: float
) -> None:
    found = evaluate_measurements(
        [Measurement(pairs=tuple(pairs[:1])), Measurement(pairs=tuple(pairs[1:]), compile_s=2.0)],
        reference_s,
        MeasureConfig(),
    )
    assert found is not None
    expected = reference_s * np.median([candidate / reference for candidate, reference in pairs])
    assert found.time_s == pytest.approx(expected)
    assert found.interval_s[0] <= found.time_s <= found.interval_s[1]
    assert len(found.samples_s) == len(pairs)
    assert found.compile_s == 2.0


def test_a_candidate_that_ran_alone_keeps_its_own_seconds() -> None:
    alone = Measurement(pairs=((2.0, math.nan), (4.0, math.nan), (3.0, math.nan)))
    found = evaluate_measurements([alone], math.nan, MeasureConfig(timing="plain"))
    assert found is not None
    assert (found.time_s, found.samples_s) == (3.0, (2.0, 4.0, 3.0))


def test_outputs_decide_where_they_have_to() -> None:
    off = Measurement(num_subgraphs=2, output_error=0.3, output_cosine=0.9)
    near = Measurement(pairs=((1.0, 1.0),), output_error=0.1, output_cosine=0.99)
    unchecked = Measurement(pairs=((1.0, 1.0),))
    limited, verified = MeasureConfig(max_output_error=0.2), MeasureConfig(verify=True)

    def found(measurement: Measurement, config: MeasureConfig) -> Evaluation | None:
        return evaluate_measurements([measurement], 1.0, config)

    refused, accepted = found(off, limited), found(near, limited)
    assert refused is not None
    assert accepted is not None
    assert "differ from the reference's by 0.3" in refused.error
    assert (refused.output_error, refused.num_subgraphs) == (0.3, 2)
    assert accepted.valid
    assert (accepted.output_error, accepted.output_cosine) == (0.1, 0.99)
    assert found(unchecked, verified) is None  # has to be measured again
    assert found(off, verified) is None  # was never timed
    assert found(unchecked, MeasureConfig()) is not None
    assert evaluate_measurements([], 1.0, MeasureConfig()) is None


def test_output_differences() -> None:
    one, other = np.array([3.0, 4.0]), np.array([0.0, 4.0])
    assert output_difference([one], [other]) == (0.75, 0.8)
    assert output_difference([one, other], [one, other]) == (0.0, 1.0)
    assert output_difference([one, one], [one, other]) == (0.75, 0.8)  # the worst counts
    assert output_difference([-one], [one]) == (2.0, -1.0)
    nothing = np.zeros(2)
    assert output_difference([nothing], [nothing]) == (0.0, 1.0)
    assert output_difference([one], [nothing]) == (math.inf, 0.0)
    for broken in (math.nan, math.inf):
        assert output_difference([np.array([broken, 1.0])], [one]) == (math.inf, -1.0)
    whole = np.array([0, 2])  # integers
    assert output_difference([whole], [whole]) == (0.0, 1.0)


def test_protocols_have_their_own_defaults_and_take_changes() -> None:
    assert Timing.named("paired") == Timing()
    plain = Timing.named("plain")
    assert not plain.paired
    assert (plain.warmup, plain.max_samples, plain.give_up_factor) == (3, 10, math.inf)
    assert plain.tolerance_growth == 0
    assert MeasureConfig(tolerance_growth=0.5).protocol.tolerance_growth == 0.5
    assert Timing.named("paired", max_samples=3).min_samples == 3
    assert MeasureConfig(tolerance=0.5).protocol.tolerance == 0.5
    assert set(TIMINGS) == {"paired", "plain"}
    with pytest.raises(DevicePlacementError, match="give_up_factor at least 1"):
        Timing(give_up_factor=0.5)
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(DevicePlacementError, match="tolerance_growth at least 0 and finite"):
            MeasureConfig(tolerance_growth=wrong)


def test_precision_needs_the_least_number_of_samples() -> None:
    timing = Timing(min_samples=6, tolerance=0.5)
    assert not is_precise([1.0] * 5, timing)
    assert is_precise([1.0] * 6, timing)


@pytest.mark.parametrize(
    ("candidate", "reference", "pair", "log"),
    [
        ([], [], (1.0, 10.0), "cr"),
        ([0.95], [1.0], (1.0, 10.0), "cr"),
        ([0.94, 0.99], [], (2.0, 20.0), "crcr"),  # a neighbour took part of its core
        ([1.0, 1.0], [0.9, 0.95], (2.0, 20.0), "crcr"),
        ([0.1, 1.0, 1.0], [1.0, 0.2, 1.0], (3.0, 30.0), "crcrcr"),
        ([0.1] * 9, [], (3.0, 30.0), "crcrcr"),  # it is there to stay
    ],
)
def test_pairs_in_which_a_device_got_too_little_of_its_core_are_repeated(
    candidate: list[float], reference: list[float], pair: tuple[float, float], log: str
) -> None:
    ran: list[str] = []
    one = Scripted("c", [1.0, 2.0, 3.0, 4.0], ran, candidate)
    other = Scripted("r", [10.0, 20.0, 30.0, 40.0], ran, reference)
    timing = Timing("paired", max_samples=1, min_samples=1)
    pairs, _ = take_pairs(one, other, timing)  # type: ignore[arg-type]
    assert pairs == (pair,)
    assert "".join(ran) == log


def test_repeated_pairs_keep_their_order_and_need_no_reference() -> None:
    ran: list[str] = []
    one = Scripted("c", [1.0], ran, [1.0, 0.5, 1.0])
    other = Scripted("r", [1.0], ran)
    timing = Timing("paired", max_samples=2, min_samples=2)
    take_pairs(one, other, timing)  # type: ignore[arg-type]
    assert "".join(ran) == "cr" + "rc" + "rc"
    alone = Scripted("c", [1.0, 2.0], ran, [0.5, 1.0])
    timing = Timing("plain", max_samples=1, min_samples=1)
    ((time_s, reference_s),), _ = take_pairs(alone, None, timing)  # type: ignore[arg-type]
    assert time_s == 2.0
    assert math.isnan(reference_s)


def test_what_a_device_did_before_a_pair_does_not_count() -> None:
    shares = iter([0.1, 1.0])  # of the warm-up, and of the pair
    program = Program(
        None,  # type: ignore[arg-type]
        [],
        lambda runs: 1.0,
        0.0,
        core_share=lambda: next(shares),
    )
    timing = Timing("plain", max_samples=1, min_samples=1)
    assert len(take_pairs(program, None, timing)[0]) == 1
