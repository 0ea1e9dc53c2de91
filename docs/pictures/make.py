"""Draw the pictures of the documentation: `python docs/pictures/make.py`.

All of them are of simulated placements of Inception-V3, so that each call draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image

from device_placement.agents import make_placer
from device_placement.agents.placers.base import PlacerResult
from device_placement.envs.rendering.timeline import draw_timeline
from device_placement.envs.simulation.timeline import timeline

HERE = Path(__file__).parent
ID = "device_placement.envs:SimulatedDevicePlacement-v0"
CONSTRUCT = "device_placement.envs:SimulatedDevicePlacementConstruct-v0"
REFINE = "device_placement.envs:SimulatedDevicePlacementRefine-v0"
PROBLEM: dict[str, Any] = {
    "model": "inception_v3",
    "hardware": "paper",
    "schedule": "concurrent",
    "render_mode": "rgb_array",
}
FEW, MANY = 32, 48  # groups of the animations, and of the README's example
WIDTH = 760
COLOURS = 48
FRAME_MS = 350
PAUSE_MS = 2500


def save(frames: Sequence[Any], name: str) -> None:
    """Write frames as an animation that pauses at its end."""
    images = [Image.fromarray(frame) for frame in frames]
    size = (WIDTH, round(WIDTH * images[0].height / images[0].width))
    small = [image.resize(size, Image.Resampling.LANCZOS) for image in images]
    flat = [image.quantize(COLOURS, dither=Image.Dither.NONE) for image in small]
    waits = [FRAME_MS] * (len(flat) - 1) + [PAUSE_MS]
    flat[0].save(
        HERE / name, optimize=True, save_all=True, append_images=flat[1:], duration=waits, loop=0
    )


def play(env_id: str, actions: Sequence[Any], groups: int, horizon: int = 20) -> list[Any]:
    """Return the pictures after the reset and after each action."""
    settings = PROBLEM | {"max_groups": groups, "horizon": horizon}
    env = gym.make(env_id, **settings)
    env.reset(seed=0)
    frames = [env.render()]
    for action in actions:
        env.step(action)
        frames.append(env.render())
    return frames


def search(groups: int) -> tuple[Any, PlacerResult]:
    """Return the evaluator of the problem and what the README's search finds."""
    env = gym.make(ID, **PROBLEM, max_groups=groups)
    evaluator = env.unwrapped.evaluator  # type: ignore[attr-defined]
    return evaluator, make_placer("annealing").place(evaluator, budget=500, seed=0)


def draw_animations() -> None:
    """Draw an episode of each formulation."""
    _, found = search(FEW)
    better: list[tuple[Any, float]] = []
    for assignment, time_s in found.evaluations:
        if not better or time_s < better[-1][1]:
            better.append((assignment, time_s))
    picked = [better[number][0] for number in np.linspace(0, len(better) - 1, 12).astype(int)]
    save(play(ID, [np.array(one) for one in picked], FEW)[1:], "assign.gif")
    whole = play(CONSTRUCT, found.assignment, FEW)
    save(whole[::2], "construct.gif")  # every other step
    moves = [2 * group + device for group, device in enumerate(found.assignment) if device]
    save(play(REFINE, moves, FEW, len(moves)), "refine.gif")


def draw_found() -> None:
    """Draw what the README's search finds: the placement, and what happens when."""
    evaluator, found = search(MANY)
    picture = play(ID, [np.array(found.assignment)], MANY)[-1]
    Image.fromarray(picture).quantize(COLOURS).save(HERE / "found.png", optimize=True)
    events = timeline(evaluator.costs, found.assignment, "concurrent")
    names = [device.name for device in evaluator.devices]
    title = f"Inception-V3, concurrent, {1e3 * found.time_s:.2f} ms"
    draw_timeline(events, names, title).savefig(HERE / "timeline.png", dpi=90)


if __name__ == "__main__":
    draw_animations()
    draw_found()
