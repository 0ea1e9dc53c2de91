"""Connection to a cluster: find its targets, run calls on them, survive lost ones."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
import os
import pickle
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from device_placement.envs.errors import DevicePlacementError, unknown
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.target_report import CLOCK, Report

T = TypeVar("T")
_log = logging.getLogger("device_placement")

INSTALL = "pip install 'device-placement[cluster]'"
POLL_S = 1.0  # between two looks whether a target still exists
BACK_S = 120.0  # for which a lost target or scheduler is waited for
CONNECT_S = 30.0  # for the first connection
SAY_AGAIN_S = 5.0  # after the last message that a scheduler is lost
SILENT_S = 300.0  # after which a scheduler that does not answer counts as lost
COMM_S = 180  # for which a silent connection is kept: a network may stop for a minute
SAME = ("device-placement", "openvino")  # packages whose versions must be equal


class ClusterError(DevicePlacementError):
    """A cluster that can't be reached, lacks a target, or has other versions."""


class LostTargetError(RuntimeError):
    """A target that was lost during a call; another call may find it again."""


class LostSchedulerError(RuntimeError):
    """A scheduler that was lost during a call."""


class NotYetError(Exception):
    """A wait that ended before there was a result."""


@dataclass(frozen=True)
class Worker:
    """Worker of a cluster, as its scheduler knows it."""

    name: str
    address: str
    threads: int
    clock: bool  # whether it is a target, which measures


@dataclass(frozen=True)
class Tls:
    """Files (PEM) for connections by TLS; without any, those of dask's settings."""

    ca_file: str = ""
    cert: str = ""
    key: str = ""

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return bool(self.ca_file or self.cert or self.key)

    def security(self) -> Any:
        """Return dask's description of them.

        Raises:
            ClusterError: when one is missing or can't be read.
        """
        from distributed.security import Security

        if not self.given:
            return Security()
        for name, path in (("ca_file", self.ca_file), ("cert", self.cert), ("key", self.key)):
            if not Path(path).is_file():
                raise ClusterError(
                    f"Got tls_{name}={path!r}, which is no file; TLS needs the files of the "
                    "certificate authority, the own certificate and its private key."
                )
        roles = ("client", "scheduler", "worker")
        own = {f"tls_{role}_cert": self.cert for role in roles}
        own |= {f"tls_{role}_key": self.key for role in roles}
        return Security(tls_ca_file=self.ca_file, require_encryption=True, **own)


def full_address(address: str, tls: bool) -> str:
    """Return an address with its protocol; that in a scheduler file, if it is one.

    Raises:
        ClusterError: when it can't be read.

    >>> full_address("127.0.0.1:8786", tls=False), full_address("ws://here:1", tls=True)
    ('tcp://127.0.0.1:8786', 'ws://here:1')
    """
    if Path(address).is_file():
        try:
            return str(json.loads(Path(address).read_text(encoding="utf-8"))["address"])
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(
                f"Can't read the scheduler file {address!r} ({error}); give that of a dask "
                "scheduler, or HOST:PORT."
            ) from error
    if "://" in address:
        return address
    return f"{'tls' if tls else 'tcp'}://{address}"


def import_dask() -> Any:
    """Return dask.distributed, with connections that outlive a network that stops for a minute.

    Raises:
        ClusterError: when it is not installed.
    """
    try:
        import dask
        import distributed
    except ModuleNotFoundError as error:
        raise ClusterError(
            f"A cluster needs dask.distributed, which is not installed; run {INSTALL}"
        ) from error
    comm = {"timeouts": {"tcp": f"{COMM_S}s"}}
    large = {"large-graph-warning-threshold": "1 GB"}  # inputs of models travel with tasks
    dask.config.update_defaults({"distributed": {"comm": comm, "admin": large}})
    return distributed


def quiet() -> None:
    """Let dask report its end only, in a process that serves, and OpenVINO start no process."""
    # It sends telemetry on import, from a fork. A signal to that one would reach this one, too.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    for name in ("distributed", "bokeh", "tornado"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    for name in [*logging.root.manager.loggerDict]:
        if name.startswith("distributed."):
            logging.getLogger(name).setLevel(logging.CRITICAL)


