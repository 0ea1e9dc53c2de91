"""Cost model that is learned from a dataset of placements, and its error on held-out ones.

Run it on what `device-placement dataset` wrote: python cost_model.py runs/mine/dataset
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

HELD_OUT = 0.25  # share of the distinct placements
RIDGES = (1e-6, 1e-4, 1e-2, 1.0)


def read_placements(dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return the distinct valid placements of a Minari dataset.

    Returns:
        Devices, (num_placements, num_groups); times in s, (num_placements,); edges between groups,
        (2, num_edges); and the number of devices.
    """
    times: dict[tuple[int, ...], float] = {}
    for episode in dataset.iterate_episodes():
        for action, time_s in zip(episode.actions, episode.infos["time_s"][1:], strict=True):
            if np.isfinite(time_s):
                times[tuple(action.tolist())] = float(time_s)
        observations = episode.observations
    real = observations["edge_mask"][0].astype(bool)
    edges = observations["edge_index"][0][:, real]
    num_devices = observations["device_mask"].shape[-1]
    return np.array(list(times)), np.array(list(times.values())), edges, num_devices


def features(placements: np.ndarray, edges: np.ndarray, num_devices: int) -> np.ndarray:
    """Return (num_placements, num_columns): which device runs which group, which edges cross."""
    one_hot = placements[:, :, None] == np.arange(num_devices)
    producers, consumers = placements[:, edges[0]], placements[:, edges[1]]
    ways = [
        (producers == one) & (consumers == two)
        for one in range(num_devices)
        for two in range(num_devices)
        if one != two
    ]
    load = one_hot.sum(axis=1)  # groups on each device
    columns = [one_hot.reshape(len(placements), -1), *ways, load, load.max(axis=1, keepdims=True)]
    return np.concatenate([np.ones((len(placements), 1)), *columns], axis=1).astype(float)


def fit(inputs: np.ndarray, times_s: np.ndarray, ridge: float) -> np.ndarray:
    """Return the weights of a ridge regression in which each relative error counts alike."""
    scaled, target = inputs / times_s[:, None], np.ones(len(times_s))
    gram = scaled.T @ scaled + ridge * np.eye(inputs.shape[1])
    return np.linalg.solve(gram, scaled.T @ target)


def median_error(inputs: np.ndarray, times_s: np.ndarray, weights: np.ndarray) -> float:
    """Return the median relative error of the predictions."""
    return float(np.median(np.abs(inputs @ weights / times_s - 1)))


def evaluate(dataset) -> str:
    """Fit on most placements, and return the error on the others as a line of text."""
    placements, times_s, edges, num_devices = read_placements(dataset)
    if len(times_s) < 20:
        return f"only {len(times_s)} valid placements"
    inputs = features(placements, edges, num_devices)
    order = np.random.default_rng(0).permutation(len(times_s))
    held = order[: int(HELD_OUT * len(order))]
    train = order[len(held) :]
    tune, rest = train[: len(train) // 4], train[len(train) // 4 :]
    ridge = min(
        (scale * np.abs(inputs).mean() for scale in RIDGES),
        key=lambda one: median_error(
            inputs[tune], times_s[tune], fit(inputs[rest], times_s[rest], one)
        ),
    )
    weights = fit(inputs[train], times_s[train], ridge)
    error = median_error(inputs[held], times_s[held], weights)
    constant = np.abs(np.median(times_s[train]) / times_s[held] - 1)
    rank = spearmanr(inputs[held] @ weights, times_s[held]).statistic
    return (
        f"{len(train)} placements to learn from, {len(held)} held out: median error "
        f"{100 * error:.2f} % (of the median time: {100 * np.median(constant):.2f} %), "
        f"rank correlation {rank:.3f}"
    )


def main() -> None:
    """Learn a model of each dataset in a folder, and print its error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="what `device-placement dataset` wrote")
    os.environ["MINARI_DATASETS_PATH"] = str(parser.parse_args().folder.absolute() / "minari")
    import minari  # reads the variable

    for name in sorted(minari.list_local_datasets()):
        print(f"{name}: {evaluate(minari.load_dataset(name))}")


if __name__ == "__main__":
    main()
