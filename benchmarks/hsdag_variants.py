"""Placements that HSDAG finds with the settings of its paper, of its released code, and others.

The paper reports 17.9, 52.1 and 58.2 % below the CPU's time on Inception-V3, ResNet-50 and
BERT-base. Run it with::

    python -m device_placement.benchmarks.hsdag_variants --out hsdag_variants.csv

An interrupted study resumes from the file. Each variant is one change of the paper's settings,
or a named set of several.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from device_placement.agents.placers.exact.min_cut import MinimumCut, minimum_cut
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.agents.presets import preset
from device_placement.agents.presets.preset import Options
from device_placement.agents.runs.recording import RecordingEvaluator
from device_placement.agents.training.algorithms import greedy_assignment, make_algorithm
from device_placement.agents.training.policy_file import PolicyCard
from device_placement.benchmarks.learned_groups import GroupCounter
from device_placement.benchmarks.study import print_table, progress, run, timed
from device_placement.benchmarks.suite.problems import problems_of
from device_placement.benchmarks.suite.results import append_lines, read_lines
from device_placement.benchmarks.suite.suites import Problem
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.errors import choose
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.factory import make_evaluator

PRESET = "hsdag"
STEPS = 20  # of an episode, and of a buffer
TENTH = 10  # the first and last tenth of a training are shown
CHOSEN = "paper"  # the variant that the preset is
ON_ALL = ("released", CHOSEN)  # variants that train on all problems
HEAD = (
    "variant,problem,found,groups allow,optimum,first tenth,last tenth,groups,last,distinct,"
    "one device"
)
NOTE = """In %: 1 - time / CPU's time, medians over the seeds.
Found: the best placement of a training, and its range over the seeds.
Groups allow: the best placement of the groups that the untrained network forms in an episode.
First tenth, last tenth: all its proposals. Groups, last: learned in the first and last tenth.
One device: trainings whose likeliest placement is a single at the end."""

PAPER: Options = {
    "learning_rate": 1e-4,
    "n_epochs": 4,
    "gamma": 0.95,
    "baseline": "none",
    "credit": "own",
    "extractor.passes": 2,
    "extractor.min_score": 0.0,
    "extractor.similarity": 0.0,
    "extractor.moves_state": True,
}
"""Settings of the paper, with gamma of the released code and our own start of the scores."""

NO_STRUCTURE = ("output_shape", "in_degree", "out_degree", "position_sinusoid")


@dataclass(frozen=True)
class Variant:
    """Settings of HSDAG that differ from `PAPER`."""

    summary: str
    changes: Options = field(default_factory=dict)
    """Settings of the algorithm and, after ``extractor.``, of the network."""
    episodes: int = 100
    """Episodes of a training, each of `STEPS` proposals."""
    reward: str = "inverse"
    """A name of `REWARDS`."""
    coarsening: str = "fusion"
    """A method of `coarsen`; that of the suite by default."""
    without: tuple[str, ...] = ()
    """Feature blocks of the preset that are left out."""


FASTER: Options = {"learning_rate": 1e-3}
ONCE: Options = {"n_epochs": 1}
RELEASED: Options = {**FASTER, **ONCE, "credit": "buffer", "extractor.passes": 8}

VARIANTS: Mapping[str, Variant] = {
    "paper": Variant("the paper's settings, which are those of the preset"),
    "one update": Variant("one update per buffer, as released", ONCE),
    "rate 1e-3": Variant("learning rate as released", FASTER),
    "rate 1e-3, one update": Variant("both as released", {**FASTER, **ONCE}),
    "25 episodes": Variant("500 proposals, as released", episodes=25),
    "scaled": Variant("the reward is the speed-up over the CPU", reward="speedup"),
    "one pass": Variant("parsing once", {"extractor.passes": 1}),
    "colocation": Variant("nodes by the paper's co-location", coarsening="colocation"),
    "raw ops": Variant("nodes are ops that are not constant", coarsening="none"),
    "released": Variant(
        "as released in all of this, on nodes by co-location, parsing until nothing merges",
        RELEASED,
        episodes=25,
        coarsening="colocation",
        without=NO_STRUCTURE,
    ),
    "rate 1e-3, baseline": Variant(
        "rate as released, rewards less their mean over the buffer; not published",
        {**FASTER, "baseline": "mean"},
    ),
}
"""Name -> variant."""


@dataclass(frozen=True)
class HsdagVariantsConfig:
    """Options of the study."""

    variants: tuple[str, ...] = tuple(VARIANTS)
    """Variants to train on Inception-V3; some of them also on the suite's other problems."""
    suite: str = "paper"
    """Suite of problems with the schedule sequential on two devices: paper."""
    seeds: int = 5
    """Trainings per variant on Inception-V3, with seeds 0, 1, ..."""
    seeds_elsewhere: int = 2
    """The same on each other problem, where the optimum is a single, which is tried first."""
    episodes: int = 0
    """Episodes of each training; default: the variant's."""
    out: str = ""
    """CSV file with a line per training, to which missing trainings are added; default: none."""


