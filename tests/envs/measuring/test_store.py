"""The store of evaluations: what is added comes back exact, or not at all."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_placement.envs.errors import StoreError
from device_placement.envs.evaluation import NAN, Measurement
from device_placement.envs.measuring.cache import MeasurementCache
from device_placement.envs.measuring.store import PATH_VARIABLE, EvaluationStore, default_path
from stores import EXAMPLES, OPS, OTHER, PROBLEM, REFERENCE, SAMPLES, exact, fill


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_measurement_comes_back_bit_for_bit(store: EvaluationStore, example: Measurement) -> None:
    store.add(PROBLEM, OPS, example)
    assert exact(EvaluationStore(store.path).get(PROBLEM, OPS)) == exact([example])


times = st.floats(0, allow_infinity=False, exclude_min=True)
seconds = st.floats(0, allow_infinity=False)
refusals = st.builds(
    Measurement, error=st.text(min_size=1), failed_to_compile=st.just(True), compile_s=seconds
)
results = st.builds(
    Measurement,
    pairs=st.lists(st.tuples(times, times | st.just(NAN)), min_size=1).map(tuple),
    num_subgraphs=st.integers(0, 2**63 - 1),
    compile_s=seconds,
    run_s=seconds,
    output_error=st.just(NAN) | st.floats(0),
    output_cosine=st.just(NAN) | st.floats(-1, 1),
)


@pytest.fixture(scope="module")
def long_store(tmp_path_factory: pytest.TempPathFactory) -> EvaluationStore:
    return EvaluationStore(tmp_path_factory.mktemp("long") / "evaluations.sqlite")


@settings(max_examples=60, deadline=None)
@given(
    measurements=st.lists(results | refusals, max_size=3),
    samples_s=st.lists(times, min_size=1),
    op_devices=st.binary(),
    problem=st.dictionaries(
        st.text(), st.none() | st.floats() | st.text() | st.lists(st.booleans())
    ),
)
def test_anything_comes_back_bit_for_bit(
    long_store: EvaluationStore,
    measurements: list[Measurement],
    samples_s: list[float],
    op_devices: bytes,
    problem: dict[str, object],
) -> None:
    before = long_store.get(problem, op_devices)  # hypothesis may give a problem twice
    for measurement in measurements:
        long_store.add(problem, op_devices, measurement)
    found = long_store.get(problem, op_devices)
    assert exact(found) == exact([*before, *measurements])
    fixed = long_store.get_reference(problem)
    stand = long_store.fix_reference(problem, samples_s)
    assert repr(stand) == repr(tuple(samples_s) if fixed is None else fixed)
    assert repr(long_store.get_reference(problem)) == repr(stand)


def test_problems_and_placements_do_not_mix(store: EvaluationStore) -> None:
    first, second, third = EXAMPLES[:3]
    store.add(PROBLEM, OPS, first)
    store.add(OTHER, OPS, second)
    store.add(PROBLEM, OPS + b"\0", third)
    store.add(dict(reversed(PROBLEM.items())), OPS, third)  # the same problem
    assert exact(store.get(PROBLEM, OPS)) == exact([first, third])
    assert exact(store.get(OTHER, OPS)) == exact([second])
    assert exact(store.get(PROBLEM, OPS + b"\0")) == exact([third])
    assert store.get(PROBLEM, b"") == store.get({}, OPS) == ()


def test_what_is_too_old_is_not_given(store: EvaluationStore) -> None:
    for example in EXAMPLES:
        store.add(PROBLEM, OPS, example)
    store.fix_reference(REFERENCE, SAMPLES)
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE measurements SET taken_at = taken_at - 7200 WHERE id % 2 = 1")
        connection.execute("UPDATE reference_times SET taken_at = taken_at - 7200")
    young = EvaluationStore(store.path, max_age_s=3600)
    assert exact(young.get(PROBLEM, OPS)) == exact(EXAMPLES[1::2])
    assert exact(store.get(PROBLEM, OPS)) == exact(EXAMPLES)
    assert young.get_reference(REFERENCE) == SAMPLES


@pytest.mark.parametrize("max_age_s", [0, -1.0, math.nan])
def test_an_age_that_makes_no_sense_is_refused(store_path: Path, max_age_s: float) -> None:
    with pytest.raises(StoreError, match="above 0"):
        EvaluationStore(store_path, max_age_s=max_age_s)


@pytest.mark.parametrize(
    "measurement",
    [
        Measurement(),
        Measurement(num_subgraphs=2, compile_s=1.0),
        Measurement(error="the worker crashed"),
        Measurement(pairs=((0.1, 0.2),), error="time-out"),
        Measurement(pairs=((0.0, 0.2),)),
        Measurement(pairs=((NAN, 0.2),)),
        Measurement(pairs=((0.1, math.inf),)),
        Measurement(pairs=((0.1, 0.2),), compile_s=NAN),
        Measurement(pairs=((0.1, 0.2),), num_subgraphs=-1),
        Measurement(output_error=-1.0),
    ],
)
def test_what_does_not_hold_for_good_is_not_stored(
    store: EvaluationStore, measurement: Measurement
) -> None:
    with pytest.raises(AssertionError):
        store.add(PROBLEM, OPS, measurement)
    assert store.get(PROBLEM, OPS) == ()


def test_the_first_to_fix_a_reference_wins(store: EvaluationStore) -> None:
    assert store.get_reference(REFERENCE) is None
    assert store.fix_reference(REFERENCE, list(SAMPLES)) == SAMPLES
    assert EvaluationStore(store.path).fix_reference(REFERENCE, [7.0]) == SAMPLES
    assert store.get_reference(REFERENCE) == SAMPLES
    assert store.fix_reference(PROBLEM, [7.0]) == (7.0,)


@pytest.mark.parametrize("samples_s", [[], [0.0], [0.1, math.nan]])
def test_a_reference_needs_samples(store: EvaluationStore, samples_s: list[float]) -> None:
    with pytest.raises(AssertionError):
        store.fix_reference(REFERENCE, samples_s)


def test_the_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    folder = Path(platformdirs.user_cache_dir("device-placement", appauthor=False))
    assert default_path() == folder / "evaluations.sqlite"
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "named"))
    assert default_path() == EvaluationStore().path == tmp_path / "named"
    assert (tmp_path / "named").is_file()


def test_the_file_can_be_read_by_people(store: EvaluationStore) -> None:
    fill(store)
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        descriptions = connection.execute("SELECT description FROM problems").fetchall()
        pairs = connection.execute("SELECT pairs FROM measurements").fetchall()
    assert [text.startswith('{"devices":["CPU","GPU.') for (text,) in descriptions] == [True] * 2
    assert ("[[0.5,0.25]]",) in pairs
    assert [entry.name for entry in store.path.parent.iterdir()] == [store.path.name]


@pytest.mark.parametrize("path", [None, "none"])
def test_none_is_no_store(
    path: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert MeasurementCache(path).path == ""
    assert not list(tmp_path.iterdir())
