"""Write one page per environment id, from the template `environments/page.md.in`."""

from __future__ import annotations

from pathlib import Path
from string import Template

from sphinx.application import Sphinx

ENVIRONMENTS = Path(__file__).parents[1] / "environments"
SUFFIXES = {"assign": "", "construct": "Construct", "refine": "Refine"}

# The sentences that differ between the formulations, by placeholder of the template.
TEXTS = {
    "assign": {
        "intro": "Each action proposes a device for every group of ops.",
        "caption": "The proposals of a search, each better than the one before",
        "space": "MultiDiscrete([num_devices] * max_groups)",
        "action": "The action is a whole placement: one device number for each group. Padding "
        "allows device 0 only, and its value is ignored.",
        "reward": "By default the reward of each step is minus the milliseconds per inference of "
        "the proposed placement (`negative_ms`).",
        "invalid": "An invalid placement costs twice the slowest valid single. It does not end "
        'the episode, and `info["error"]` says why it is invalid.',
        "start": "No group is placed.",
        "end": "The episode is truncated after `horizon` proposals. With `horizon=1` it "
        "terminates after the first one.",
    },
    "construct": {
        "intro": "Each action places the next group of ops, so an episode builds one placement.",
        "caption": "An episode: groups get their devices in topological order",
        "space": "Discrete(num_devices)",
        "action": "The action is the device of the next group, in topological order. `cursor` in "
        "the observation points at that group.",
        "reward": "By default the reward is 0 until the last step, and then minus the "
        "milliseconds per inference (`negative_ms`).",
        "invalid": "An invalid placement costs twice the slowest valid single, and "
        '`info["error"]` says why it is invalid.',
        "start": "No group is placed.",
        "end": "The episode terminates when every group has a device. `horizon` is not used.",
    },
    "refine": {
        "intro": "Each action moves one group of ops, so an episode improves one placement.",
        "caption": "An episode: it starts on one device and moves one group at a time",
        "space": "Discrete(max_groups * num_devices)",
        "action": "The action moves one group to one device: its number is "
        "`group * num_devices + device`. A move that changes nothing is legal.",
        "reward": "By default the reward of each step is the number of milliseconds that the move "
        "saves (`improvement_ms`).",
        "invalid": "A move to an invalid placement is undone. Its reward is that of a move to "
        "twice the time of the slowest valid single. It does not end the episode, and "
        '`info["error"]` says why the placement is invalid.',
        "start": "Every group is on the reference device, or on the devices of the placement "
        "`start`.",
        "end": "The episode is truncated after `horizon` moves.",
    },
}
STEPS = {
    "assign": "observation, reward, terminated, truncated, info = "
    "env.step(env.action_space.sample())",
    "construct": "done = False\n"
    "while not done:\n"
    '    allowed = np.flatnonzero(env.get_wrapper_attr("action_masks")())\n'
    "    observation, reward, done, truncated, info = env.step(allowed[-1])",
    "refine": "observation, reward, terminated, truncated, info = env.step(2 * 2 + 1)  "
    "# group 2 to device 1",
}
EXAMPLE = Template("""\
import gymnasium as gym
${imports}
env = gym.make(
    "device_placement.envs:${env_id}",
${arguments}
)
observation, info = env.reset(seed=0)
${steps}
print(f"{1e3 * info['time_s']:.3f} ms, {info['speedup']:.3f} times the reference's speed")""")
MEASURED_ARGUMENTS = """\
    model="diamond",  # a small one; or "resnet50", or a file
    devices="CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32","""
SIMULATED_ARGUMENTS = """\
    model="inception_v3",
    hardware="laptop",
    schedule="concurrent",
    max_groups=32,"""
MANY = Template("""\
## Many copies

`gym.make_vec` makes one environment that steps many copies in compiled code:

```python
import gymnasium as gym

envs = gym.make_vec(
    "device_placement.envs:${env_id}",
    num_envs=8,
    model="diamond",
    autoreset_mode="SameStep",
)
observations, infos = envs.reset(seed=0)  # copy i has the seed 0 + i
observations, rewards, terminated, truncated, infos = envs.step(envs.action_space.sample())
```
""")


def pages() -> dict[str, str]:
    """Return the text of each page by the name of its file, without the ending."""
    return {
        ("simulated_" if simulated else "") + formulation: _page(formulation, simulated)
        for simulated in (False, True)
        for formulation in SUFFIXES
    }


def _page(formulation: str, simulated: bool) -> str:
    measured_id = f"DevicePlacement{SUFFIXES[formulation]}-v0"
    simulated_id = f"Simulated{measured_id}"
    env_id = simulated_id if simulated else measured_id
    texts = dict(TEXTS[formulation])
    texts["picture"] = f"../../pictures/{formulation}.gif"
    if formulation == "assign" and not simulated:
        texts["picture"] = "../../placement.png"
        texts["caption"] = "A measured placement: Inception-V3 in 60 groups on two CPU instances"
    if simulated:
        texts["how"] = (
            "A simulator computes the time of a placement from costs; no device is needed. "
            f"The measured form is [`{measured_id}`]({formulation}.md)."
        )
        texts["not_here"] = (
            "The options for OpenVINO do not apply here. The machines and schedules are on a page "
            "of their own: [Simulator](../../simulator.md)."
        )
    else:
        texts["how"] = (
            "OpenVINO compiles a placement, runs it and times it on the devices of this machine. "
            f"The simulated form is [`{simulated_id}`](simulated_{formulation}.md)."
        )
        texts["not_here"] = (
            "The options for the simulator do not apply here. All options of measuring are on a "
            "page of their own: [Measuring](../../measuring.md)."
        )
    example = EXAMPLE.substitute(
        env_id=env_id,
        imports="import numpy as np\n" if formulation == "construct" else "",
        arguments=SIMULATED_ARGUMENTS if simulated else MEASURED_ARGUMENTS,
        steps=STEPS[formulation],
    )
    vector = simulated and formulation != "refine"
    template = Template((ENVIRONMENTS / "page.md.in").read_text(encoding="utf-8"))
    return template.substitute(
        texts, env_id=env_id, example=example, many=MANY.substitute(env_id=env_id) if vector else ""
    )


def write_pages(app: Sphinx) -> None:
    """Write the pages, where their text has changed."""
    folder = Path(app.srcdir) / "environments" / "generated"
    folder.mkdir(exist_ok=True)
    for name, text in pages().items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