@dataclass(frozen=True)
class Training:
    """Training of a variant."""

    variant: str
    problem: str
    seed: int
    found: float  # % below the CPU's time: 100 (1 - time / CPU's)
    allowed: float  # of the best placement that the first episode's learned groups allow
    ceiling: float  # of the optimum
    first: float  # median of the first tenth of the proposals
    last: float  # of the last tenth
    groups: int  # of the model
    first_groups: float  # learned groups, mean of the first tenth of the proposals
    last_groups: float
    proposals: int
    distinct: int  # proposals
    one_device: bool  # the likeliest placement at the end is a single
    seconds: float


class ProposalLog(GroupCounter):
    """Callback that also keeps the time of each proposal, and the distinct ones."""

    def __init__(self, recorder: RecordingEvaluator) -> None:
        super().__init__(recorder)
        self.times_s: list[float] = []
        self.distinct: set[tuple[int, ...]] = set()

    def _on_step(self) -> bool:
        info = self.locals["infos"][0]
        self.times_s.append(info["time_s"])
        self.distinct.add(tuple(info["placement"]))
        return super()._on_step()


def open_variant(problem: Problem, coarsening: str) -> Evaluator:
    """Return the simulator of a problem with another coarsening."""
    return make_evaluator(
        problem.model,
        problem.devices,
        coarsening=coarsening,
        evaluator="simulator",
        hardware=problem.hardware,
        schedule=problem.schedule,
    )


def best_of_groups(algorithm: BaseAlgorithm, env: DevicePlacementEnv) -> float:
    """Return the seconds of the best placement that an episode's learned groups allow.

    Each proposal has other groups, of which every one is on one device; the best counts.
    """
    evaluator, best_s = env.evaluator, math.inf
    policy: Any = algorithm.policy
    policy.set_training_mode(False)
    observation, _ = env.reset()
    for _ in range(STEPS):
        with torch.no_grad():
            leader = policy.get_distribution(policy.obs_to_tensor(observation)[0]).leader[0]
        _, unit = np.unique(leader[: evaluator.coarse.num_groups], return_inverse=True)
        space = SearchSpace(unit, np.ones((unit.max() + 1, len(evaluator.devices)), np.bool_))
        assert evaluator.costs is not None
        choice, _ = minimum_cut(evaluator.costs, space)
        best_s = min(best_s, evaluator.evaluate(space.assignment(choice)).time_s)
        observation, *_ = env.step(np.zeros(env.coarse.num_groups, dtype=np.int64))
    return best_s


