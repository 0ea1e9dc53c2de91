"""Evaluator wrapper that records each placement and counts it against the budget."""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import (
    Evaluation,
    Evaluator,
    EvaluatorWrapper,
    single_assignments,
)
from device_placement.envs.failures import FailureCause, group_failures
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.untrusted import check_regular, reading


class RecordingEvaluator(EvaluatorWrapper):
    """Evaluator wrapper that counts distinct placements, logs each and keeps the best.

    Args:
        inner: evaluator to wrap.
        budget: distinct placements that may be requested, singles included; a run also ends
            after ten times as many requests. A `Budget` may be shared by several.
        log: file to append evaluations to, one per line; those it already holds count as made,
            and only transient ones are evaluated again.
        on_new: called after each distinct evaluation.
        on_best: called after an evaluation that is better than all before.

    Raises:
        DevicePlacementError: when the budget covers only the singles, or the log is of
            another problem.

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
        budget: int | Budget,
        log: Path | None = None,
        on_new: Callable[[Evaluation], None] = lambda _: None,
        on_best: Callable[[], None] = lambda: None,
    ) -> None:
        self.shared = budget if isinstance(budget, Budget) else Budget(budget)
        check_budget(self.shared.limit, len(inner.devices))
        super().__init__(inner)
        self.shared.num_possible += num_placements(inner.coarse)
        self.num_requests = 0
        self.num_recalled = 0  # evaluations that the evaluator knew from an earlier run
        self.best: tuple[int, ...] = ()
        self.best_s = math.inf
        self._log = log
        self._known: dict[tuple[int, ...], Evaluation] = {}
        self._ahead: dict[tuple[int, ...], Evaluation] = {}  # recorded after the moment of `rewind`
        self._lost: set[tuple[int, ...]] = set()  # of an earlier run, to be evaluated again
        self._num_lost = 0  # evaluations in a row whose measuring process was lost
        self._leading_s = math.inf  # the best of what is known, without what is ahead
        self._on_new, self._on_best = on_new, on_best
        if log is not None and log.exists():
            self._replay(log)

    @classmethod
    def of(cls, evaluator: Evaluator, budget: int) -> RecordingEvaluator:
        """Return the evaluator itself if it records already, else wrapped with a new record.

        Args:
            evaluator: any.
            budget: for a new record; raised to cover the singles and one more placement.
        """
        if isinstance(evaluator, cls):
            return evaluator
        return cls(evaluator, max(budget, len(evaluator.devices) + 1))

    @property
    def budget(self) -> int:
        """Distinct placements that may be requested by all recorders that share the budget."""
        return self.shared.limit

    @property
    def record(self) -> Mapping[tuple[int, ...], Evaluation]:
        """Evaluations requested so far, in order."""
        return self._known

    @property
    def failures(self) -> tuple[FailureCause, ...]:
        """Why placements failed so far, the most frequent cause first."""
        return group_failures(self._known)

    @property
    def num_distinct(self) -> int:
        """Distinct placements requested so far."""
        return len(self._known)

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self.shared.spent

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Evaluate one device per group, (num_groups,), and log the evaluation if it is new.

        Raises:
            LostError: when nothing can be measured any more.
        """
        key = tuple(map(int, assignment))
        self._count_requests(1)
        if key in self._known and key not in self._lost:
            return dataclasses.replace(self._known[key], cached=True)
        if key in self._ahead and key not in self._lost:
            evaluation = self._ahead.pop(key)
            self._take(key, evaluation)
        else:
            evaluation = self._evaluate(key)
        self._on_new(evaluation)
        if self.best == key:
            self._on_best()
        self._check_losses(evaluation)
        return evaluation

    def prefetch(self, assignments: Sequence[Sequence[int]]) -> None:
        """Prepare for placements that are evaluated next, as far as the budget allows them."""
        wanted = dict.fromkeys(tuple(map(int, one)) for one in assignments)
        new = [one for one in wanted if one not in self._known and one not in self._ahead]
        self.inner.prefetch(new[: max(0, self.shared.limit - self.shared.num_distinct)])

    def rewind(self, num_distinct: int = 0, num_requests: int = 0) -> None:
        """Rewind the record to an earlier moment, from which a search is repeated.

        Later placements are neither evaluated nor logged again when they are requested; the best
        placement stays the best of all. Once anything else is requested, the search has diverged,
        and all later placements count as requested at once.

        Args:
            num_distinct: distinct placements requested until then.
            num_requests: requests made until then.
        """
        entries = [*self._known.items(), *self._ahead.items()]
        self.shared.num_distinct -= len(self._known)
        self._known, self._ahead = {}, dict(entries[num_distinct:])
        self._leading_s = math.inf
        for key, evaluation in entries[:num_distinct]:
            self._take(key, evaluation)
        self._count_requests(num_requests - self.num_requests)

    def known(self, assignment: Sequence[int]) -> Evaluation | None:
        """Return the evaluation of one device per group, (num_groups,), if it was requested."""
        return self._known.get(tuple(int(device) for device in assignment))

    def evaluate_singles(self) -> list[Evaluation]:
        """Evaluate every single in the order of the devices, and return the evaluations.

        Raises:
            DevicePlacementError: when one takes no time, or less than `SHORTEST_S`, so that
                nothing can be faster.
        """
        found = {name: self.evaluate(one) for name, one in single_assignments(self).items()}
        for name, single in found.items():
            if single.time_s < SHORTEST_S:
                raise DevicePlacementError(
                    f"{name} runs {self.coarse.graph.name!r} in no time, so no placement can be "
                    "faster. Give a model that computes something from its inputs."
                )
        return list(found.values())

    def _evaluate(self, key: tuple[int, ...]) -> Evaluation:
        if key in self._lost:
            self._ahead.pop(key, None)
        else:
            self._catch_up()
        evaluation = self.inner.evaluate(key)
        self._lost.discard(key)
        self.num_recalled += evaluation.cached
        self._take(key, evaluation)
        self._write(key, evaluation)
        return evaluation

    def _check_losses(self, evaluation: Evaluation) -> None:
        """Stop the run when not the placements are to blame for many losses in a row."""
        self._num_lost = self._num_lost + 1 if evaluation.transient else 0
        if self._num_lost < LOSSES:
            return
        if self._can_measure():
            self._num_lost = 0
            return
        raise LostError(
            f"Nothing can be measured any more: the last {LOSSES} placements were lost, and so was "
            f"the reference after them. {evaluation.error} All evaluations are kept; remove the "
            "cause, then resume the run."
        )

    def _can_measure(self) -> bool:
        # Imported here, as most runs need it never.
        from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator

        inner = self.unwrapped
        return isinstance(inner, OpenVINOEvaluator) and inner.can_measure()

    def _take(self, key: tuple[int, ...], evaluation: Evaluation) -> None:
        is_new = key not in self._known
        self._known[key] = evaluation
        time_s = evaluation.time_s if evaluation.valid else math.inf
        if is_new:
            self.shared.count(improves=time_s < self._leading_s)
        self._leading_s = min(self._leading_s, time_s)
        if time_s < self.best_s:
            self.best, self.best_s = key, time_s

    def _count_requests(self, number: int) -> None:
        self.num_requests += number
        self.shared.num_requests += number

    def _catch_up(self) -> None:
        """Take all later placements, as the search has diverged from them."""
        ahead, self._ahead = self._ahead, {}
        for key, evaluation in ahead.items():
            self._take(key, evaluation)

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
        size = 0
        for number, line in enumerate(_whole_lines(log), start=1):
            size += len(line)
            try:
                requests, key, evaluation = read_entry(line)
                if key in self._known and not self._known[key].transient:
                    raise ValueError("its placement was evaluated in an earlier line")
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                reason = f"there is no {error}" if isinstance(error, KeyError) else error
                raise DevicePlacementError(
                    f"Can't read line {number} of {str(log)!r}: {reason}. Start a new run with "
                    "another --out."
                ) from error
            if len(key) != self.coarse.num_groups or max(key, default=0) >= len(self.devices):
                raise DevicePlacementError(
                    f"{str(log)!r} holds placements of {len(key)} groups; the model has "
                    f"{self.coarse.num_groups} for {len(self.devices)} devices. Resume with the "
                    "settings of that run."
                )
            self._count_requests(requests - self.num_requests)
            self._take(key, evaluation)
        if size < log.stat().st_size:  # an interrupted run has left half a line
            with log.open("r+b") as file:
                file.truncate(size)
        self._lost = {key for key, one in self._known.items() if one.transient}


