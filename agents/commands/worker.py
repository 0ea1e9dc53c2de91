"""Command `worker`: this machine as a target of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import tempfile
from collections.abc import Iterator
from typing import Any

from device_placement.agents.commands.cluster import run_server, tls_of
from device_placement.agents.commands.config import WorkerConfig
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.measuring import on_target
from device_placement.envs.measuring.cluster import (
    CONNECT_S,
    full_address,
    import_dask,
    quiet,
)
from device_placement.envs.measuring.target_report import CLOCK, FOLDER_VARIABLE

HERE = ("127.0.0.1", "localhost", "[::1]", "::1")
AGAIN_S = 1.0  # between two attempts to reach the scheduler


def start_worker(config: WorkerConfig) -> int:
    """Serve a scheduler until Ctrl-C; wait for it while it is away.

    Returns:
        The exit status: 130 after Ctrl-C, 0 after a termination by SIGTERM.

    Raises:
        DevicePlacementError: when dask is missing, a TLS file is, or the scheduler can't reach this
            machine.
    """
    if config.jobs < 1:
        raise DevicePlacementError(f"Got --jobs {config.jobs}; give 1 or more.")
    return run_server(_serve(config))


def _own_host(config: WorkerConfig, address: str) -> str:
    """Return the address to listen at.

    Raises:
        DevicePlacementError: when it has to be given.
    """
    host = address.partition("://")[2].rpartition(":")[0]
    if config.host or not address.startswith(("tcp://", "tls://")):
        return config.host
    if host not in HERE:
        raise DevicePlacementError(
            f"Got the scheduler {address} on another machine, which has to reach this worker, too: "
            "add --host with this machine's own address. Whoever reaches that can run code here: "
            "use TLS, or an ssh tunnel to the scheduler (see the page Cluster of the docs)."
        )
    return HERE[0]


async def _serve(config: WorkerConfig) -> None:
    distributed = import_dask()
    quiet()
    address = full_address(config.address, tls_of(config).given)
    host = _own_host(config, address)
    name = config.name or platform.node()
    print(_greeting(name, address), flush=True)
    with tempfile.TemporaryDirectory(prefix="device-placement-") as folder:
        while True:
            if await _answers(distributed, address, config):
                await _serve_once(distributed, config, address, host, name, folder)
                print(f"The scheduler at {address} is away; waiting for it ...", flush=True)
            await asyncio.sleep(AGAIN_S)


async def _answers(distributed: Any, address: str, config: WorkerConfig) -> bool:
    """Return whether a scheduler listens at an address."""
    arguments = tls_of(config).security().get_connection_args("worker")
    try:
        comm = await distributed.comm.connect(address, timeout=CONNECT_S, **arguments)
    except (TimeoutError, OSError):
        return False
    comm.abort()
    return True


async def _serve_once(
    distributed: Any, config: WorkerConfig, address: str, host: str, name: str, folder: str
) -> None:
    """Serve until the scheduler goes away."""
    import dask

    # Each run of a benchmark has a process of its own, which a daemon may not have.
    with dask.config.set({"distributed.worker.daemon": False}), _saying_why():
        async with distributed.Nanny(
            address,
            name=name,
            nthreads=config.jobs,
            host=host or None,
            worker_port=config.port,
            resources={CLOCK: 1} if config.clock else None,
            security=tls_of(config).security(),
            env={FOLDER_VARIABLE: folder},
            memory_limit=0,  # it is not dask that holds the memory
            local_directory=folder,
            preload=[on_target.__name__],  # takes seconds, in which a worker must answer
            silence_logs=logging.CRITICAL,
            dashboard=False,
            dashboard_address="127.0.0.1:0",
        ) as nanny:
            print(f"Serving {address} as {name!r} at {nanny.worker_address}.", flush=True)
            await nanny.finished()


@contextlib.contextmanager
def _saying_why() -> Iterator[None]:
    """Print why a worker could not start, which it tries again."""
    try:
        yield
    except Exception as error:  # dask has many, such as for a name that is taken
        reason = error.__cause__ or error
        print(f"Trying again: {' '.join(str(reason).split())}", flush=True)


def _greeting(name: str, address: str) -> str:
    found = on_target.report()
    lines = [f"{key:<18}{value}" for key, value in found.machine.items()]
    lines += [f"{one:<18}{full}" for one, full in found.devices.items()]
    return "\n".join([f"Target {name!r} for the scheduler {address}; end it with Ctrl-C.", *lines])
