"""Processes that compute parts of a step: each part is the same wherever it is computed."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import safetensors.torch
import torch

from device_placement.agents.placers.pretrained.placer import one_thread
from device_placement.agents.policies.construct import ConstructNetwork
from device_placement.agents.pretraining.batches import Batch
from device_placement.agents.pretraining.config import PARTS, PretrainOptions
from device_placement.agents.pretraining.learning import gradient_of
from device_placement.agents.pretraining.validation import validate
from device_placement.envs.arrays import Float64
from device_placement.envs.errors import DevicePlacementError

Result = TypeVar("Result")
Task = Callable[..., Result]


class InThisProcess(Executor):
    """Executor that computes everything at once, here."""

    def submit(
        self, fn: Callable[..., Result], /, *args: object, **kwargs: object
    ) -> Future[Result]:
        """Compute, and return the result as a future."""
        future: Future[Result] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def workers(jobs: int) -> Iterator[Executor]:
    """Start processes with one thread each, and stop them at the end.

    Args:
        jobs: number of processes; 1: none, as this one computes.

    Raises:
        DevicePlacementError: when jobs is below 1.
    """
    if jobs < 1:
        raise DevicePlacementError(f"Got jobs={jobs}; it must be 1 or more.")
    if jobs == 1:
        with one_thread():
            yield InThisProcess()
        return
    # Spawned, not forked: threads of torch and OpenVINO do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, PARTS), context, _begin)
    try:
        yield pool
    except BrokenProcessPool as error:
        raise DevicePlacementError(
            "A process of the training ended, perhaps for want of memory. Add --resume to continue "
            "from the last checkpoint, with --jobs 1 or fewer --problems."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Prepare a process: one thread, and Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


_networks: dict[PretrainOptions, ConstructNetwork] = {}  # of this process


def _network(options: PretrainOptions, weights: bytes) -> ConstructNetwork:
    """Return a network with the weights; one is kept for further calls."""
    if options not in _networks:
        _networks.clear()
        _networks[options] = ConstructNetwork(options.hidden, options.layers, options.without)
    network = _networks[options]
    network.load_state_dict(safetensors.torch.load(weights))
    return network


def compute_gradient(
    options: PretrainOptions, weights: bytes, batch: Batch, stream: Sequence[int]
) -> tuple[bytes, dict[str, float]]:
    """Compute `gradient_of`, with weights and gradients as safetensors."""
    found = gradient_of(_network(options, weights), batch, options, stream)
    return safetensors.torch.save(found.gradients), found.statistics


def compute_validation(options: PretrainOptions, weights: bytes, seeds: Sequence[int]) -> Float64:
    """Compute `validate`, with weights as safetensors."""
    network = _network(options, weights)
    network.eval()
    return validate(network, seeds, options)


def divided(
    pool: Executor, task: Callable[..., Float64], seeds: Sequence[int], *given: object
) -> Float64:
    """Compute an array of some seeds in `PARTS`, and return it in their order.

    Args:
        pool: of the processes.
        task: takes the given arguments and seeds; returns one row per seed.
        seeds: of problems.
        given: arguments of the task.
    """
    parts = np.array_split(np.array(seeds), PARTS)
    futures = [pool.submit(task, *given, part.tolist()) for part in parts if part.size]
    return np.concatenate([one.result() for one in futures])