class Cluster:
    """Connection to a scheduler, opened when it is first used.

    Args:
        address: as dask takes it, or a scheduler file.
        tls: files for TLS.
    """

    def __init__(self, address: str, tls: Tls | None = None) -> None:
        self._tls = tls or Tls()
        self.address = full_address(address, self._tls.given)
        self._client: Any = None
        self._owner = 0  # the process that opened it
        self._opening = threading.Lock()
        self._said = -math.inf
        self._numbers = itertools.count()
        self._prefix = f"device-placement-{uuid.uuid4().hex[:12]}"

    @classmethod
    def of(cls, config: MeasureConfig) -> Cluster:
        """Return the cluster that a configuration names."""
        return cls(config.on, Tls(config.tls_ca_file, config.tls_cert, config.tls_key))

    @property
    def client(self) -> Any:
        """The client, which is connected.

        Raises:
            ClusterError: when the scheduler can't be reached.
        """
        with self._opening:
            if self._client is None or self._owner != os.getpid():
                self._client = self._connected(CONNECT_S)
                self._owner = os.getpid()
            return self._client

    def close(self) -> None:
        """Close the connection; the next call opens another one."""
        with self._opening:
            self._drop()

    def workers(self) -> dict[str, Worker]:
        """Return the workers by name.

        Raises:
            LostSchedulerError: when the scheduler is lost.
        """
        found = self._asked(lambda: self.client.scheduler.identity(n_workers=-1))["workers"]
        workers = {}
        for address, one in found.items():
            name, clock = str(one["name"]), one.get("resources", {}).get(CLOCK, 0) >= 1
            workers[name] = Worker(name, address, int(one["nthreads"]), clock)
        return workers

    def reports(self, workers: Sequence[Worker]) -> dict[str, Report]:
        """Return what workers report of themselves, by name.

        Raises:
            ClusterError: when one has another version of what must be equal.
        """
        from device_placement.envs.measuring import on_target  # with OpenVINO

        found = {}
        for one in workers:
            try:
                report = self.run(one, on_target.report)
            except (ImportError, AttributeError) as error:
                raise ClusterError(
                    f"The worker {one.name!r} has another version of device-placement, without "
                    f"what is needed ({error}); here it is {version('device-placement')}. Install "
                    "that there."
                ) from error
            check_versions(one.name, report.versions)
            found[one.name] = report
        return found

    def run(self, worker: Worker, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a worker at once, beside its tasks.

        Raises:
            LostTargetError: when the worker is lost.
            LostSchedulerError: when the scheduler is lost.
        """
        client = self.client

        async def call() -> Any:
            return await client.run(function, *args, workers=[worker.address])

        try:
            found: T = self._asked(call)[worker.address]
            return found
        except (OSError, KeyError, ValueError) as error:
            if worker.address in {one.address for one in self.workers().values()}:
                raise
            raise LostTargetError(f"the target {worker.name!r} was lost ({error})") from error

    def measure(self, worker: Worker, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a target, when no other such call runs there.

        Raises:
            LostTargetError: when the target is lost.
            LostSchedulerError: when the scheduler is lost.
        """
        where = {"workers": [worker.address], "resources": {CLOCK: 1}}
        future = self.submit(function, *args, **where)
        try:
            while True:
                done = future.done()
                try:
                    found: T = self._result(future)
                    return found
                except NotYetError:
                    pass
                except TimeoutError:
                    if done:  # it is the function's
                        raise
                if worker.address not in self._asked(lambda: self.client.scheduler.ncores()):
                    raise LostTargetError(f"the target {worker.name!r} was lost")
        finally:
            with contextlib.suppress(Exception):  # the scheduler may be gone
                future.cancel()

    def submit(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Submit a task, which runs once but for lost workers; return its future."""
        import cloudpickle

        key = f"{self._prefix}-{next(self._numbers)}"
        call = cloudpickle.dumps((function, args))  # which the scheduler need not understand
        client = self.client
        if client.status != "running":  # dask would keep it back without a word
            raise LostSchedulerError(f"the scheduler at {self.address} was lost")
        try:
            return client.submit(run_task, call, key=key, pure=False, retries=0, **options)
        except Exception as error:  # dask has several for a closed client
            if client.status == "running":
                raise
            raise LostSchedulerError(f"the scheduler at {self.address} was lost") from error

    def restore(self) -> None:
        """Wait for a scheduler that was lost, and connect to it again.

        Raises:
            ClusterError: when it does not come back in `BACK_S`.
        """
        with self._opening:
            if time.monotonic() > self._said + SAY_AGAIN_S:  # several threads may have lost it
                self._said = time.monotonic()
                _log.warning(
                    "The scheduler at %s is lost; waiting up to %g s for it ...",
                    self.address,
                    BACK_S,
                )
            with contextlib.suppress(Exception):  # dask, or another thread, may have restored it
                if self._client is not None and self._client.status == "running":
                    self._client.sync(self._client.scheduler.ncores, callback_timeout=POLL_S)
                    return
            self._drop()
            end = time.monotonic() + BACK_S
            while True:
                try:
                    self._client = self._connected(min(CONNECT_S, BACK_S))
                    self._owner = os.getpid()
                    return
                except ClusterError:
                    if time.monotonic() > end:
                        raise ClusterError(
                            f"The scheduler at {self.address} is gone. All that was measured is "
                            "kept; start it again, then resume the run."
                        ) from None
                    time.sleep(POLL_S / 4)

    def wait_for(self, name: str) -> Worker | None:
        """Return a worker, which is waited for if it was lost; None if it does not come back."""
        end = time.monotonic() + BACK_S
        while True:
            found = self.workers().get(name)
            if found is not None:
                return found
            if time.monotonic() > end:
                return None
            time.sleep(POLL_S / 4)

    def _result(self, future: Any) -> Any:
        from distributed.client import CancelledError

        try:
            return future.result(timeout=POLL_S)
        except CancelledError as error:
            raise LostSchedulerError(f"the scheduler at {self.address} was lost") from error
        except UnboundLocalError as error:  # when it times out at once: dask/distributed#8514
            if future.status == "error":  # it is the function's
                raise
            raise NotYetError from error

    def _asked(self, ask: Callable[[], Any]) -> Any:
        """Return the answer of the scheduler, or of a worker through it."""
        client = self.client
        try:
            return client.sync(ask, callback_timeout=SILENT_S)
        except (OSError, RuntimeError, AttributeError, UnboundLocalError) as error:
            silent = isinstance(error, TimeoutError | UnboundLocalError)  # see `_result`
            if client.status == "running" and not silent:
                raise
            raise LostSchedulerError(f"the scheduler at {self.address} was lost") from error

    def _connected(self, timeout_s: float) -> Any:
        distributed = import_dask()
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # lost ones are our news
        try:
            return distributed.Client(
                self.address,
                security=self._tls.security(),
                timeout=timeout_s,
                set_as_default=False,
            )
        except (OSError, TimeoutError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ClusterError(
                f"Can't reach a scheduler at {self.address} ({reason}). Start one with "
                "`device-placement cluster`, or give the address that it printed."
            ) from error

    def _drop(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._owner == os.getpid():
            with contextlib.suppress(Exception):  # whatever closing a lost one raises
                client.close(timeout=2)


def check_versions(
    name: str, versions: Mapping[str, str], wanted: Mapping[str, str] | None = None
) -> None:
    """Check that a worker has the versions that a client has.

    Args:
        name: of the worker.
        versions: that it has, by package.
        wanted: those of the client; by default of this process.

    Raises:
        ClusterError: when it has others.
    """
    known = {package: version(package) for package in SAME} if wanted is None else wanted
    for package, here in known.items():
        if here != (there := versions.get(package, "none")):
            raise ClusterError(
                f"The worker {name!r} has {package} {there}, but here it is {here}; times and "
                f"results would differ. Install {package} {here} there, or {there} here."
            )


def choose_targets(cluster: Cluster, names: str = "") -> dict[Worker, Report]:
    """Return the targets to measure on, with their reports, by name.

    Args:
        cluster: that has them.
        names: comma-separated; empty: all, which must be alike.

    Raises:
        ClusterError: when there is none, a name is unknown, versions differ, or they are not alike.
    """
    workers = {name: one for name, one in sorted(cluster.workers().items()) if one.clock}
    if not workers:
        raise ClusterError(
            f"The cluster at {cluster.address} has no target; start `device-placement worker "
            f"{cluster.address}` on the machine that is to measure."
        )
    wanted = [part.strip() for part in names.split(",") if part.strip()] or list(workers)
    for name in wanted:
        if name not in workers:
            raise ClusterError(unknown("target", name, workers))
    chosen = [workers[name] for name in dict.fromkeys(wanted)]
    reports = cluster.reports(chosen)
    kinds = {name: report.kind for name, report in reports.items()}
    if len(set(kinds.values())) > 1:
        listed = "; ".join(f"{name}: {kind}" for name, kind in kinds.items())
        raise ClusterError(
            f"Got targets that are not alike, so their times can't be compared: {listed}. Name one "
            "kind of them as target."
        )
    return {worker: reports[worker.name] for worker in chosen}


def run_task(call: bytes) -> Any:
    """Call a function that `Cluster.submit` has pickled, with its arguments."""
    function, args = pickle.loads(call)
    return function(*args)


def lasting(cluster: Cluster, call: Callable[[], T]) -> T:
    """Return the result of a call, which is repeated when the scheduler was lost and came back.

    Raises:
        ClusterError: when it did not come back.
    """
    while True:
        try:
            return call()
        except LostSchedulerError:
            cluster.restore()
