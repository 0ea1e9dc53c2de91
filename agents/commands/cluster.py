"""Command `cluster`: the scheduler of a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from device_placement.agents.commands.config import ClusterConfig, TlsOptions
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.files import replaced
from device_placement.envs.measuring.cluster import Tls, import_dask, quiet

NOWHERE = "127.0.0.1:0"  # dask serves pages about itself in any case


def start_cluster(config: ClusterConfig) -> int:
    """Start a scheduler, and serve until Ctrl-C.

    Returns:
        The exit status: 130 after Ctrl-C, 0 after a termination by SIGTERM.

    Raises:
        DevicePlacementError: when dask is missing, the port is taken, or a TLS file is missing.
    """
    if config.lost_after_s <= 0:
        raise DevicePlacementError(
            f"Got --lost-after-s {config.lost_after_s}; give seconds above 0."
        )
    return run_server(_serve(config))


def tls_of(config: TlsOptions) -> Tls:
    """Return the files for TLS."""
    return Tls(config.tls_ca_file, config.tls_cert, config.tls_key)


async def _serve(config: ClusterConfig) -> None:
    distributed, tls = import_dask(), tls_of(config)
    quiet()
    try:
        scheduler = distributed.Scheduler(
            host=config.host,
            port=config.port,
            protocol="tls" if tls.given else "tcp",
            security=tls.security(),
            dashboard=bool(config.dashboard),
            dashboard_address=config.dashboard or NOWHERE,
            worker_ttl=config.lost_after_s,
        )
        await scheduler
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise DevicePlacementError(
            f"Can't listen at {config.host}:{config.port}: {_reason(error)}. Give another --host "
            "or --port."
        ) from error
    async with scheduler:
        if config.scheduler_file:
            with replaced(config.scheduler_file) as draft:
                draft.write_text(json.dumps({"address": scheduler.address}), encoding="utf-8")
        print(_greeting(scheduler.address), flush=True)
        try:
            await scheduler.finished()
        finally:
            if config.scheduler_file:
                Path(config.scheduler_file).unlink(missing_ok=True)


def _greeting(address: str) -> str:
    plain = address.removeprefix("tcp://")
    return "\n".join(
        [
            f"Scheduler at {address}; end it with Ctrl-C.",
            "Whoever reaches it can run code here and on all workers.",
            f"On a target:  device-placement worker {plain}",
            f"From here:    device-placement search MODEL --on {plain}",
        ]
    )


def run_server(serve: Coroutine[Any, Any, None]) -> int:
    """Run a server until it ends, Ctrl-C or SIGTERM; return the exit status."""

    async def main() -> None:
        task = asyncio.ensure_future(serve)
        if sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("", file=sys.stderr)
        return 130
    return 0


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
