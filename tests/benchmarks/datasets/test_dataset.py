"""Datasets: what was recorded comes back from Parquet and from Minari, and a model learns it."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_placement.agents.cli import main
from device_placement.agents.commands.config import RandomConfig
from device_placement.agents.commands.search import search_randomly
from device_placement.benchmarks.datasets.recorded import read_folder, read_store
from device_placement.envs import DevicePlacementError
from device_placement.envs.evaluation import single_assignments
from runs import evaluator_of
from tiny_benchmark import make_here

parquet: Any = pytest.importorskip("pyarrow.parquet")
minari: Any = pytest.importorskip("minari")
RECIPE = Path(__file__).parents[3] / "docs" / "recipes" / "cost_model.py"
pytestmark = pytest.mark.usefixtures("tiny_suite")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated run of 60 placements in 8 groups, its traces as a dataset."""
    folder = tmp_path_factory.mktemp("data") / "run"
    config = RandomConfig(
        model="two_towers", evaluator="simulator", hardware="laptop", devices="CPU,GPU",
        max_groups=8, budget=60, rounds=0, out=str(folder),
    )  # fmt: skip
    search_randomly(config)
    assert main(["dataset", str(folder), "--horizon", "16"]) == 0
    return folder


def load(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(folder / "minari"))
    return minari.load_dataset(f"device-placement/{name}-v0")


def test_the_table_has_every_evaluation(made: Path) -> None:
    table = parquet.read_table(made / "dataset" / "evaluations.parquet")
    rows = table.to_pylist()
    (recording,) = read_folder(made)
    assert len(rows) == 60 == len(recording.trace)
    assert table.column_names[:4] == ["model", "machine", "placement", "time_s"]
    assert {(row["model"], row["machine"], row["per"]) for row in rows} == {
        ("two_towers", "laptop", "group")
    }
    for row, (key, one) in zip(rows, recording.trace.items(), strict=True):
        assert tuple(row["placement"]) == key
        assert row["time_s"] == one.time_s
        assert (row["interval_low_s"], row["interval_high_s"]) == one.interval_s
        assert row["devices"] == ["CPU", "GPU"]


def test_minari_has_episodes_of_the_environment(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load(made / "dataset", "two-towers-CPU-GPU", monkeypatch)
    assert [len(one.rewards) for one in dataset.iterate_episodes()] == [16, 16, 16, 12]
    env = dataset.recover_environment()
    for episode in dataset.iterate_episodes():
        assert episode.truncations.tolist() == [False] * (len(episode.rewards) - 1) + [True]
        observation, _ = env.reset(seed=0)
        for number, action in enumerate(episode.actions):
            for key, array in observation.items():
                np.testing.assert_array_equal(episode.observations[key][number], array)
            observation, reward, _, _, info = env.step(action)
            assert reward == episode.rewards[number]
            assert info["time_s"] == episode.infos["time_s"][number + 1]


def test_a_cost_model_learns_the_times(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Times are sums of ops and moves here, so it errs by less than a tenth of a constant."""
    recipe = runpy.run_path(str(RECIPE))
    dataset = load(made / "dataset", "two-towers-CPU-GPU", monkeypatch)
    placements, times_s, edges, num_devices = recipe["read_placements"](dataset)
    inputs = recipe["features"](placements, edges, num_devices)
    weights = recipe["fit"](inputs[15:], times_s[15:], 1e-9)
    error = recipe["median_error"](inputs[:15], times_s[:15], weights)
    constant = np.median(np.abs(np.median(times_s[15:]) / times_s[:15] - 1))
    assert error < 0.1 * constant
    monkeypatch.setattr("sys.argv", ["cost_model.py", str(made / "dataset")])
    recipe["main"]()
    assert "45 placements to learn from, 15 held out" in capsys.readouterr().out


def test_a_benchmark_becomes_a_dataset_per_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_here(tmp_path / "runs", ["random", "greedy"], seeds=2)
    monkeypatch.chdir(tmp_path)
    assert main(["dataset", "runs", "--out", "data"]) == 0
    out = tmp_path / "data"
    printed = capsys.readouterr().out
    assert "device-placement/tiny-diamond-v0" in printed
    rows = parquet.read_table(out / "evaluations.parquet").to_pylist()
    assert {row["machine"] for row in rows} == {"desktop", "laptop"}
    assert {row["search"] for row in rows} == {"random", "greedy"}
    dataset = load(out, "tiny-diamond", monkeypatch)
    assert dataset.total_episodes == 3  # two seeds of random, one of greedy
    assert main(["dataset", str(tmp_path / "runs"), "--out", str(out)]) == 2
    assert "exists already; nothing was changed" in capsys.readouterr().err


def test_a_store_becomes_a_table_and_of_known_models_a_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real measurements, of which the table has the times that the evaluator returned."""
    store = tmp_path / "store.sqlite"
    evaluator = evaluator_of("diamond", store)
    placements = [*single_assignments(evaluator).values(), [0, 1, 0, 1]]
    found = [evaluator.evaluate(one).time_s for one in placements]
    evaluator.close()
    out = tmp_path / "data"
    words = ["dataset", "--store", str(store), "--out", str(out)]
    assert main([*words, "--models", "diamond"]) == 0
    rows = parquet.read_table(out / "evaluations.parquet").to_pylist()
    assert sorted(row["time_s"] for row in rows) == pytest.approx(sorted(found))
    assert {row["per"] for row in rows} == {"op"}
    (name,) = (line.split("'")[1] for line in capsys.readouterr().out.splitlines() if "'" in line)
    dataset = load(out, name.removeprefix("device-placement/").removesuffix("-v0"), monkeypatch)
    times = next(iter(dataset.iterate_episodes())).infos["time_s"][1:]
    assert sorted(times) == pytest.approx(sorted(found))
    (unknown,) = read_store(str(store))
    assert unknown.source.open is None
    assert len(unknown.source.model) > 30  # its hash


def test_folders_without_traces_are_refused(tmp_path: Path, made: Path) -> None:
    with pytest.raises(DevicePlacementError, match="neither a benchmark"):
        list(read_folder(tmp_path))
    make_here(tmp_path / "runs", ["greedy"], seeds=1)
    shutil.rmtree(tmp_path / "runs" / "traces")
    with pytest.raises(DevicePlacementError, match="has no traces"):
        list(read_folder(tmp_path / "runs"))
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    content = json.loads((copy / "config.json").read_text())
    content["settings"]["devices"] = "CPU:CACHE_DIR=/tmp/x,GPU"
    (copy / "config.json").write_text(json.dumps(content))
    with pytest.raises(DevicePlacementError, match="which a file may not"):
        list(read_folder(copy))