def train(name: str, label: str, problem: Problem, seed: int, episodes: int) -> Training:
    """Train a variant once on a problem with this label."""
    variant = VARIANTS[name]
    evaluator = open_variant(problem, variant.coarsening)
    steps = STEPS * (episodes or variant.episodes)
    recorder = RecordingEvaluator(evaluator, steps + len(evaluator.devices) + 1)
    singles = recorder.evaluate_singles()
    card = PolicyCard(
        PRESET,
        "assign",
        tuple(one for one in preset(PRESET).features if one not in variant.without),
        tuple(map(str, evaluator.devices)),
        (evaluator.coarse.graph.name,),
        {**PAPER, **variant.changes},
    )
    untrained = card.make_env(evaluator, STEPS)
    allowed_s = best_of_groups(
        make_algorithm(PRESET, untrained, seed=seed, overrides=card.overrides), untrained
    )
    env, log = card.make_env(recorder, STEPS, variant.reward), ProposalLog(recorder)
    algorithm = make_algorithm(PRESET, env, seed=seed, overrides=card.overrides)
    _, seconds = timed(algorithm.learn, steps, callback=log)
    optimum_s = MinimumCut().place(evaluator, len(singles) + 1, 0).time_s

    def below(time_s: float) -> float:
        return round(float(100 * (1 - time_s / singles[0].time_s)), 2)

    tenth = max(1, len(log.times_s) // TENTH)
    return Training(
        variant=name,
        problem=label,
        seed=seed,
        found=below(recorder.best_s),
        allowed=below(allowed_s),
        ceiling=below(optimum_s),
        first=below(float(np.median(log.times_s[:tenth]))),
        last=below(float(np.median(log.times_s[-tenth:]))),
        groups=evaluator.coarse.num_groups,
        first_groups=round(float(np.mean(log.counts[:tenth])), 1),
        last_groups=round(float(np.mean(log.counts[-tenth:])), 1),
        proposals=len(log.times_s),
        distinct=len(log.distinct),
        one_device=len(set(greedy_assignment(algorithm, env))) == 1,
        seconds=round(seconds, 1),
    )


def read_trainings(path: str) -> list[Training]:
    """Read the trainings in a file; none if it is missing."""
    kinds: dict[str, Any] = {"int": int, "float": float, "bool": "True".__eq__, "str": str}
    return [
        Training(**{one.name: kinds[str(one.type)](line[one.name]) for one in fields(Training)})
        for line in (read_lines(path) if path else [])
    ]


def row_of(runs: Sequence[Training]) -> tuple[str, ...]:
    """Summarise the trainings of a variant on a problem as a row of the table."""

    def median(name: str) -> float:
        return float(statistics.median(getattr(one, name) for one in runs))

    found = [one.found for one in runs]
    return (
        runs[0].variant,
        runs[0].problem,
        f"{median('found'):.1f} ({min(found):.1f} - {max(found):.1f})",
        *(f"{median(name):.1f}" for name in ("allowed", "ceiling", "first", "last")),
        f"{median('first_groups'):.0f} of {runs[0].groups}",
        f"{median('last_groups'):.0f}",
        f"{median('distinct'):.0f} of {runs[0].proposals}",
        f"{sum(one.one_device for one in runs)} of {len(runs)}",
    )


def main(config: HsdagVariantsConfig) -> int:
    """Make the trainings that are missing, and print the table."""
    torch.set_num_threads(1)
    for name in config.variants:
        choose("variant", name, VARIANTS)
    problems = problems_of(config.suite)
    first = next((one for one in problems if "inception" in one), next(iter(problems)))
    known = {(one.variant, one.problem, one.seed): one for one in read_trainings(config.out)}
    rows, names = [tuple(HEAD.split(","))], [one.name for one in fields(Training)]
    for name in config.variants:
        for label in problems if name in ON_ALL else (first,):
            runs = []
            for seed in range(config.seeds if label == first else config.seeds_elsewhere):
                key = name, label, seed
                if key not in known:
                    known[key] = train(*key[:2], problems[label], seed, config.episodes)
                    if config.out:
                        append_lines(config.out, names, [astuple(known[key])])
                    progress(*astuple(known[key]))
                runs.append(known[key])
            rows.append(row_of(runs))
    print_table(rows, right=range(2, 11))
    print(f"\n{NOTE}\n")
    print("\n".join(f"{name}: {VARIANTS[name].summary}." for name in config.variants))
    return 0


if __name__ == "__main__":
    run(main, HsdagVariantsConfig, __doc__)
