"""What a store and a lock give to several runs.

Who measures makes no difference to a store. So this process does it, unless a whole run is tested.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_placement.agents.commands.train import TrainConfig, train
from problems import TWO_CPUS, chain
from runs import MEASURING, evaluator_of, lines, rows

HERE: dict[str, Any] = {"isolation": "none"}


def test_a_later_evaluator_recalls_what_an_earlier_one_measured(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    first, second = evaluator_of("diamond", store, **HERE), evaluator_of("diamond", store, **HERE)
    one = first.evaluate([0, 1, 0, 0])
    other = second.evaluate([0, 1, 0, 0])
    assert (one.cached, other.cached) == (False, True)
    assert (one.time_s, one.samples_s, one.interval_s) == (
        other.time_s,
        other.samples_s,
        other.interval_s,
    )
    assert first.evaluate([0] * 4).time_s == second.evaluate([0] * 4).time_s  # fixed once
    assert second.evaluate([0] * 4).cached
    fresh = evaluator_of("diamond", store, **HERE, remeasure=True)
    assert not fresh.evaluate([0, 1, 0, 0]).cached
    assert len(rows(store)) == 2  # appended
    pooled = evaluator_of("diamond", store, **HERE).evaluate([0, 1, 0, 0])
    assert pooled.cached
    assert len(pooled.samples_s) == 2 * len(one.samples_s)
    for evaluator in (first, second, fresh):
        evaluator.close()


def test_what_a_time_depends_on_keeps_evaluations_apart(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    with_store = evaluator_of("diamond", store, **HERE)
    with_store.evaluate([0, 1, 0, 0])
    with_store.close()
    for change in (
        {"timing": "plain"},
        {"tolerance": 0.5},
        {"tolerance_growth": 0.5},
        {"timing": "plain", "objective": "throughput"},
        {"timing": "plain", "objective": "throughput", "requests": 2},
        {"reference": "CPU_F32"},
        {"verify": True},
    ):
        other = evaluator_of("diamond", store, **HERE, **change)
        assert not other.evaluate([0, 1, 0, 0]).cached, change
        other.close()


def test_old_evaluations_are_made_again(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    first = evaluator_of("diamond", store, **HERE)
    first.evaluate([0, 1, 0, 0])
    first.close()
    connection = sqlite3.connect(store)
    with connection:
        connection.execute("UPDATE measurements SET taken_at = taken_at - 1000")
    connection.close()
    recent = evaluator_of("diamond", store, **HERE, max_age_s=500.0)
    assert not recent.evaluate([0, 1, 0, 0]).cached
    recent.close()
    assert evaluator_of("diamond", store, **HERE, max_age_s=2000.0).evaluate([0, 1, 0, 0]).cached


def test_stored_outputs_serve_any_limit(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    strict = evaluator_of("diamond", store, **HERE, reference="CPU_F32", max_output_error=0.0)
    refused = strict.evaluate([0, 1, 0, 0])
    error = refused.output_error
    if error == 0:
        pytest.skip("this CPU computes in f32 anyway")
    assert "max_output_error=0 is allowed" in refused.error
    assert not refused.samples_s  # what is refused is not timed
    lax = evaluator_of("diamond", store, **HERE, reference="CPU_F32", max_output_error=2 * error)
    accepted = lax.evaluate([0, 1, 0, 0])
    assert accepted.valid
    assert not accepted.cached
    again = evaluator_of("diamond", store, **HERE, reference="CPU_F32", max_output_error=error / 2)
    assert again.evaluate([0, 1, 0, 0]).cached
    for evaluator in (strict, lax, again):
        evaluator.close()


@pytest.mark.parametrize(
    "rule",
    [
        {"give_up_factor": 1.0, "tolerance_growth": 0.0},
        {"give_up_factor": 1e9, "tolerance_growth": 1e6},
    ],
)
def test_a_timing_that_was_cut_short_is_no_result(
    tmp_path: Path, faulty: Callable[..., None], rule: dict[str, float]
) -> None:
    faulty("dawdle", "time", "every:1")  # so that what is no single is far slower on any machine
    store = tmp_path / "store.sqlite"
    options: dict[str, Any] = {**rule, "tolerance": 0.0, "max_samples": 20, "max_seconds": 60.0}
    first = evaluator_of("diamond", store, **options)
    first.evaluate([0] * 4)
    slow = [0, 1, 0, 0]
    found = first.evaluate(slow)
    assert found.valid
    assert found.cut_short
    assert len(found.samples_s) < 20
    first.close()
    again = evaluator_of("diamond", store, **options)
    again.evaluate([0] * 4)
    recalled = again.evaluate(slow)
    assert recalled.cached  # it is as far from the best as it was
    assert recalled.cut_short
    fresh = evaluator_of("diamond", store, **options)
    whole = fresh.evaluate(slow)  # the best so far, so it is measured to the end
    assert not whole.cached
    assert not whole.cut_short
    fresh.close()
    assert [row[2] for row in rows(store)] == [1, 0]
    pooled = evaluator_of("diamond", store, **options)
    pooled.evaluate([0] * 4)
    assert pooled.evaluate(slow).samples_s == whole.samples_s


def test_a_second_training_with_the_same_seed_measures_nothing_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, model = tmp_path / "store.sqlite", chain(tmp_path, length=6)
    settings: dict[str, Any] = {
        "model": model,
        "devices": TWO_CPUS,
        "budget": 20,
        "rounds": 0,
        "store": str(store),
        **MEASURING,
        "confirmations": 2,
    }
    assert train(TrainConfig(**settings, out=str(tmp_path / "one"))) == 0
    assert "known from earlier runs" not in capsys.readouterr().out
    stored = len(rows(store))
    assert train(TrainConfig(**settings, out=str(tmp_path / "two"))) == 0
    text = capsys.readouterr().out
    one, two = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert f"{len(two)} of them were known from earlier runs" in text
    assert [line["assignment"] for line in one] == [line["assignment"] for line in two]
    assert [line["evaluation"]["time_s"] for line in one] == [
        line["evaluation"]["time_s"] for line in two
    ]
    assert len(rows(store)) == stored


SHARE = """
    import json, sys
    from device_placement.envs import make_evaluator
    from device_placement.agents.placers.baselines import random_assignment
    import numpy as np
    model, devices, store = sys.argv[1:]
    settings = {"max_samples": 3, "give_up_factor": 1000.0, "confirmations": 0}
    evaluator = make_evaluator(model, devices, store=store, **settings)
    generator, asked = np.random.default_rng(0), {}
    print("ready", flush=True)
    sys.stdin.readline()
    while len(asked) < 24:
        assignment = random_assignment(evaluator.coarse, generator)
        found = evaluator.evaluate(assignment)
        assert found.valid, found.error
        if tuple(assignment) not in asked:
            asked[tuple(assignment)] = (found.cached, found.time_s)
    print(json.dumps(list(asked.values())))
"""


def test_two_processes_share_store_and_lock(tmp_path: Path) -> None:
    store, model = tmp_path / "store.sqlite", chain(tmp_path, length=8)
    command = [sys.executable, "-c", textwrap.dedent(SHARE), model, TWO_CPUS, str(store)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in processes:  # both at the same time
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    found = []
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0
        found.append(json.loads(output))
    assert [time_s for _, time_s in found[0]] == [time_s for _, time_s in found[1]]
    # Each placement was measured by one of the two, and recalled by the other.
    measured = [[not cached for cached, _ in one] for one in found]
    assert all(one != other for one, other in zip(*measured, strict=True))
    assert Counter(row[0] for row in rows(store)).most_common(1)[0][1] == 1
    assert len(rows(store)) == 24
