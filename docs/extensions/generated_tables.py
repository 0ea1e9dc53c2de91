"""Directive `generated`: parts of pages that are made of the code when the site is built.

A page says which part it wants, and with which argument::

    ```{generated} presets
    ```
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import gymnasium as gym
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from device_placement.agents.cli import COMMANDS
from device_placement.agents.placers import PLACERS
from device_placement.agents.presets import PRESETS
from device_placement.benchmarks.datasets.table import COLUMNS
from device_placement.benchmarks.report import leaderboard as ranking
from device_placement.benchmarks.suite.suites import SUITES, Problem
from device_placement.envs import DevicePlacementEnv, MeasureConfig
from device_placement.envs.constraints import CONSTRAINTS
from device_placement.envs.graph.features import FEATURE_BLOCKS
from device_placement.envs.rewards import DEFAULT_REWARDS, REWARDS
from device_placement.envs.simulation.hardware import HARDWARE

ROOT = Path(__file__).parents[2]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(one.replace("|", "\\|") for one in row) + " |" for row in lines
    )


def code(names: Iterable[str]) -> str:
    """Return names as code, separated by commas."""
    return ", ".join(f"`{name}`" for name in names)


def ends(names: Iterable[str]) -> str:
    """Return names as code; of many only the first two and the last."""
    several = list(names)
    if len(several) <= 4:
        return code(several)
    return f"{code(several[:2])}, ..., {code(several[-1:])}"


def constraints() -> str:
    """Return a table of constraints."""
    rows = [[f"`{name}`", meaning] for name, meaning in CONSTRAINTS.items()]
    return table(["constraint", "what it demands"], rows)


def presets() -> str:
    """Return a table of presets."""
    rows = [
        [f"`{name}`", one.summary, code(one.formulations), one.source]
        for name, one in PRESETS.items()
    ]
    return table(["preset", "what it is", "formulations, its own first", "source"], rows)


def preset_differences() -> str:
    """Return a list of what presets do in another way than their sources."""
    return "\n".join(
        f"- `{name}`: {one.differs}" for name, one in PRESETS.items() if one.differs != "-"
    )


def placers() -> str:
    """Return a table of placers."""
    rows = [
        [f"`{name}`", one.summary, "simulator" if one.needs_costs else "simulator, clock"]
        for name, one in PLACERS.items()
    ]
    return table(["placer", "what it does", "works with"], rows)


def rewards() -> str:
    """Return a table of rewards."""
    default = {
        name: [one for one in DEFAULT_REWARDS if DEFAULT_REWARDS[one] == name] for name in REWARDS
    }
    rows = [
        [f"`{name}`", _result(function), code(default[name])] for name, function in REWARDS.items()
    ]
    return table(["`reward=`", "what it is", "the default of"], rows)


def hardware() -> str:
    """Return a table of machines."""
    rows = [
        [f"`{name}`", one.title, ends(one.devices), code(one.default), "; ".join(one.sources)]
        for name, one in HARDWARE.items()
    ]
    return table(["`hardware=`", "machine", "devices", "`auto` is", "sources"], rows)


def features() -> str:
    """Return a table of feature blocks."""
    rows = [
        [f"`{name}`", str(block.width), _result(block.function)]
        for name, block in FEATURE_BLOCKS.items()
    ]
    return table(["block", "columns", "what it is"], rows)


def suites() -> str:
    """Return a table of suites of problems."""
    rows = [
        [f"`{name}`", one.summary, str(len(one.problems)), str(one.budget)]
        for name, one in SUITES.items()
    ]
    return table(["suite", "what it is", "problems", "budget"], rows)


def commands() -> str:
    """Return a table of commands."""
    rows = [[f"`{name}`", one.summary] for name, one in COMMANDS.items()]
    return table(["command", "what it does"], rows)


def studies() -> str:
    """Return a table of the scripts of measurements."""
    rows = []
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(one, ast.If) and "__main__" in ast.dump(one.test) for one in tree.body):
            header = (ast.get_docstring(tree) or "").partition("\n")[0]
            rows.append([f"`{path.stem}`", header])
    return table(["study", "what it does"], rows)


def measuring() -> str:
    """Return a table of the options of measuring, from the fields of their class."""
    return table(["option", "default", "meaning"], _fields(MeasureConfig))


def problem_keys() -> str:
    """Return a table of the keys of a problem in a suite's file."""
    return table(["key", "default", "meaning"], _fields(Problem))


