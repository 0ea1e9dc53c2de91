"""Pretrained placer: places a problem at once, then samples, and learns from the best samples."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from device_placement.agents.placers.base import PlacerResult, Trace, check_options
from device_placement.agents.placers.greedy import lookahead_placements
from device_placement.agents.placers.parts_apart import parts_apart
from device_placement.agents.placers.pretrained.drawing import (
    FREE,
    Drawn,
    SeenProblem,
    draw,
    joined,
    log_probabilities,
    static_arrays,
)
from device_placement.agents.placers.pretrained.weights import WeightsCard, load_weights
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.agents.policies.construct import ConstructNetwork
from device_placement.envs.arrays import Int64
from device_placement.envs.errors import DevicePlacementWarning
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.known_costs import find_costs
from device_placement.envs.simulation.profile import HardwareProfile
from device_placement.envs.simulation.schedule import schedule_times

GRADIENT_STEPS = 8  # after each round
LEARNING_RATE = 2e-3
ELITE = 4  # placements, the fastest so far, that are imitated
AGAIN = 0.5  # share of a round that draws a part of one of these again
TRIES = 8  # rounds of samples in a row in which hardly any is new, after which it ends
NEW = 0.1  # share of new placements in a round that counts as hardly any


@dataclass(frozen=True)
class Pretrained:
    """Placements by a policy that was trained on generated problems.

    It evaluates the singles and what the policy proposes first, then samples in rounds. After each
    round the policy imitates the fastest placements so far, and of the next samples half are one of
    these in which a window of groups is drawn again. If placements are measured, each device
    runs the model once with OpenVINO's profiler, so that the policy sees costs. It ends before the
    budget is spent when samples are hardly ever new.

    Raises:
        DevicePlacementError: when an option is out of range.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> Pretrained().place(evaluator, budget=10, seed=0).assignment
    (0, 0, 0, 0)
    """

    weights: str = ""
    """File of weights by `device-placement pretrain`; those in the package by default."""
    samples: int = 12
    """Samples per round."""
    profile: str = "auto"
    """If placements are measured: the file of the costs that the policy sees, or auto."""

    def __post_init__(self) -> None:
        check_options(self, samples=(1, math.inf))

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`."""
        trace = Trace(evaluator, budget)
        trace.singles()
        policy = PretrainedPolicy.load(self.weights, evaluator, self.profile, seed)
        with one_thread():
            elite = Elite(policy, seed)
            elite.show(trace, [policy.first(), *parts_apart(evaluator, policy.problem.space)])
            elite.learn(trace, self.samples)
        return trace.result()


class UnfamiliarProblemWarning(DevicePlacementWarning):
    """The problem is larger than all that a policy was trained on."""


class PretrainedPolicy:
    """Pretrained network on one problem.

    Args:
        network: of the policy.
        problem: to place.
        seed: of the samples.
    """

    def __init__(self, network: ConstructNetwork, problem: SeenProblem, seed: int) -> None:
        self.network, self.problem = network, problem
        self._static = static_arrays([problem])
        self._generator = torch.Generator().manual_seed(seed)

    @classmethod
    def load(
        cls, weights: str, evaluator: Evaluator, profile: str | HardwareProfile, seed: int
    ) -> PretrainedPolicy:
        """Load a network for a problem.

        Args:
            weights: file; empty: those in the package.
            evaluator: of the problem.
            profile: see `find_costs`.
            seed: of the samples.

        Raises:
            DevicePlacementError: when the weights can't be used, or costs can't be found.
        """
        network, card = load_weights(weights)
        problem = SeenProblem(
            evaluator.coarse, find_costs(evaluator, profile), SearchSpace.of(evaluator)
        )
        _warn_of_size(problem, card)
        return cls(network, problem, seed)

    def greedy(self) -> list[int]:
        """Return the placement of the likeliest device for each group in turn."""
        with torch.no_grad():
            encoded = self.network(self._static)
        found: list[int] = draw(self.network, [self.problem], encoded, 1).placements[0].tolist()
        return self.repaired(found)

    def first(self) -> list[int]:
        """Return the greedy placement, or one of `lookahead`, whichever the costs say is fastest.

        Where the costs of moves are not known, it is the greedy one.
        """
        known, space = self.problem.known, self.problem.space
        found = [self.greedy()]
        if known.knows_transfers:
            found += lookahead_placements(known.costs, known.schedule, space)
        times_s = schedule_times(known.costs, np.array(found), known.schedule)
        return found[int(times_s.argmin())]

    def repaired(self, placement: Sequence[int]) -> list[int]:
        """Return the placement to evaluate instead of one that breaks constraints.

        The policy learns from what it proposed.
        """
        repairer = self.problem.space.repairer
        if repairer is None:
            return [*placement]
        found: list[int] = repairer.fix(np.asarray(placement)).assignment.tolist()
        return found

    def sample(self, count: int, given: Int64 | None = None) -> Drawn:
        """Draw placements, which may repeat.

        Args:
            count: how many.
            given: (count, num_groups) devices; where FREE, they are drawn; default: all are.
        """
        with torch.no_grad():
            encoded = self.network(self._static)
        return draw(self.network, [self.problem], encoded, count, self._generator, given)

    def imitate(self, shown: list[Drawn], optimizer: torch.optim.Optimizer) -> None:
        """Make a gradient step towards some placements, each with the same weight."""
        encoded = self.network(self._static)
        total = torch.zeros(())
        for one in shown:
            log_probability = log_probabilities(self.network, encoded, one)
            total = total - log_probability.gather(1, one.device[:, None]).mean()
        optimizer.zero_grad()
        (total / len(shown)).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        optimizer.step()


