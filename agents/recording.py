"""An evaluator that keeps the budget and the record of a search."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.devices import Device
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.execution.evaluation import Evaluation, Evaluator, single_assignments

REQUESTS_PER_BUDGET = 10


class RecordingEvaluator:
    """Wraps an evaluator: counts distinct placements, writes each down, knows the best.

    Args:
        inner: who evaluates.
        budget: distinct placements that may be asked for, singles included; a run also
            ends after ten times as many requests.
        log: file to append an evaluation a line to; what it holds already counts as made.
        on_new: called after each distinct evaluation.
        on_best: called after an evaluation that is better than all before.

    Raises:
        DevicePlacementError: when the budget leaves nothing besides the singles, or the
            log is of another problem.

    >>> from device_placement.envs import make_evaluator
    >>> inner = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> recorder = RecordingEvaluator(inner, budget=3)
    >>> [recorder.evaluate([0] * inner.coarse.num_groups).cached for _ in range(2)]
    [False, True]
    >>> recorder.num_distinct, recorder.num_requests
    (1, 2)
    """

    def __init__(
        self,
        inner: Evaluator,
        budget: int,
        log: Path | None = None,
        on_new: Callable[[Evaluation], None] = lambda _: None,
        on_best: Callable[[], None] = lambda: None,
    ) -> None:
        check_budget(budget, len(inner.devices))
        self.inner = inner
        self.budget = budget
        self.num_requests = 0
        self.num_recalled = 0  # evaluations that the evaluator knew from an earlier run
        self.best: tuple[int, ...] = ()
        self.best_s = math.inf
        self._log = log
        self._known: dict[tuple[int, ...], Evaluation] = {}
        self._on_new, self._on_best = on_new, on_best
        if log is not None and log.exists():
            self._replay(log)

    @property
    def coarse(self) -> CoarseGraph:
        """The groups that are placed."""
        return self.inner.coarse

    @property
    def devices(self) -> tuple[Device, ...]:
        """(num_devices,) the devices they are placed on."""
        return self.inner.devices

    @property
    def reference(self) -> int:
        """The device whose single the others are compared with."""
        return self.inner.reference

    @property
    def num_distinct(self) -> int:
        """Distinct placements asked for so far."""
        return len(self._known)

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return (
            self.num_distinct >= self.budget
            or self.num_requests >= REQUESTS_PER_BUDGET * self.budget
        )

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Evaluate one device per group, (num_groups,), and write it down if it is new."""
        key = tuple(map(int, assignment))
        self.num_requests += 1
        if key in self._known:
            return dataclasses.replace(self._known[key], cached=True)
        evaluation = self.inner.evaluate(key)
        self.num_recalled += evaluation.cached
        self._take(key, evaluation)
        self._write(key, evaluation)
        self._on_new(evaluation)
        if self.best == key:
            self._on_best()
        return evaluation

    def known(self, assignment: Sequence[int]) -> Evaluation | None:
        """The evaluation of one device per group, (num_groups,), if it was asked for."""
        return self._known.get(tuple(int(device) for device in assignment))

    def evaluate_singles(self) -> list[Evaluation]:
        """Evaluate every single device first, in the order of the devices."""
        return [self.evaluate(single) for single in single_assignments(self).values()]

    def _take(self, key: tuple[int, ...], evaluation: Evaluation) -> None:
        self._known[key] = evaluation
        if evaluation.valid and evaluation.time_s < self.best_s:
            self.best, self.best_s = key, evaluation.time_s

    def _write(self, key: tuple[int, ...], evaluation: Evaluation) -> None:
        if self._log is None:
            return
        line = {
            "requests": self.num_requests,
            "assignment": key,
            "evaluation": evaluation.to_json(),
        }
        with self._log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _replay(self, log: Path) -> None:
        text = log.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # an interrupted run may have left half a line
        if whole != text:
            log.write_text(whole, encoding="utf-8")
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                entry = json.loads(line)
                key = tuple(int(device) for device in entry["assignment"])
                evaluation = Evaluation.from_json(entry["evaluation"])
                self.num_requests = int(entry["requests"])
            except (ValueError, KeyError, TypeError) as error:
                raise DevicePlacementError(
                    f"Line {number} of {str(log)!r} can't be read: {error}. Begin anew with "
                    "another --out."
                ) from error
            if len(key) != self.coarse.num_groups:
                raise DevicePlacementError(
                    f"{str(log)!r} holds placements of {len(key)} groups; the model has "
                    f"{self.coarse.num_groups}. Resume with the settings it was begun with."
                )
            self._take(key, evaluation)


def check_budget(budget: int, num_devices: int) -> None:
    """Check that a budget leaves something besides the singles.

    Raises:
        DevicePlacementError: when it does not.
    """
    if budget <= num_devices:
        raise DevicePlacementError(
            f"Got a budget of {budget}; {num_devices} of it go to the singles, so it must be at "
            f"least {num_devices + 1}."
        )