def columns() -> str:
    """Return a table of the columns of a dataset's table."""
    rows = [[f"`{name}`", meaning] for name, meaning in COLUMNS.items()]
    return table(["column", "content"], rows)


def leaderboard() -> str:
    """Return the rankings of the committed results."""
    return ranking.leaderboard(ROOT / "benchmarks" / "results")


def _fields(kind: type[object]) -> list[list[str]]:
    """Return name, default and docstring of each field of a class, as cells."""
    tree = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(tree, ast.ClassDef)
    rows = []
    for field, doc in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(doc, ast.Expr):
            default = f"`{ast.unparse(field.value)}`" if field.value is not None else ""
            text = " ".join(ast.literal_eval(doc.value).split())
            rows.append([f"`{ast.unparse(field.target)}`", default, text])
    return rows


def registration(env_id: str) -> str:
    """Return what the registry says of an environment, and its spaces on a small model."""
    spec = gym.spec(env_id)
    simulated = env_id.startswith("Simulated")
    name = env_id if simulated else f"Simulated{env_id}"
    env = gym.make(name, model="diamond", hardware="desktop")
    groups = env.unwrapped.coarse.num_groups  # type: ignore[attr-defined]
    space = f"`{env.action_space}` for a model of {groups} groups on two devices"
    env.close()
    copies = "one; a list of them with Gymnasium's or stable-baselines3's wrappers"
    if spec.vector_entry_point:
        copies = "one, or many in compiled code with `gymnasium.make_vec`"
    clock = "`simulator`: costs, no clock" if simulated else "`openvino`: compile, run, time"
    rows = [
        ["Make", f'`gymnasium.make("device_placement.envs:{env_id}")`'],
        ["Action space", space],
        ["Formulation", f"`{spec.kwargs['formulation']}`"],
        ["Evaluator", clock],
        ["Deterministic", "no: times are measured" if spec.nondeterministic else "yes"],
        ["Copies", copies],
    ]
    return table(["", ""], rows)


def contract(title: str) -> str:
    """Return a section of the docstring of `DevicePlacementEnv`, which is Markdown."""
    return "\n".join(_joined(_sections()[title.replace("_", " ")].splitlines()))


def arguments() -> str:
    """Return a table of the arguments of `DevicePlacementEnv`, but `options`."""
    described = _described(_sections()["Arguments"])
    rows = []
    for name, parameter in inspect.signature(DevicePlacementEnv).parameters.items():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            default = "the default blocks" if name == "features" else f"`{parameter.default!r}`"
            rows.append([f"`{name}`", default, described[name]])
    return table(["argument", "default", "meaning"], rows)


def options() -> str:
    """Return a list of further options, from the docstring of `DevicePlacementEnv`."""
    text = _described(_sections()["Arguments"])["options"]
    first, *kinds = re.split(r"(?<=\.) (?=For )", text)
    return "\n".join([first[:1].upper() + first[1:], "", *(f"- {one}" for one in kinds)])


def _sections() -> dict[str, str]:
    text = inspect.getdoc(DevicePlacementEnv) or ""
    parts = re.split(r"^## (.+)\n", text.partition("\n>>>")[0], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _described(text: str) -> dict[str, str]:
    """Return the entries of the section `Args`, each on one line."""
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", text, flags=re.MULTILINE)
    return {name: " ".join(words.split()) for name, words in found}


def _joined(lines: Sequence[str]) -> list[str]:
    """Join rows of a table that begin with empty cells to the row above."""
    result: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("| |") and result:
            above = [cell.strip() for cell in result[-1].strip().strip("|").split("|")]
            pairs = zip(above, cells, strict=True)
            line = "| " + " | ".join(" ".join(pair).strip() for pair in pairs) + " |"
            result.pop()
        result.append(line)
    return result


def _result(function: Callable[..., object]) -> str:
    """Return what the first line of a function's docstring says that it returns."""
    text = (inspect.getdoc(function) or "").partition("\n")[0].removeprefix("Return ")
    return text[:1].upper() + text[1:]


PARTS: dict[str, Callable[..., str]] = {
    one.__name__: one
    for one in (
        *(presets, preset_differences, placers, rewards, hardware, features, suites, commands),
        *(studies, measuring, registration, contract, arguments, options, constraints),
        *(problem_keys, columns, leaderboard),
    )
}


class Generated(SphinxDirective):
    """Insert a part, parsed as the Markdown that it is."""

    required_arguments = 1
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the part."""
        self.env.note_reread()
        return self.parse_text_to_nodes(PARTS[self.arguments[0]](*self.arguments[1:]))


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("generated", Generated)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
