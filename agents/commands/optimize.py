"""Command `optimize`: from a model to a faster one, with a verdict, a proof and files to run."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_placement.agents.optimizing.as_it_is import AsItIs, measure_as_is
from device_placement.agents.optimizing.clock import Clock
from device_placement.agents.optimizing.config import OptimizeConfig
from device_placement.agents.optimizing.confirm import OPENVINO, Confirmed, confirm, own_way
from device_placement.agents.optimizing.deployment import Check, check, check_room, deploy
from device_placement.agents.optimizing.plan import OptimizeRun, search
from device_placement.agents.optimizing.profiling import FittedProfile, fit_profile
from device_placement.agents.optimizing.report import (
    Optimized,
    describe_as_it_is,
    table,
    write_report,
)
from device_placement.agents.optimizing.verdict import Verdict, judge
from device_placement.agents.runs.folder_lock import is_unused
from device_placement.agents.runs.resume import check_resumed_settings
from device_placement.envs.cores import cpu_affinity
from device_placement.envs.devices import discover_devices
from device_placement.envs.errors import DeviceError, DevicePlacementError
from device_placement.envs.evaluation import single_assignments
from device_placement.envs.executors.choice import hardware_of
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator, as_measuring
from device_placement.envs.measuring.validation import allowed_output_error, claim_of

PROFILE = "profile.json"  # in the folder
FIT_S, EXACT_S = 35.0, 12.0  # of the verdict's two minutes: for placements, for exact plans
RESERVE_S, RESERVE = 15.0, 0.15  # for the end: seconds, and a share of all
SETTLED = 1.05  # a placement this much slower than the best is no candidate


def optimize_model(config: OptimizeConfig) -> int:
    """Make a model faster, print each step, and write the result to a folder.

    Ctrl-C during the search ends it: the best so far is confirmed and written.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        DevicePlacementError: when a setting is wrong, the folder exists, there is nothing to
            place, a device can't be profiled, or nothing can be measured any more.
    """
    _, interrupted = _optimize(config)
    return 130 if interrupted else 0


def optimize(model: str | os.PathLike[str], devices: str = "auto", **options: Any) -> Optimized:
    """Make a model faster, as the command ``device-placement optimize`` does.

    Args:
        model: a bundled model, or the path of a model file.
        devices: as the commands take them.
        options: further fields of `OptimizeConfig`: objective, minutes, max_output_error, inputs
            (an ``.npz`` file), out, verdict and so on.

    Returns:
        The result; its folder holds the files.

    Raises:
        DevicePlacementError: as `optimize_model`.

    Example::

        result = optimize("my_model.onnx", "CPU,GPU", minutes=10)
        print(result.headline, result.folder)
    """
    config = OptimizeConfig(model=os.fspath(model), devices=devices, **options)
    return _optimize(config)[0]


def _optimize(config: OptimizeConfig) -> tuple[Optimized, bool]:
    """Return the result, and whether Ctrl-C ended the search."""
    check_resumed_settings(config)
    if config.out and not config.resume and not is_unused(Path(config.out)):
        raise DevicePlacementError(
            f"The output folder {config.out!r} exists already; nothing was measured or changed. "
            "Give another --out, or continue in it with --resume."
        )
    _check_devices(config)
    clock = Clock(60 * config.minutes)
    with OptimizeRun(dataclasses.replace(config, verdict=False)) as run:
        evaluator = as_measuring(run.models[0].evaluator)
        check_room(run.folder, evaluator)
        clock.say(f"Results go to {run.folder}. Measuring the model as it is ...")
        with _saying_how_to_continue(run.folder):
            return _Steps(config, run, evaluator, clock).run_all()


@contextlib.contextmanager
def _saying_how_to_continue(folder: Path) -> Iterator[None]:
    """Say how to continue after Ctrl-C, and when the disk is full."""
    words = f"--resume --out {shlex.quote(str(folder))}"
    try:
        yield
    except KeyboardInterrupt:
        print(f"\nWhat was measured is kept; continue with {words}", flush=True)
        raise
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        text = f"{error.strerror}: free space, then continue with {words}"
        raise OSError(error.errno, text) from error


class _Steps:
    """Steps of one optimization."""

    def __init__(
        self, config: OptimizeConfig, run: OptimizeRun, evaluator: OpenVINOEvaluator, clock: Clock
    ) -> None:
        self.config, self.run, self.evaluator, self.clock = config, run, evaluator, clock
        self.recorder = run.models[0].recorder
        self.interrupted = False
        self.tried: tuple[tuple[int, ...], ...] = ()  # for the profile

    def run_all(self) -> tuple[Optimized, bool]:
        """Run all steps; return the result, and whether Ctrl-C ended the search."""
        as_it_is = measure_as_is(self.evaluator)
        self.recorder.evaluate_singles()
        print("\n".join(f"  {line}" for line in describe_as_it_is(as_it_is)))
        fitted = self._profile()
        self.tried = fitted.tried
        self.clock.say("Planning with the profile ...")
        verdict = judge(self.evaluator, as_it_is, fitted, EXACT_S)
        print(verdict.describe())
        result = Optimized(self.run.folder, verdict, as_it_is)
        if self.config.verdict:
            return self._reported(result), False
        ended, candidates = "", list[tuple[int, ...]]()
        if verdict.promising:
            ended = self._search(fitted, verdict)
            candidates = self._candidates()
        confirmed = self._confirm(as_it_is, candidates)
        checked = self._deploy(confirmed)
        if not checked.outputs_hold and confirmed.how != OPENVINO:
            self.clock.say(
                f"The outputs differ by {checked.output_error:.3g}, more than allowed; the result "
                "is OpenVINO's own way."
            )
            confirmed = own_way(self.evaluator, as_it_is, confirmed.evaluations)
            checked = self._deploy(confirmed)
        result = dataclasses.replace(result, confirmed=confirmed, ended=ended, check=checked)
        return self._reported(result), self.interrupted

    def _profile(self) -> FittedProfile:
        """Return the profile of an earlier call, or a new one."""
        path = self.run.folder / PROFILE
        if self.config.resume and path.exists():
            return FittedProfile.load(path, self.evaluator)
        self.clock.say("Profiling each device, and fitting costs to a few placements ...")
        deadline = time.monotonic() + min(FIT_S, self.clock.seconds / 4)
        fitted = fit_profile(self.evaluator, self.config.seed, deadline)
        fitted.save(path)
        return fitted

    def _search(self, fitted: FittedProfile, verdict: Verdict) -> str:
        """Search until the time is spent; return why it ended."""
        prediction = verdict.of_executor
        bound_s = prediction.bound_s if prediction.proven else 0.0
        reserve_s = max(RESERVE_S, RESERVE * self.clock.seconds)
        seconds = max(0.0, self.clock.left_s - reserve_s)
        self.clock.say(f"Searching for {seconds:.0f} s; Ctrl-C ends it with the best so far ...")
        deadline = time.monotonic() + seconds
        try:
            with self.run.until(deadline, bound_s, self.clock):
                return search(self.run, fitted, prediction, self.config.seed)
        except KeyboardInterrupt:
            self.interrupted = True
            print("\nInterrupted; the best so far is confirmed and written.", flush=True)
            return "it was interrupted"

    def _candidates(self) -> list[tuple[int, ...]]:
        """Return the fastest valid placements on several devices, the best first."""
        valid = {
            key: one.time_s
            for key, one in self.recorder.record.items()
            if one.valid and len(set(key)) > 1
        }
        best = sorted(valid, key=valid.__getitem__)
        limit_s = SETTLED * self.recorder.best_s
        return [key for key in best if valid[key] <= limit_s]

    def _confirm(self, as_it_is: AsItIs, candidates: list[tuple[int, ...]]) -> Confirmed:
        if candidates:
            self.clock.say("Measuring the best placements again, in turns ...")
        confirmed = confirm(self.evaluator, as_it_is, candidates, self.config.rounds)
        print("\n".join(f"  {line}" for line in table(confirmed)))
        return confirmed

    def _deploy(self, confirmed: Confirmed) -> Check:
        """Write the files, run them in a process of their own, and return what that found."""
        self.clock.say("Writing the result, and running it in a process of its own ...")
        known = list(single_assignments(self.evaluator).values())
        singles = [self.evaluator.evaluate(one) for one in known]
        allowed = None
        if not any(one.unverified for one in singles):
            limit = self.evaluator.config.max_output_error
            allowed = allowed_output_error(self.evaluator, singles, limit)
        claim = claim_of(self.evaluator, self.evaluator.reference, self._over_reference(confirmed))
        deploy(self.run.folder, self.evaluator, confirmed, claim, allowed)
        (self.run.folder / "best_placement.json").unlink(missing_ok=True)
        return check(self.run.folder, allowed, self.config.rounds, self.evaluator.target)

    def _over_reference(self, confirmed: Confirmed) -> float:
        """Return the speed-up over the reference, which the placement claims."""
        evaluator = self.evaluator
        reference = evaluator.evaluate([evaluator.reference] * evaluator.coarse.num_groups)
        if not confirmed.assignment:
            return 1.0
        return reference.time_s / evaluator.evaluate(confirmed.assignment).time_s

    def _reported(self, result: Optimized) -> Optimized:
        """Return the result with its numbers, after writing and printing it."""
        result = dataclasses.replace(
            result,
            num_placements=len({*self.recorder.record, *self.tried}),
            seconds=self.clock.elapsed_s,
        )
        write_report(result, self.evaluator, dataclasses.asdict(self.config))
        self.clock.say("Done.")
        if result.against_verdict:
            print(f"\nVerdict and result: {result.against_verdict}")
        print(f"\n{result.headline}\nEverything is in {result.folder}; begin with RESULT.md.")
        return result


def _check_devices(config: OptimizeConfig) -> None:
    """Check that there is something to place.

    Raises:
        DeviceError: when there is one device, of one core.
    """
    if config.devices.strip() != "auto" or config.on:
        return
    found = {hardware_of(device) for device in discover_devices()}
    cores = cpu_affinity()
    if len(found) < 2 and len(cores) < 2:
        raise DeviceError(
            f"Got --devices auto, which finds one device, the CPU, of which this process may use "
            f"core {cores[0]} only: there is nothing to place, as no second device and no second "
            "core could run a part. Compile the model for CPU, or name devices with --devices."
        )
