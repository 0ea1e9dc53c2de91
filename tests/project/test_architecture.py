"""The rules of the house: arrows point one way, heavy packages stay behind their doors."""

from __future__ import annotations

import ast
import doctest
import functools
import importlib
import importlib.util
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

import device_placement.agents
import device_placement.benchmarks
import device_placement.envs

ROOT = Path(__file__).parents[2]

# A folder, or a file that lies beside the folders, imports only from those before it.
ORDER = {
    "envs": (
        *("arrays", "errors", "files", "jit", "rewards", "affinities", "cores", "devices"),
        *("untrusted", "models", "graph", "executors", "costs", "constraints", "repair"),
        *("evaluation", "failures"),
        *("placement", "user_affinities", "observation"),
        *("measuring", "simulation", "problems", "cost_features", "rendering"),
        *("formulations", "action_masks", "factory", "profiling", "known_costs", "parts"),
        *("episode", "env", "measured_vector_env", "graph_observation"),
        *("vector_state", "vector_env", "problem_vector_env"),
    ),
    "agents": (
        *("options", "policies", "presets", "runs", "placers", "optimizing"),
        *("pretraining", "training"),
        *("commands", "output"),
        "cli",
    ),
    "benchmarks": (
        "config",
        "suite",
        "datasets",
        "report",
        "study",
        "on_cluster",
    ),  # and the scripts, each of which may import another
}
OPENVINO_DOORS = ("models", "devices", "graph", "executors", "measuring", "profiling")
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


def module_name(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("device_placement", *(part for part in parts if part != "__init__")))


@functools.cache
def arrows(package: str) -> nx.DiGraph[str]:
    """From each file of a package to those of the same package that it imports."""
    names = {module_name(path) for path in sources(package)}
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(names)
    for path in sources(package):
        if path == ROOT / package / "__init__.py":  # gives every name
            continue
        for imported in imports(path):
            if imported in names:  # a module
                graph.add_edge(module_name(path), imported)
            elif (module := imported.rpartition(".")[0]) in names:  # a name of a module
                graph.add_edge(module_name(path), module)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    return graph


def home(name: str) -> str:
    """The folder of a package that a module lies in, or its own name."""
    return name.split(".")[2]


@pytest.mark.parametrize("package", ORDER)
def test_every_folder_has_its_place(package: str) -> None:
    homes = {home(name) for name in arrows(package) if name.count(".") > 1}
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert folders <= set(ORDER[package]) <= homes
    if package != "benchmarks":
        assert homes == set(ORDER[package])


@pytest.mark.parametrize("package", ORDER)
def test_arrows_inside_a_package_point_one_way(package: str) -> None:
    order = ORDER[package]
    for name, imported in arrows(package).edges:
        own, other = home(name), home(imported)
        if own in order:
            assert other in order, f"{name} imports {imported}"
            assert order.index(other) <= order.index(own), f"{name} imports {imported}"
    loop = list(nx.simple_cycles(arrows(package), length_bound=6))
    assert not loop


QUESTIONS = {
    *("What", "Where", "Who", "How", "Does", "Do", "Is", "Under", "From", "Which", "When", "Why"),
}


@pytest.mark.parametrize("package", PACKAGES)
def test_headers_say_what_is_in_the_file(package: str) -> None:
    headers = {path: ast.get_docstring(ast.parse(path.read_text())) for path in sources(package)}
    first = {str(path): (header or "").split()[:1] for path, header in headers.items()}
    assert {path for path, word in first.items() if not word or word[0] in QUESTIONS} == set()


def documented() -> Iterator[tuple[str, str, list[Path]]]:
    """Each line of the architecture page, its section and the paths that it names.

    A path lies where one before it in the line does, in the package named last, or at the top.
    """
    section, package = "", ROOT
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        section = line.removeprefix("## ") if line.startswith("## ") else section
        found: list[Path] = []
        for text in re.findall(r"`([\w./]+(?:\.py|/))`", line):
            before = [path.parent if path.suffix else path for path in reversed(found)]
            places = [base / text for base in (*before, package, ROOT)]
            paths = [path for path in places if path.exists()]
            assert paths, f"docs/architecture.md names {text}, which is neither of {places}"
            found.append(paths[0])
            package = paths[0] if text.strip("/") in PACKAGES else package
        yield section, line, found


def defined(path: Path) -> set[str]:
    """The names that a file defines."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def test_the_architecture_page_names_paths_and_names_that_exist() -> None:
    named = 0
    for _, line, found in documented():
        patterns = r"`([\w./]+\.py)` \(`(\w+)`\)", r"`(\w+)` (?:in|of) (?:its )?`([\w./]+\.py)`"
        pairs = re.findall(patterns[0], line)
        pairs += [(path, name) for name, path in re.findall(patterns[1], line)]
        for text, name in pairs:
            (path,) = {path for path in found if path.match(text)}
            assert name in defined(path), f"docs/architecture.md looks for {name} in {path}"
        named += len(pairs)
    assert named >= 10  # so that the patterns do find them


def test_the_architecture_page_lists_folders_in_the_order_of_imports() -> None:
    listed: dict[str, list[str]] = {name: [] for name in PACKAGES}
    package = ""
    for section, line, found in documented():
        package = next((path.name for path in found if path.parent == ROOT), package)
        if section == "Folders" and line.startswith("| `"):
            listed[package] += [
                name.rstrip("/") for name in re.findall("`([^`]+)`", line.split("|")[1])
            ]
    for name, order in ORDER.items():
        assert listed[name][: len(order)] == list(order)


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


def test_a_bundled_model_is_ready_without_the_slow_packages() -> None:
    code = (
        "import sys, gymnasium; name = 'device_placement.envs:SimulatedDevicePlacement-v0'; "
        "gymnasium.make(name, model='diamond').reset(); "
        "print(sorted({'torch', 'scipy', 'numba', 'matplotlib', 'networkx'} & set(sys.modules)))"
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


def test_source_and_wheel_build_pass_the_check_and_hold_every_package(tmp_path: Path) -> None:
    """As for a release: `python -m build`, which makes the wheel of the sdist, `twine check`."""
    source = tmp_path / "source"
    skip = shutil.ignore_patterns("__pycache__")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=skip)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    made = [*tmp_path.glob("*.whl"), *tmp_path.glob("*.tar.gz")]
    assert len(made) == 2
    if importlib.util.find_spec("twine") is not None:
        check = [sys.executable, "-m", "twine", "check", "--strict", *map(str, made)]
        subprocess.run(check, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"device_placement"}
    files = [path.relative_to(ROOT) for package in PACKAGES for path in sources(package)]
    assert {f"device_placement/{path.as_posix()}" for path in files} <= set(names)
    assert {f"device_placement/{package}/py.typed" for package in PACKAGES} <= set(names)
    templates = (ROOT / "agents" / "optimizing" / "templates").iterdir()
    assert {f"device_placement/{path.relative_to(ROOT).as_posix()}" for path in templates} <= {
        *names
    }
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
