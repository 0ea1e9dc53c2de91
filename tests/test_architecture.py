"""The rules of the house: arrows point one way, heavy packages stay behind their doors."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import pkgutil
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import device_placement.agents
import device_placement.benchmarks
import device_placement.envs

ROOT = Path(__file__).parent.parent

# Inside envs a file imports only from files above it.
ORDER = [
    "errors",
    "compiled",
    "files",
    "drawing",
    "zoo",
    "normalisation",
    "models",
    "devices",
    "flops",
    "graph",
    "quotient",
    "contraction",
    "coarsening",
    "fractal",
    "features",
    "claim",
    "placement",
    "execution.evaluation",
    "execution.timing",
    "execution.settings",
    "execution.machine",
    "execution.verification",
    "execution.measure",
    "execution.bench",
    "execution.local_bench",
    "execution.worker",
    "execution.process",
    "execution.isolation",
    "execution.lock",
    "execution.store_rows",
    "execution.store",
    "execution.recall",
    "execution.reference",
    "execution.identity",
    "execution.estimate",
    "execution.openvino_evaluator",
    "execution.validation",
    "execution.compare",
    "execution.profile",
    "execution.hardware",
    "execution.derive",
    "execution.costs",
    "execution.kernels",
    "execution.schedule",
    "execution.timeline",
    "execution.simulator",
    "workload_files",
    "workloads",
    "execution.factory",
    "execution.calibration",
    "execution.op_times",
    "execution.draws",
    "execution.profiling",
    "rewards",
    "observation",
    "baseline",
    "formulations",
    "findings",
    "episode",
    "parts",
    "layout",
    "rendering",
    "graph_picture",
    "timeline_picture",
    "reports",
    "health",
    "doctor",
    "checking",
    "profiles",
    "env",
    "vector_formulations",
    "vector_inputs",
    "vector_observation",
    "outcomes",
    "ledger",
    "vector_env",
]
OPENVINO_DOORS = ("zoo", "normalisation", "models", "devices", "graph", "execution")
PACKAGES = {"envs": 0, "agents": 1, "benchmarks": 2}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@functools.cache
def imports(path: Path) -> list[str]:
    """Every imported name, those inside functions and type-checking blocks included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the whole name"
            module = node.module or ""
            found += [f"{module}.{alias.name}" for alias in node.names]
    return found


def place(name: str) -> int | None:
    """Where a dotted name inside envs stands in ORDER."""
    for length in (2, 1):
        head = ".".join(name.split(".")[:length])
        if head in ORDER:
            return ORDER.index(head)
    return None


def test_every_file_of_envs_has_its_place() -> None:
    names = [
        ".".join(path.relative_to(ROOT / "envs").with_suffix("").parts)
        for path in sources("envs")
        if path.name != "__init__.py"
    ]
    assert {name for name in names if place(name) is None} == set()
    modules = {name.split(".")[0] for name in names} | set(names)
    assert [entry for entry in ORDER if entry not in modules] == []


@pytest.mark.parametrize("path", sources("envs"), ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_inside_envs_point_up(path: Path) -> None:
    if path == ROOT / "envs" / "__init__.py":  # gives every name
        return
    own = place(".".join(path.relative_to(ROOT / "envs").with_suffix("").parts))
    for name in imports(path):
        if name.startswith("device_placement.envs."):
            other = place(name.removeprefix("device_placement.envs."))
            if own is not None and other is not None:
                assert other <= own, f"{path.name} imports {name}, which stands below it"


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_between_packages_point_one_way(package: str) -> None:
    for path in sources(package):
        for name in imports(path):
            if name.startswith("device_placement."):
                assert PACKAGES[name.split(".")[1]] <= PACKAGES[package], f"{path}: {name}"
            assert name.split(".")[0] not in PACKAGES, f"{path} imports a bare {name}"


def test_openvino_and_torch_stay_behind_their_doors() -> None:
    for path in sources("envs"):
        roots = {name.split(".")[0] for name in imports(path)}
        assert not {"torch", "stable_baselines3"} & roots, path
        if "openvino" in roots:
            door = path.relative_to(ROOT / "envs").parts[0].removesuffix(".py")
            assert door in OPENVINO_DOORS, path
    for package in ("agents", "benchmarks"):
        for path in sources(package):
            assert "openvino" not in {name.split(".")[0] for name in imports(path)}, path


def test_importing_a_package_loads_nothing_heavy() -> None:
    code = (
        "import sys, device_placement.envs, device_placement.agents, device_placement.benchmarks;"
        "print(sorted({'torch', 'openvino', 'numba', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def modules() -> list[str]:
    packages = (device_placement.envs, device_placement.agents, device_placement.benchmarks)
    return [
        module.name
        for package in packages
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    ] + [package.__name__ for package in packages]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_the_wheel_holds_every_package_and_no_bare_one(tmp_path: Path) -> None:
    source = tmp_path / "source"
    skip = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--quiet", "--wheel-dir", str(tmp_path), str(source)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"device_placement"}
    files = [path.relative_to(ROOT) for package in PACKAGES for path in sources(package)]
    assert {f"device_placement/{path.as_posix()}" for path in files} <= set(names)
    assert {f"device_placement/{package}/py.typed" for package in PACKAGES} <= set(names)
    target = tmp_path / "installed"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--quiet", "--target", str(target),
         str(wheel)],
        check=True,
    )  # fmt: skip
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r}); import device_placement.envs as envs; "
        f"sys.exit(not envs.__file__.startswith({str(target)!r}))"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
