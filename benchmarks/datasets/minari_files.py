"""Minari datasets: recorded placements as episodes of the environment with whole placements."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from device_placement.benchmarks.datasets.recorded import (
    RecordedEvaluator,
    Recording,
    Source,
    by_group,
)
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import Evaluator, single_assignments

NAMESPACE = "device-placement"
FOLDER_VARIABLE = "MINARI_DATASETS_PATH"
ENV_ID = "SimulatedDevicePlacement-v0"
INFOS = ("time_s", "speedup", "num_subgraphs")


def dataset_name(source: Source) -> str:
    """Return the id of the dataset of a source.

    >>> dataset_name(Source("hard small GPU", "bert_base", "small_gpu", "simulator", "", "CPU,GPU"))
    'device-placement/hard-small-GPU-v0'
    """
    return f"{NAMESPACE}/{re.sub('[^A-Za-z0-9]+', '-', source.name).strip('-')}-v0"


def write_dataset(
    folder: Path, source: Source, recordings: Sequence[Recording], horizon: int, limit: int
) -> str:
    """Write the dataset of one source, and return its id.

    The placements of a run, in their order, are the actions of episodes of `horizon` steps. So
    observations, rewards and infos are those that the environment gives for them.

    Args:
        folder: of Minari's datasets.
        source: of all the recordings.
        recordings: runs.
        horizon: steps of an episode; the last one of a run may be shorter.
        limit: evaluations of each run that are used.

    Raises:
        DevicePlacementError: when the source can't be opened here, or none of its placements fits.
    """
    import minari

    if source.open is None:
        raise DevicePlacementError(
            f"The model with the hash {source.model} is not known; name it with --models."
        )
    evaluator = source.open()
    try:
        buffers: list[Any] = []
        for one in recordings:
            buffers += _episodes(evaluator, one, source, horizon, limit, len(buffers))
        if not buffers:
            raise DevicePlacementError("None of its placements fits the model as it is now.")
        env = _env(evaluator, {}, source, horizon)
        name = dataset_name(source)
        with _folder_of_minari(folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no author, no permalink
            minari.create_dataset_from_buffers(
                name,
                buffers,
                env,
                algorithm_name=", ".join(dict.fromkeys(one.search for one in recordings)),
                description=f"Placements of {source.model} on {source.machine} ({source.devices})",
                data_format="parquet",
                requirements=["device-placement"],
            )
        return name
    finally:
        evaluator.close()


@contextlib.contextmanager
def _folder_of_minari(folder: Path) -> Iterator[None]:
    """Let Minari write to a folder; it takes that from the environment's variables."""
    before = os.environ.get(FOLDER_VARIABLE)
    os.environ[FOLDER_VARIABLE] = str(folder.absolute())  # a relative one would be joined twice
    try:
        yield
    finally:
        del os.environ[FOLDER_VARIABLE]
        if before is not None:
            os.environ[FOLDER_VARIABLE] = before


def _env(evaluator: Evaluator, trace: Any, source: Source, horizon: int) -> DevicePlacementEnv:
    env = DevicePlacementEnv(evaluator=RecordedEvaluator.of(evaluator, trace), horizon=horizon)
    if source.arguments is not None:  # so that `recover_environment` can make it
        spec = gym.spec(ENV_ID)
        kwargs = {**spec.kwargs, **source.arguments, "horizon": horizon}
        env.spec = dataclasses.replace(spec, kwargs=kwargs)
    return env


def _episodes(
    evaluator: Evaluator, one: Recording, source: Source, horizon: int, limit: int, first: int
) -> Iterator[Any]:
    """Yield the episodes of a run as Minari's buffers."""
    from minari.data_collector import EpisodeBuffer

    trace = by_group(one, evaluator.coarse)
    if not any(
        tuple(single) in trace and trace[tuple(single)].valid
        for single in single_assignments(evaluator).values()
    ):
        return  # without a single there is no reference
    env = _env(evaluator, trace, source, horizon)
    placements = [*trace][:limit]
    for number, begin in enumerate(range(0, len(placements), horizon)):
        steps = [env.reset(seed=one.seed)]
        rewards: list[float] = []
        chunk = placements[begin : begin + horizon]
        for placement in chunk:
            observation, reward, _, _, info = env.step(placement)
            steps.append((observation, info))
            rewards.append(float(reward))
        observations, infos = zip(*steps, strict=True)
        ends = [False] * (len(chunk) - 1) + [True]
        yield EpisodeBuffer(
            id=first + number,
            seed=one.seed,
            observations=_stacked(observations),
            actions=np.array(chunk, dtype=np.int64),
            rewards=rewards,
            terminations=[end and horizon == 1 for end in ends],
            truncations=[end and horizon > 1 for end in ends],
            infos={key: [float(info[key]) for info in infos] for key in INFOS},
        )


def _stacked(observations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {key: np.stack([one[key] for one in observations]) for key in observations[0]}