SHORTEST_S = 1e-30  # below which a time is none: its inverse may be infinite
MAX_LINE = 1 << 26  # bytes of a line of evaluations that are read


def _whole_lines(log: Path) -> Iterator[bytes]:
    """Yield the lines of a log that have an end.

    Raises:
        DevicePlacementError: when it is not a file, or a line is too long.
    """
    with reading(log, "evaluations", "start a new run with another --out."):
        check_regular(log)
        with log.open("rb") as file:
            while line := file.readline(MAX_LINE):
                if len(line) == MAX_LINE:
                    raise ValueError(f"a line is longer than {MAX_LINE >> 20} MiB")
                if line.endswith(b"\n"):
                    yield line


def read_entry(line: bytes) -> tuple[int, tuple[int, ...], Evaluation]:
    """Return the number of requests, the placement and the evaluation of a line.

    Raises:
        ValueError: when it holds something else; also TypeError, KeyError and RecursionError.
    """
    entry = json.loads(line)
    numbers = [entry["requests"], *entry["assignment"]]
    if not all(type(one) is int and 0 <= one < 2**53 for one in numbers):
        raise ValueError("requests and assignment must be whole numbers from 0 on")
    return numbers[0], tuple(numbers[1:]), Evaluation.from_json(entry["evaluation"])


