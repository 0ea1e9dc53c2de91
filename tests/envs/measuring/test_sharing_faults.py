"""What failures of a worker, of a store or of a disk leave of a run."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_placement.agents.commands.search import RandomConfig, search_randomly
from device_placement.agents.commands.train import TrainConfig, train
from device_placement.envs import EvaluationStore, Placement
from device_placement.envs.measuring.isolation import IsolatedBench
from platforms import needs_limits
from problems import TWO_CPUS, chain
from runs import MEASURING, evaluator_of, lines, rows


def test_a_training_goes_on_while_its_workers_are_killed(
    tmp_path: Path, faulty: Callable[..., None]
) -> None:
    """Every third placement kills its worker twice, in turn while compiling and while timing."""
    store, out = tmp_path / "store.sqlite", tmp_path / "run"
    faulty("kill", "both", "twice:4")
    config = TrainConfig(
        model=chain(tmp_path, length=6),
        devices=TWO_CPUS,
        budget=23,
        rounds=0,
        store=str(store),
        out=str(out),
        **MEASURING,
    )
    assert train(config) == 0
    found = lines(out)
    keys = Counter(tuple(line["assignment"]) for line in found)
    assert len(found) == 23
    assert set(keys.values()) == {1}
    killed = [line for line in found if line["evaluation"]["error"]]
    assert len(killed) == 7
    assert all(line["evaluation"]["transient"] for line in killed)
    stages = Counter(line["evaluation"]["error"].rpartition(" while ")[2] for line in killed)
    assert stages == {"compiling.": 3, "timing.": 4}
    assert all("SIGKILL" in line["evaluation"]["error"] for line in killed)
    # All but those that were killed, and the reference, which is kept apart.
    assert len(rows(store)) == len(found) - len(killed) - 1
    assert Placement.load(out / "best_placement.json").claim is not None


def test_a_placement_that_was_lost_is_not_stored_as_anything(
    tmp_path: Path, faulty: Callable[..., None]
) -> None:
    store = tmp_path / "store.sqlite"
    faulty("hang", "time", "1,2")
    evaluator = evaluator_of("diamond", store)
    assert evaluator.evaluate([0] * 4).valid  # the reference, which is kept apart
    assert isinstance(evaluator.bench, IsolatedBench)
    evaluator.bench._timeout_s = 1.0
    assert "Timed out" in evaluator.evaluate([0, 1, 0, 0]).error
    evaluator.close()
    assert rows(store) == []
    again = evaluator_of("diamond", store)
    found = again.evaluate([0, 1, 0, 0])
    assert found.valid
    assert not found.cached
    assert not math.isnan(found.time_s)
    again.close()


def search(tmp_path: Path, store: Path, budget: int = 12, out: str = "run") -> list[dict[str, Any]]:
    config = RandomConfig(
        model=chain(tmp_path, length=6),
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
    assert len(found) == 12
    assert all(line["evaluation"]["time_s"] > 0 for line in found)
    assert not any(line["evaluation"]["cached"] for line in found)
    assert caplog.text.count("Continuing without stored evaluations") == 1
    assert str(store) in caplog.text
    assert store.read_bytes() == whole[: len(whole) // 2]  # left as it is, for its owner to see


def test_a_store_cut_off_in_the_middle_of_a_search_does_not_end_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store.sqlite"
    evaluator = evaluator_of(chain(tmp_path, length=6), store)
    groups = evaluator.coarse.num_groups
    for number in range(1, 20):
        if number == 10:
            os.truncate(store, store.stat().st_size - 4096)
        found = evaluator.evaluate([(number >> group) & 1 for group in range(groups)])
        assert found.valid
    assert "Continuing without stored evaluations" in caplog.text
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
    for number in range(1, 40):
        found = evaluator.evaluate([(number >> group) & 1 for group in range(groups)])
        assert found.valid, found.error
    print("ended with its result")
"""


@needs_limits
@pytest.mark.parametrize("quota", ["", "36000"], ids=["tmpfs", "quota"])
def test_a_full_disk_does_not_end_a_search(tmp_path: Path, quota: str) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    store, kept = folder / "store.sqlite", tmp_path / "store.sqlite"
    code = textwrap.dedent(FULL)
    command = [sys.executable, "-c", code, chain(tmp_path, length=6), TWO_CPUS, str(store), quota]
    shell = f'"$@" && cp {store} {kept}'
    if not quota:
        mount = f"mount -t tmpfs -o size=52k tmpfs {folder}"
        probe = ["unshare", "-rm", "sh", "-c", mount]
        if not shutil.which("unshare") or subprocess.run(probe, check=False).returncode:
            pytest.skip("this machine does not let a test mount a file system")
        command = ["unshare", "-rm", "sh", "-c", f"{mount} && {shell}", "sh", *command]
    else:
        command = ["sh", "-c", shell, "sh", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ended with its result" in done.stdout
    assert done.stdout.count("Continuing without stored evaluations") == 1
    stored = rows(kept)
    assert 0 < len(stored) < 39
    assert len({row[0] for row in stored}) == len(stored)
    EvaluationStore(kept)  # it is whole
