"""Pre-training that can be interrupted: updates, validations, and the files that they leave."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch.utils.tensorboard import SummaryWriter

from device_placement.agents.placers.pretrained.weights import (
    WeightsCard,
    inputs_digest,
    save_weights,
)
from device_placement.agents.policies.construct import ConstructNetwork
from device_placement.agents.pretraining.batches import batch_of, distribution
from device_placement.agents.pretraining.config import PARTS, PretrainOptions
from device_placement.agents.pretraining.validation import (
    SAMPLES,
    best_known_s,
    gaps,
    validation_seeds,
)
from device_placement.agents.pretraining.workers import (
    compute_gradient,
    compute_validation,
    divided,
)
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.files import replaced
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.untrusted import check_types, parse_json, reading

Config = TypeVar("Config", bound=PretrainOptions)

REPEAT = "remove its folder and repeat the training."
LAST_RATE = 0.05  # share of the learning rate at the end
WARM_UP = 20  # steps in which it rises
MAX_NORM = 1.0  # of a gradient


class Pretraining:
    """Training of a construct network on generated problems.

    Every step is a function of the weights, the options and its number, so that a training that was
    interrupted and resumed equals one that was not, whatever the number of processes.

    Args:
        options: what determines the weights.
        path: of the file of weights, which holds those of the best validation so far.
        resume: whether to resume from the last checkpoint.

    Raises:
        DevicePlacementError: when there is already such a training and it is not to be resumed; or
            there is none, or one with other settings, and it is.
    """

    def __init__(self, options: PretrainOptions, path: Path, resume: bool = False) -> None:
        self.options, self.path = options, path
        self.folder, self._checkpoint = _places(path)
        torch.manual_seed(options.seed)
        self.network = ConstructNetwork(options.hidden, options.layers, options.without)
        self._optimizer = torch.optim.Adam(self.network.parameters(), lr=options.learning_rate)
        self.step = 0
        self.seconds = 0.0  # of training, of all sittings
        self.validations: list[list[float]] = []  # step, gap of greedy, gap of the best sample
        self._best_s = np.zeros(0)  # of the problems of the validations
        if resume:
            self._restore()
        elif self.folder.exists() or path.exists():
            raise DevicePlacementError(
                f"{str(path)!r} or {str(self.folder)!r} exists; add --resume to continue that "
                "training, or choose another --out."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._kept = self._snapshot()

    def run(self, pool: Executor, checkpoint_s: float, report: Callable[[], object]) -> None:
        """Train to the end, and leave checkpoints and weights.

        Ctrl-C leaves a checkpoint of the last complete step.

        Args:
            pool: computes the parts of each step.
            checkpoint_s: shortest time between two checkpoints, in seconds.
            report: called after each step.
        """
        steps = self.options.steps
        written_s = time.monotonic()
        logs = str(self.folder / "tensorboard")
        with SummaryWriter(logs, purge_step=self.step or None) as log:
            try:
                if not self._best_s.size:
                    seeds = validation_seeds(self.options)
                    self._best_s = divided(pool, best_known_s, seeds, self.options)
                    self._kept = self._snapshot()
                while self.step < steps:
                    start_s = time.monotonic()
                    self._update(pool, log)
                    if self.step % self.options.validate_every == 0 or self.step == steps:
                        self._validate(pool, log)
                    self.seconds += time.monotonic() - start_s
                    self._kept = self._snapshot()
                    report()
                    if time.monotonic() - written_s >= checkpoint_s:
                        self._save()
                        written_s = time.monotonic()
            finally:
                self._save()

    def best(self) -> list[float]:
        """Return step and gaps of the best validation: the least sum of both gaps."""
        return min(self.validations, key=_score)

    def _update(self, pool: Executor, log: Any) -> None:
        """Make one step."""
        options = self.options
        rate = options.learning_rate * _schedule(self.step, options.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        batch = batch_of(options, self.step)
        weights = safetensors.torch.save(self.network.state_dict())
        size = options.problems // PARTS
        futures = [
            pool.submit(
                compute_gradient,
                options,
                weights,
                dataclasses.replace(batch, seeds=batch.seeds[part * size : (part + 1) * size]),
                (options.seed, self.step, part),
            )
            for part in range(PARTS)
        ]
        results = [one.result() for one in futures]
        found = [safetensors.torch.load(gradients) for gradients, _ in results]
        for name, parameter in self.network.named_parameters():
            given = [one[name] for one in found if name in one]
            parameter.grad = torch.stack(given).mean(dim=0) if given else None
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_NORM)
        self._optimizer.step()
        self.step += 1
        for name in results[0][1]:
            values = [statistics[name] for _, statistics in results]
            log.add_scalar(name, sum(values) / len(values), self.step)
        log.add_scalar("train/gradient_norm", norm.item(), self.step)
        log.add_scalar("train/learning_rate", rate, self.step)

    def _validate(self, pool: Executor, log: Any) -> None:
        """Validate, and keep the weights if they are the best so far."""
        weights = safetensors.torch.save(self.network.state_dict())
        seeds = validation_seeds(self.options)
        times_s = divided(pool, compute_validation, seeds, self.options, weights)
        greedy, best = gaps(times_s, self._best_s).mean(axis=0).tolist()
        log.add_scalar("validation/gap_greedy", greedy, self.step)
        log.add_scalar(f"validation/gap_best_of_{SAMPLES}", best, self.step)
        self.validations.append([self.step, greedy, best])
        if self.best()[0] == self.step:
            save_weights(self.network, self.path, self._card())

    def _card(self) -> WeightsCard:
        step, greedy, best = self.best()
        options = self.options
        return WeightsCard(
            hidden=options.hidden,
            layers=options.layers,
            without=options.without,
            inputs=inputs_digest(),
            max_devices=distribution(options).devices[1],
            max_groups=options.groups,
            training={
                "step": step,
                "problems": int(step) * options.problems,
                "hours": round(self.seconds / 3600, 3),
                "validation_gap_greedy": round(greedy, 4),
                f"validation_gap_best_of_{SAMPLES}": round(best, 4),
                "settings": dataclasses.asdict(options),
                "machine": describe_machine(),
            },
        )

    def _snapshot(self) -> bytes:
        """Return everything that a resumed training needs, as safetensors."""
        tensors = {f"network.{name}": one for name, one in self.network.state_dict().items()}
        states = self._optimizer.state_dict()["state"]
        for number, state in states.items():
            tensors |= {f"optimizer.{number}.{name}": one for name, one in state.items()}
        tensors["best_s"] = torch.from_numpy(self._best_s)
        progress = {
            "options": dataclasses.asdict(self.options),
            "inputs": inputs_digest(),
            "step": self.step,
            "seconds": self.seconds,
            "validations": self.validations,
        }
        return safetensors.torch.save(tensors, {"progress": json.dumps(progress)})

    def _save(self) -> None:
        with replaced(self._checkpoint) as draft:
            Path(draft).write_bytes(self._kept)

    def _restore(self) -> None:
        """Restore the last checkpoint."""
        progress, tensors = _read(self.path)
        differing = [
            f"{name}={value!r}, not {getattr(self.options, name, None)!r}"
            for name, value in progress["options"].items()
            if getattr(self.options, name, None) != value
        ]
        if differing or progress["inputs"] != inputs_digest():
            raise DevicePlacementError(
                f"The training in {str(self.folder)!r} has "
                f"{'; '.join(differing) or 'the inputs of another version'}; leave the setting "
                "out, or choose another --out."
            )
        with reading(self._checkpoint, "a checkpoint", REPEAT):
            self._load(tensors)
            self.step, self.seconds = int(progress["step"]), float(progress["seconds"])
            self.validations = [[*map(float, one)] for one in progress["validations"]]

    def _load(self, tensors: dict[str, torch.Tensor]) -> None:
        weights, states = {}, dict[int, dict[str, torch.Tensor]]()
        for name, one in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "network":
                weights[rest] = one
            elif kind == "optimizer":
                number, _, key = rest.partition(".")
                states.setdefault(int(number), {})[key] = one
        self.network.load_state_dict(weights)
        state = self._optimizer.state_dict()
        self._optimizer.load_state_dict({**state, "state": states})
        self._best_s = tensors["best_s"].numpy()


def resume_config(kind: type[Config], out: str, *, trusted: Config) -> Config:
    """Return the settings of a training that is to be resumed.

    Args:
        kind: class of the settings.
        out: file of its weights.
        trusted: settings that the user gave; those that don't determine the weights are kept.

    Raises:
        DevicePlacementError: when there is no such training, or its checkpoint can't be read.
    """
    progress, _ = _read(Path(out))
    with reading(_places(Path(out))[1], "a checkpoint", REPEAT):
        check_types("setting", progress["options"], PretrainOptions)
        return dataclasses.replace(trusted, **progress["options"])


def _places(path: Path) -> tuple[Path, Path]:
    """Return the folder of a training and its checkpoint, by the file of its weights."""
    folder = path.with_name(f"{path.stem}_training")
    return folder, folder / "checkpoint.safetensors"


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return progress and tensors of a checkpoint, by the file of the weights."""
    _, checkpoint = _places(path)
    if not checkpoint.exists():
        raise DevicePlacementError(
            f"--resume needs --out with the weights of an earlier training; got {str(path)!r}, "
            f"beside which there is no {checkpoint.parent.name}/{checkpoint.name}."
        )
    with reading(checkpoint, "a checkpoint", REPEAT):
        with safetensors.safe_open(checkpoint, framework="pt") as opened:
            progress = dict(parse_json((opened.metadata() or {})["progress"]))
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        _ = {**progress["options"]}, progress["inputs"]
    return progress, tensors


def _score(validation: Sequence[float]) -> float:
    _, greedy, best = validation
    return greedy + best


def _schedule(step: int, steps: int) -> float:
    """Return the learning rate of a step, over the highest."""
    falls = 1.0 - (1.0 - LAST_RATE) * min(step / steps, 1.0)
    return min((step + 1) / WARM_UP, 1.0) * falls