LOSSES = 5  # in a row after which it is tried whether anything can be measured


class LostError(DevicePlacementError):
    """Error of a run in which the measuring process is lost again and again."""


REQUESTS_PER_BUDGET = 10
MAX_BUDGET = 2**53 // REQUESTS_PER_BUDGET  # so that all counts are exact as floats


class BudgetError(DevicePlacementError):
    """Request for more evaluations than the budget allows."""


@dataclass
class Budget:
    """Counter of a run's requests, for one model or several together.

    >>> budget = Budget(limit=4, patience=2)
    >>> for improves in (True, False, False):
    ...     budget.count(improves)
    >>> budget.spent, budget.out_of_patience
    (True, True)
    """

    limit: int
    """Distinct placements that may be requested, singles included; a run also ends after ten
    times as many requests."""
    patience: int | None = None
    """Distinct placements in a row without a new best of their model after which a run ends."""
    num_distinct: int = 0
    num_requests: int = 0
    num_since_best: int = 0
    """Distinct placements since the last new best of a model."""
    num_possible: int = 0
    """Placements that the models have; 0: not counted."""

    @property
    def out_of_patience(self) -> bool:
        """Whether the last new best is too long ago."""
        return self.patience is not None and self.num_since_best >= self.patience

    @property
    def spent(self) -> bool:
        """Whether the run has to end."""
        limit = min(self.limit, self.num_possible or self.limit)
        return (
            self.num_distinct >= limit
            or self.num_requests >= REQUESTS_PER_BUDGET * limit
            or self.out_of_patience
        )

    def count(self, improves: bool) -> None:
        """Count a distinct placement that is, or is not, a new best of its model."""
        self.num_distinct += 1
        self.num_since_best = 0 if improves else self.num_since_best + 1


def num_placements(coarse: CoarseGraph) -> int:
    """Return the number of placements that a search may request: all supported ones, and singles.

    >>> from device_placement.envs import make_evaluator
    >>> num_placements(make_evaluator("diamond", "CPU,GPU", evaluator="simulator").coarse)
    16
    """
    refused_singles = int((~coarse.supported.all(axis=0)).sum())
    choices: list[int] = coarse.supported.sum(axis=1).tolist()
    return math.prod(choices) + refused_singles


def check_budget(budget: int, num_singles: int, patience: int | None = None) -> None:
    """Check that budget and patience cover more than the singles, and can be counted.

    Raises:
        DevicePlacementError: when they do not.
    """
    if budget > MAX_BUDGET:
        raise DevicePlacementError(
            f"Got a budget of {reprlib.repr(budget)}; give at most {MAX_BUDGET}."
        )
    if budget <= num_singles:
        raise DevicePlacementError(
            f"Got a budget of {budget}; {num_singles} of it go to the singles, so it must be at "
            f"least {num_singles + 1}."
        )
    if patience is not None and patience < num_singles:
        raise DevicePlacementError(
            f"Got a patience of {patience}; the {num_singles} singles alone may bring no new best, "
            f"so it must be at least {num_singles}."
        )
