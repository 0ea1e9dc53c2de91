"""Command `profile`: measure what a model's ops and transfers cost on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tqdm import tqdm

from device_placement.agents.commands.config import ProfileConfig
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.failures import FailureCause, describe_failures
from device_placement.envs.models.loading import parse_input_shapes
from device_placement.envs.profiling.measured_profile import measure_profile
from device_placement.envs.rendering.text import align
from device_placement.envs.simulation.profile import HardwareProfile


def profile_model(config: ProfileConfig) -> int:
    """Measure a profile, write it to a file and print it.

    Ctrl-C leaves no file; the placements measured so far are in the store.

    Raises:
        DevicePlacementError: when the model, a device or a setting is wrong, or the file
            can't be written.
    """
    _check_target(config.out)
    profile = measure_profile(
        config.model,
        config.devices,
        coarsening=config.coarsening,
        max_groups=config.max_groups,
        input_shapes=parse_input_shapes(config.input_shapes),
        inputs=config.inputs or None,
        placements=config.placements,
        seed=config.seed,
        progress=lambda placements: tqdm(placements, unit="placement"),
        measuring=config,
    )
    profile.save(config.out)
    print(describe_profile(profile))
    words = f"--evaluator simulator --profile {config.out}"
    if (schedule := profile.provenance["schedule"]) != "sequential":
        words += f" --schedule {schedule}"
    print(f"\nWritten to {config.out}; predict with {words}")
    return 0


def describe_profile(profile: HardwareProfile) -> str:
    """Return a measured profile as text: devices, fitted costs and prediction errors."""
    found: Any = profile.provenance
    names = [device.name for device in profile.devices]
    flows = found.get("schedule") == "dataflow"
    extra = ("if split", "a region", "a crossing tensor") if flows else ("a subgraph",)
    devices = [("device", "single", "predicted", "factor on op times", *extra)]
    devices += [
        (
            str(device),
            _milliseconds(found["singles"][device.name]["measured_s"]),
            _milliseconds(found["singles"][device.name]["predicted_s"]),
            f"{found['op_time_factors'][device.name]:.3f}",
            *(_region_costs(profile, number) if flows else (_us(profile.subgraph_s[number]),)),
        )
        for number, device in enumerate(profile.devices)
    ]
    links = [("from", "to", "latency", "bandwidth")]
    links += [
        (
            names[a],
            names[b],
            f"{1e6 * profile.latency_s[a, b]:.0f} us",
            f"{profile.bytes_per_s[a, b] / 1e9:.1f} GB/s",
        )
        for a in range(len(names))
        for b in range(len(names))
        if a != b
    ]
    trials = [found[name] for name in ("num_fitted", "num_held_out", "num_failed")]
    counts = f"{trials[0]} fitted, {trials[1]} held out"
    if trials[2]:
        counts += f", {trials[2]} did not run"
    error, correlation = found["held_out_mean_error"], found["held_out_rank_correlation"]
    summary = [
        ("placements", counts),
        ("mean error", "not known" if error is None else f"{error:.2%} of the held-out times"),
        ("rank correlation", "not known" if correlation is None else f"{correlation:.3f}"),
    ]
    lines = [f"{profile.model}, {found['num_groups']} groups", ""]
    lines += [*align(devices, right=range(1, 4 + len(extra))), "", *align(links, right=(2, 3)), ""]
    lines += align(summary)
    causes = [FailureCause(**cause) for cause in found.get("failures", ())]
    if failed := describe_failures(causes, sum(trials)):
        lines += ["", failed]
    return "\n".join(lines)


def _region_costs(profile: HardwareProfile, device: int) -> tuple[str, ...]:
    split = f"x {profile.split_factor[device]:.3f}"
    return split, _us(profile.region_s[device]), _us(profile.crossing_s[device])


def _us(time_s: float) -> str:
    return f"{1e6 * time_s:.0f} us"


def _milliseconds(time_s: float | None) -> str:
    return "does not run" if time_s is None else f"{1e3 * time_s:.3f} ms"


def _check_target(out: str) -> None:
    """Check before a long measurement that its result can be written."""
    path = Path(out)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise DevicePlacementError(
            f"Can't write the profile to {out!r}: give the path of a file in a folder that exists."
        )
