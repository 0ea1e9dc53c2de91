"""The store as a measurement uses it: when it fails, that is reported, and life goes on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from device_placement.envs.errors import StoreError
from device_placement.envs.execution.evaluation import Measurement
from device_placement.envs.execution.store import EvaluationStore

T = TypeVar("T")
_log = logging.getLogger("device_placement")


class Recall:
    """What is known of the placements of one problem.

    Args:
        path: of the store; ``auto`` is the user's; None or ``none`` is no store.
        max_age_s: what is older is not recalled; None: nothing is too old.
    """

    def __init__(self, path: str | None, max_age_s: float | None = None) -> None:
        self._store: EvaluationStore | None = None
        self._complained: set[str] = set()
        if path not in (None, "none"):
            location = None if path == "auto" else path
            age_s = math.inf if max_age_s is None else max_age_s
            self._store = self._try(
                "read", lambda: EvaluationStore(location, max_age_s=age_s), None
            )

    @property
    def path(self) -> str:
        """Where the store lies; empty when there is none, or none that works."""
        return str(self._store.path) if self._store else ""

    def get(self, problem: Mapping[str, Any], op_devices: bytes) -> tuple[Measurement, ...]:
        """Earlier measurements of a placement, oldest first."""
        if (store := self._store) is None:
            return ()
        return self._try("read", lambda: store.get(problem, op_devices), ())

    def add(self, problem: Mapping[str, Any], op_devices: bytes, found: Measurement) -> None:
        """Keep a measurement, if it will hold: no crash, no time-out."""
        lasting = found.failed_to_compile or not found.error
        if lasting and (store := self._store) is not None:
            self._try("write", lambda: store.add(problem, op_devices, found), None)

    def get_reference(self, reference: Mapping[str, Any]) -> tuple[float, ...] | None:
        """The samples in s that a reference time was fixed by."""
        if (store := self._store) is None:
            return None
        return self._try("read", lambda: store.get_reference(reference), None)

    def fix_reference(
        self, reference: Mapping[str, Any], samples_s: Sequence[float]
    ) -> tuple[float, ...]:
        """Fix a reference time; the samples in s that stand, the first writer's."""
        mine = tuple(samples_s)
        if (store := self._store) is None:
            return mine
        return self._try("write", lambda: store.fix_reference(reference, mine), mine)

    def _try(self, what: str, action: Callable[[], T], otherwise: T) -> T:
        """Do it; on failure say so once, and when it was reading stop using the store."""
        try:
            return action()
        except StoreError as error:
            if what == "read":
                self._store = None
            if what not in self._complained:
                self._complained.add(what)
                _log.warning("Going on without remembering evaluations: %s", error)
            return otherwise