class Elite:
    """Fine-tuning by the elite rule: after each round imitate the fastest placements so far.

    Args:
        policy: to fine-tune.
        seed: of the windows that are drawn again.
    """

    def __init__(self, policy: PretrainedPolicy, seed: int = 0) -> None:
        self._policy = policy
        self._windows = np.random.default_rng(seed)
        self._optimizer = torch.optim.Adam(policy.network.parameters(), lr=LEARNING_RATE)
        self._best: dict[tuple[int, ...], tuple[float, Drawn]] = {}

    def show(self, trace: Trace, placements: Sequence[Sequence[int]]) -> None:
        """Evaluate placements as far as the budget goes, to imitate those that are fast."""
        drawn = self._policy.sample(len(placements), np.array(placements))
        for row, placement in enumerate(placements):
            if not trace.spent:
                self._note(trace.time_s(placement), tuple(placement), drawn.of_rows([row]))

    def _note(self, time_s: float, placement: tuple[int, ...], drawn: Drawn) -> None:
        """Remember a valid placement that is new."""
        if math.isfinite(time_s) and placement not in self._best:
            self._best[placement] = time_s, drawn

    def learn(self, trace: Trace, samples: int) -> None:
        """Sample and learn until the budget is spent, or samples are hardly ever new.

        Args:
            trace: of the evaluations.
            samples: of each round.
        """
        settled = 0
        while not trace.spent and settled < TRIES:
            before = trace.recorder.num_distinct
            self._round(trace, samples)
            new = trace.recorder.num_distinct - before
            settled = 0 if new > samples * NEW else settled + 1

    def _round(self, trace: Trace, samples: int) -> None:
        """Evaluate samples until the budget is spent, then learn from the best ones so far."""
        again = int(samples * AGAIN) if self._best else 0
        drawn = self._policy.sample(samples - again)
        if again:
            drawn = joined([drawn, self._policy.sample(again, self._opened(again))])
        proposed = [*map(tuple, drawn.placements.tolist())]
        wanted = [self._policy.repaired(placement) for placement in proposed]
        trace.prefetch(wanted)
        for row, (placement, one) in enumerate(zip(proposed, wanted, strict=True)):
            if trace.spent:
                break
            self._note(trace.time_s(one), placement, drawn.of_rows([row]))
        fastest = sorted(self._best, key=lambda one: self._best[one][0])[:ELITE]
        self._best = {one: self._best[one] for one in fastest}
        if not self._best or trace.spent:
            return
        self._policy.network.train()
        for _ in range(GRADIENT_STEPS):
            self._policy.imitate([one for _, one in self._best.values()], self._optimizer)
        self._policy.network.eval()

    def _opened(self, count: int) -> Int64:
        """Return some of the fastest placements, each with a window of groups that is FREE.

        Args:
            count: how many; each is as likely to be the fastest as to be one of the others.
        """
        fastest, unit = [*self._best], self._policy.problem.space.unit
        result = np.empty((count, unit.size), dtype=np.int64)
        for row in result:
            rank = self._windows.geometric(0.5) - 1
            row[:] = fastest[min(rank, len(fastest) - 1)]
            length = round(2 ** self._windows.uniform(0, math.log2(unit.size)))
            first = self._windows.integers(1 - length, unit.size)
            window = unit[max(first, 0) : first + length]
            row[np.isin(unit, window)] = FREE
        return result


def _warn_of_size(problem: SeenProblem, card: WeightsCard) -> None:
    """Warn where a problem is larger than all that the policy was trained on."""
    for what, got, most in (
        ("devices", problem.known.costs.num_devices, card.max_devices),
        ("groups", problem.num_groups, card.max_groups),
    ):
        if got > most:
            warnings.warn(
                f"This problem has {got} {what}, and the policy was trained on up to {most}; its "
                "placements may be worse than on smaller ones.",
                UnfamiliarProblemWarning,
                stacklevel=2,
            )


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, as several only wait for each other on small matrices."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def distinct_samples(policy: PretrainedPolicy, count: int) -> Int64:
    """Draw distinct placements, (at most count, num_groups), in the order they were drawn.

    Args:
        policy: that draws.
        count: how many; there are fewer if hardly any is new.
    """
    found: dict[tuple[int, ...], None] = {}
    for _ in range(TRIES):
        for placement in policy.sample(count).placements.tolist():
            found.setdefault(tuple(policy.repaired(placement)))
        if len(found) >= count:
            break
    return np.array([*found][:count])
