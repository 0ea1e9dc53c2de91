"""What a store and a lock give to several runs, and what their failures leave of one."""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from problems import TWO_CPUS, chain
from test_isolation import FAULTY

from device_placement.agents.placers.random_search import RandomConfig, search_randomly
from device_placement.agents.training import TrainConfig, train
from device_placement.envs import EvaluationStore, OpenVINOEvaluator, Placement, make_evaluator
from device_placement.envs.execution import isolation

MEASURING: dict[str, Any] = {"max_samples": 4, "max_seconds": 0.5, "confirmations": 0}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]


def rows(store: Path) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(store)
    found = connection.execute("SELECT op_devices, pairs, cut_short FROM measurements").fetchall()
    connection.close()
    return found


def evaluator_of(model: str, store: Path | None, **options: Any) -> OpenVINOEvaluator:
    settings = {"store": store and str(store), **MEASURING, **options}
    evaluator = make_evaluator(model, TWO_CPUS, **settings)
    assert isinstance(evaluator, OpenVINOEvaluator)
    return evaluator


def test_a_later_evaluator_recalls_what_an_earlier_one_measured(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    first, second = evaluator_of("diamond", store), evaluator_of("diamond", store)
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
    anew = evaluator_of("diamond", store, remeasure=True)
    assert not anew.evaluate([0, 1, 0, 0]).cached
    assert len(rows(store)) == 2  # appended
    pooled = evaluator_of("diamond", store).evaluate([0, 1, 0, 0])
    assert pooled.cached
    assert len(pooled.samples_s) == 2 * len(one.samples_s)
    for evaluator in (first, second, anew):
        evaluator.close()


def test_what_a_time_depends_on_keeps_evaluations_apart(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    with_store = evaluator_of("diamond", store)
    with_store.evaluate([0, 1, 0, 0])
    with_store.close()
    for change in (
        {"timing": "plain"},
        {"tolerance": 0.5},
        {"objective": "throughput"},
        {"objective": "throughput", "requests": 2},
        {"reference": "CPU_F32"},
        {"verify": True},
    ):
        other = evaluator_of("diamond", store, **change)
        assert not other.evaluate([0, 1, 0, 0]).cached, change
        other.close()


def test_old_evaluations_are_made_again(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    first = evaluator_of("diamond", store)
    first.evaluate([0, 1, 0, 0])
    first.close()
    connection = sqlite3.connect(store)
    with connection:
        connection.execute("UPDATE measurements SET taken_at = taken_at - 1000")
    connection.close()
    recent = evaluator_of("diamond", store, max_age_s=500.0)
    assert not recent.evaluate([0, 1, 0, 0]).cached
    recent.close()
    assert evaluator_of("diamond", store, max_age_s=2000.0).evaluate([0, 1, 0, 0]).cached


def test_stored_outputs_serve_any_limit(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    strict = evaluator_of("diamond", store, reference="CPU_F32", max_output_error=0.0)
    refused = strict.evaluate([0, 1, 0, 0])
    error = refused.output_error
    if error == 0:
        pytest.skip("this CPU computes in f32 anyway")
    assert "max_output_error=0 allows no more" in refused.error
    assert not refused.samples_s  # what is refused is not timed
    lax = evaluator_of("diamond", store, reference="CPU_F32", max_output_error=2 * error)
    accepted = lax.evaluate([0, 1, 0, 0])
    assert accepted.valid
    assert not accepted.cached
    again = evaluator_of("diamond", store, reference="CPU_F32", max_output_error=error / 2)
    assert again.evaluate([0, 1, 0, 0]).cached
    for evaluator in (strict, lax, again):
        evaluator.close()


def test_a_timing_that_was_cut_short_is_no_result(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    first = evaluator_of("resnet50", store, give_up_factor=1.0, max_samples=20)
    groups = first.coarse.num_groups
    first.evaluate([0] * groups)
    slow = [group % 2 for group in range(groups)]  # a cut at every group
    found = first.evaluate(slow)
    assert found.valid
    assert found.cut_short
    assert len(found.samples_s) < 20
    first.close()
    again = evaluator_of("resnet50", store, give_up_factor=1.0, max_samples=20)
    again.evaluate([0] * groups)
    recalled = again.evaluate(slow)
    assert recalled.cached  # it is as far from the best as it was
    assert recalled.cut_short
    fresh = evaluator_of("resnet50", store, give_up_factor=1.0, max_samples=20)
    whole = fresh.evaluate(slow)  # the best so far, so it is measured to the end
    assert not whole.cached
    assert not whole.cut_short
    fresh.close()
    assert [row[2] for row in rows(store)] == [1, 0]
    pooled = evaluator_of("resnet50", store, give_up_factor=1.0, max_samples=20)
    pooled.evaluate([0] * groups)
    assert pooled.evaluate(slow).samples_s == whole.samples_s


def test_a_second_training_with_the_same_seed_measures_nothing_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, model = tmp_path / "store.sqlite", chain(tmp_path)
    settings: dict[str, Any] = {
        "model": model,
        "devices": TWO_CPUS,
        "budget": 40,
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


def test_a_training_goes_on_while_its_workers_are_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fourth placement kills its worker, in turn while compiling and while timing."""
    counter, store, out = tmp_path / "counter", tmp_path / "store.sqlite", tmp_path / "run"
    counter.write_text("0")
    command = (sys.executable, FAULTY, str(counter), "kill", "both", "every:4")
    monkeypatch.setattr(isolation, "COMMAND", command)
    config = TrainConfig(
        model=chain(tmp_path, length=16),
        devices=TWO_CPUS,
        budget=203,
        rounds=0,
        store=str(store),
        out=str(out),
        **MEASURING,
    )
    assert train(config) == 0
    found = lines(out)
    keys = Counter(tuple(line["assignment"]) for line in found)
    assert len(found) == 203
    assert set(keys.values()) == {1}
    killed = [line for line in found if line["evaluation"]["error"]]
    assert len(killed) == 50
    stages = Counter(line["evaluation"]["error"].rpartition(" while ")[2] for line in killed)
    assert stages == {"compiling.": 25, "timing.": 25}
    assert all("SIGKILL" in line["evaluation"]["error"] for line in killed)
    # All but those that were killed, and the reference, which is kept apart.
    assert len(rows(store)) == len(found) - len(killed) - 1
    assert Placement.load(out / "best_placement.json").claim is not None


def test_the_result_of_a_search_keeps_to_the_limit_of_the_outputs(tmp_path: Path) -> None:
    free = evaluator_of("diamond", None, reference="CPU_F32", verify=True)
    error = free.evaluate([0] * 4).output_error
    free.close()
    if error == 0:
        pytest.skip("this CPU computes in f32 anyway")
    out = tmp_path / "run"
    config = RandomConfig(
        model="diamond",
        devices=TWO_CPUS,
        budget=16,
        rounds=2,
        store=None,
        out=str(out),
        reference="CPU_F32",
        max_output_error=error * 0.9,
        **MEASURING,
    )
    assert search_randomly(config) == 0
    result = json.loads((out / "result.json").read_text())
    rows_by_name = {row["name"]: row for row in result["rows"]}
    assert "outputs differ" in rows_by_name["all on CPU"]["error"]
    assert result["result"] != "all on CPU"
    claim = Placement.load(out / "best_placement.json").claim
    assert claim is not None
    assert (claim.reference, claim.max_output_error) == ("CPU_F32", error * 0.9)


SHARE = """
    import json, sys
    from device_placement.envs import make_evaluator
    from device_placement.agents.placers.random_search import random_assignment
    import numpy as np
    model, devices, store = sys.argv[1:]
    settings = {"max_samples": 3, "give_up_factor": 1000.0, "confirmations": 0}
    evaluator = make_evaluator(model, devices, store=store, **settings)
    generator, asked = np.random.default_rng(0), {}
    while len(asked) < 100:
        assignment = random_assignment(evaluator.coarse, generator)
        found = evaluator.evaluate(assignment)
        assert found.valid, found.error
        if tuple(assignment) not in asked:
            asked[tuple(assignment)] = (found.cached, found.time_s)
    print(json.dumps(list(asked.values())))
"""


def test_two_processes_share_store_and_lock(tmp_path: Path) -> None:
    store, model = tmp_path / "store.sqlite", chain(tmp_path)
    command = [sys.executable, "-c", textwrap.dedent(SHARE), model, TWO_CPUS, str(store)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
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
    assert len(rows(store)) == 100


def search(tmp_path: Path, store: Path, budget: int = 30, out: str = "run") -> list[dict[str, Any]]:
    config = RandomConfig(
        model=chain(tmp_path),
        devices=TWO_CPUS,
        budget=budget,
        rounds=0,
        store=str(store),
        out=str(tmp_path / out),
        **MEASURING,
    )
    assert search_randomly(config) == 0
    return lines(tmp_path / out)


def test_a_search_goes_on_without_a_broken_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store.sqlite"
    search(tmp_path, store, out="first")
    whole = store.read_bytes()
    store.write_bytes(whole[: len(whole) // 2])
    found = search(tmp_path, store)
    assert len(found) == 30
    assert all(line["evaluation"]["time_s"] > 0 for line in found)
    assert not any(line["evaluation"]["cached"] for line in found)
    assert caplog.text.count("Going on without remembering evaluations") == 1
    assert str(store) in caplog.text
    assert store.read_bytes() == whole[: len(whole) // 2]  # left as it is, for its owner to see


def test_a_store_cut_off_in_the_middle_of_a_search_does_not_end_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store.sqlite"
    evaluator = evaluator_of(chain(tmp_path), store)
    groups = evaluator.coarse.num_groups
    for number in range(1, 40):
        if number == 20:
            os.truncate(store, store.stat().st_size - 4096)
        found = evaluator.evaluate([(number >> group) & 1 for group in range(groups)])
        assert found.valid
    assert "Going on without remembering evaluations" in caplog.text
    evaluator.close()


FULL = """
    import logging, resource, sys
    from device_placement.envs import make_evaluator
    model, devices, store, quota = sys.argv[1:]
    logging.basicConfig(stream=sys.stdout)
    isolation = "process"
    if quota:  # which the worker would inherit, and could not be handed its model
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(quota), int(quota)))
        isolation = "none"
    settings = {"max_samples": 3, "give_up_factor": 1000.0, "confirmations": 0}
    evaluator = make_evaluator(model, devices, store=store, isolation=isolation, **settings)
    groups = evaluator.coarse.num_groups
    for number in range(1, 200):
        found = evaluator.evaluate([(number >> group) & 1 for group in range(groups)])
        assert found.valid, found.error
    print("ended with its result")
"""


@pytest.mark.parametrize("quota", ["", "60000"], ids=["tmpfs", "quota"])
def test_a_full_disk_does_not_end_a_search(tmp_path: Path, quota: str) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    store, kept = folder / "store.sqlite", tmp_path / "store.sqlite"
    code = textwrap.dedent(FULL)
    command = [sys.executable, "-c", code, chain(tmp_path), TWO_CPUS, str(store), quota]
    shell = f'"$@" && cp {store} {kept}'
    if not quota:
        mount = f"mount -t tmpfs -o size=100k tmpfs {folder}"
        probe = ["unshare", "-rm", "sh", "-c", mount]
        if not shutil.which("unshare") or subprocess.run(probe, check=False).returncode:
            pytest.skip("this machine does not let a test mount a file system")
        command = ["unshare", "-rm", "sh", "-c", f"{mount} && {shell}", "sh", *command]
    else:
        command = ["sh", "-c", shell, "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ended with its result" in done.stdout
    assert done.stdout.count("Going on without remembering evaluations") == 1
    stored = rows(kept)
    assert 0 < len(stored) < 199
    assert len({row[0] for row in stored}) == len(stored)
    EvaluationStore(kept)  # it is whole


def test_a_placement_that_was_lost_is_not_stored_as_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter, store = tmp_path / "counter", tmp_path / "store.sqlite"
    counter.write_text("0")
    command = (sys.executable, FAULTY, str(counter), "hang", "time", "1")
    monkeypatch.setattr(isolation, "COMMAND", command)
    evaluator = evaluator_of("diamond", store, timeout_s=1.0)
    assert "Timed out" in evaluator.evaluate([0, 1, 0, 0]).error
    evaluator.close()
    assert rows(store) == []
    again = evaluator_of("diamond", store)
    found = again.evaluate([0, 1, 0, 0])
    assert found.valid
    assert not found.cached
    assert not math.isnan(found.time_s)
    again.close()
