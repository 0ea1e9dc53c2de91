"""Command `pretrain`: train the weights of the pretrained placer on generated problems."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from tqdm import tqdm

from device_placement.agents.commands.config import PretrainConfig
from device_placement.agents.placers.pretrained.weights import SUFFIX
from device_placement.agents.pretraining.config import PretrainOptions
from device_placement.agents.pretraining.trainer import Pretraining
from device_placement.agents.pretraining.validation import SAMPLES
from device_placement.agents.pretraining.workers import workers
from device_placement.agents.training.checkpoints import check_interval
from device_placement.envs.cores import cpu_affinity
from device_placement.envs.errors import DevicePlacementError


def pretrain(config: PretrainConfig) -> int:
    """Train, and write the weights of the best validation; Ctrl-C stops early.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        DevicePlacementError: when a setting is wrong, or the training can't be resumed.
    """
    check_interval(config.checkpoint_s)
    if not config.out.endswith(SUFFIX):
        raise DevicePlacementError(
            f"Got --out {config.out!r}; weights are written to a file whose name ends in {SUFFIX}."
        )
    names = [field.name for field in dataclasses.fields(PretrainOptions)]
    options = PretrainOptions(**{name: getattr(config, name) for name in names})
    training = Pretraining(options, Path(config.out), config.resume)
    interrupted = False
    bar = tqdm(total=options.steps, initial=training.step, unit="step")
    with workers(config.jobs or len(cpu_affinity())) as pool, bar:
        try:
            training.run(pool, config.checkpoint_s, lambda: bar.update(training.step - bar.n))
        except KeyboardInterrupt:
            interrupted = True
    print(_summary(training, interrupted))
    return 130 if interrupted else 0


def _summary(training: Pretraining, interrupted: bool) -> str:
    """Return what was done, and where it is."""
    done = f"\n{training.step} steps in {training.seconds / 60:.1f} minutes"
    if training.validations:
        step, greedy, best = training.best()
        done += (
            f"; weights of step {step:.0f} in {training.path}: on validation problems "
            f"{100 * greedy:.1f} % slower than the best known, the best of {SAMPLES} samples "
            f"{100 * best:.1f} %"
        )
    if interrupted:
        done += f"\nInterrupted; resume with --resume --out {training.path}"
    return done
