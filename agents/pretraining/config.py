"""Settings of pre-training; light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from device_placement.envs.errors import DevicePlacementError, check_seed

PARTS = 2
"""Parts of a step, which different processes can compute."""

RANGES: Mapping[str, tuple[float, float]] = {
    "steps": (1, 10**8),
    "problems": (2, 1024),
    "samples": (2, 1024),
    "groups": (10, 300),
    "distinct": (0, 10**8),
    "learning_rate": (0, 1),
    "imitation": (0, 1),
    "entropy": (0, 1),
    "teacher_rounds": (0, 10**4),
    "hidden_moves": (0, 1),
    "hidden": (2, 1024),
    "layers": (1, 64),
    "validation": (2, 10**5),
    "validate_every": (1, 10**8),
}
"""Setting -> least and most."""


@dataclass(frozen=True)
class PretrainOptions:
    """Settings that determine the weights.

    Raises:
        DevicePlacementError: when one is out of range.
    """

    steps: int = 900
    """Updates of the network."""
    seed: int = 0
    """Random seed of the weights, the problems and the samples."""
    problems: int = 16
    """Problems per step, each drawn for it."""
    samples: int = 16
    """Placements drawn per problem; fewer of those with more than 80 groups."""
    groups: int = 250
    """Groups of the largest problems; the smallest have 10."""
    distinct: int = 0
    """Distinct problems, which are then repeated step by step; 0: every problem is new."""
    learning_rate: float = 3e-3
    """Learning rate of Adam; it falls linearly to a twentieth."""
    imitation: float = 0.3
    """Weight of the cross-entropy on the best placement known of each problem."""
    entropy: float = 0.003
    """Weight of the entropy."""
    teacher_rounds: int = 16
    """Rounds of the local search that improves the best sample before it is imitated."""
    hidden_moves: float = 0.1
    """Share of the problems in which the policy sees no costs of moves, as where only the times of
    groups are known."""
    hidden: int = 64
    """Size of an embedding."""
    layers: int = 4
    """Rounds of messages."""
    without: str = ""
    """Inputs that the network does not see, to find out what they are worth: costs or
    partial_schedule."""
    validation: int = 100
    """Problems, of seeds set aside, that choose between checkpoints."""
    validate_every: int = 150
    """Steps between two validations."""

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, (least, most) in RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise DevicePlacementError(
                    f"Got {name}={getattr(self, name)}; it must be from {least} to {most}."
                )
        if self.problems % PARTS:
            raise DevicePlacementError(
                f"Got problems={self.problems}; it must be a multiple of {PARTS}, the parts of a "
                "step."
            )
