"""Models and placements need only OpenVINO and NumPy; environments import no torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import venv
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import device_placement.envs
from broken_models import whole_onnx
from device_placement.envs import load_model, model_hash
from optimized import deployed, won
from problems import TWO_CPUS, measured

ROOT = Path(__file__).parents[2]
PACKAGES = ("envs", "agents", "benchmarks")


def with_dependencies(*names: str) -> dict[str, Distribution]:
    """Installed distributions and all that they require, extras left out."""
    found: dict[str, Distribution] = {}
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = distribution(name)
            wanted += [
                match[0]
                for requirement in found[name].requires or ()
                if "extra ==" not in requirement and (match := re.match(r"[\w.-]+", requirement))
            ]
    return found


class Bare:
    """A virtual environment that holds this package, OpenVINO, NumPy and what these two require."""

    def __init__(self, folder: Path) -> None:
        builder = venv.EnvBuilder(symlinks=True, with_pip=False)
        builder.create(folder)
        context = builder.ensure_directories(folder)
        self._python = context.env_exe
        packages = Path(self._run("import sysconfig; print(sysconfig.get_path('purelib'))"))
        assert packages.is_relative_to(folder)
        self.modules = set()
        for installed in with_dependencies("openvino", "numpy").values():
            tops = {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}
            for top in tops:
                (packages / top).symlink_to(Path(str(installed.locate_file(top))).resolve())
            self.modules |= {top.partition(".")[0] for top in tops}
        (packages / "device_placement").mkdir()
        for name in PACKAGES:
            (packages / "device_placement" / name).symlink_to(ROOT / name)

    def _run(self, code: str, *arguments: str) -> str:
        command = [self._python, "-I", "-B", "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(self, code: str, *arguments: str) -> Any:
        """The `result` of a piece of code, which imports nothing but what is there."""
        ending = """
            # Without a spec it was not imported: extension modules make some in memory.
            found = {name for name, module in sys.modules.items() if getattr(module, "__spec__", 0)}
            third_party = {name.partition(".")[0] for name in found} - sys.stdlib_module_names
            print(json.dumps({"result": result, "third_party": sorted(third_party)}))
        """
        beginning = "import json, sys\n"
        said = self._run(beginning + textwrap.dedent(code) + textwrap.dedent(ending), *arguments)
        told = json.loads(said.splitlines()[-1])
        assert set(told["third_party"]) <= self.modules | {"device_placement"}
        return told["result"]


@pytest.fixture(scope="module")
def bare(folder: Path) -> Bare:
    return Bare(folder / "bare")


def test_the_bare_environment_is_bare(bare: Bare) -> None:
    assert {"numpy", "openvino"} <= bare.modules
    assert bare.modules.isdisjoint({"gymnasium", "torch", "networkx", "scipy", "setuptools"})
    code = """
        import importlib.util
        names = ("gymnasium", "torch", "networkx", "scipy", "numba", "filelock", "psutil")
        result = [name for name in names if importlib.util.find_spec(name)]
    """
    assert bare.run(code) == []


def test_models_load_and_have_their_hash_with_openvino_alone(bare: Bare, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(whole_onnx().SerializeToString())
    code = """
        from pathlib import Path
        from device_placement.envs import load_model, model_hash
        from device_placement.envs.models.loading import save_model
        from device_placement.envs.models.zoo import ZOO

        folder = Path(sys.argv[1])
        save_model(load_model("diamond"), folder / "diamond.xml")
        sources = *ZOO, folder / "tiny.onnx", folder / "diamond.xml"
        models = {str(source): load_model(source) for source in sources}
        result = {name: model_hash(models[name]) for name in ("diamond", *map(str, sources[-2:]))}
    """
    hashes = bare.run(code, str(tmp_path))
    assert hashes[str(tmp_path / "diamond.xml")] == hashes["diamond"]
    for source in ("diamond", str(tmp_path / "tiny.onnx")):
        assert hashes[source] == model_hash(load_model(source))


def test_placements_are_made_saved_and_compiled_with_openvino_alone(
    bare: Bare, tmp_path: Path
) -> None:
    code = """
        import numpy as np
        from device_placement.envs import (
            Claim, Placement, coarsen, load_model, make_core, model_hash, parse_devices, read_graph
        )

        model, devices = load_model("diamond"), parse_devices(sys.argv[2])
        names = tuple(op.get_friendly_name() for op in model.get_ops())
        ones = {name for name in names if int(name[2:].partition("_")[0]) % 2}
        made = Placement(
            "diamond", model_hash(model), devices, names,
            tuple(int(name in ones) for name in names), Claim("CPU", 1.5)
        )
        made.save(sys.argv[1])
        loaded = Placement.load(sys.argv[1])
        assert loaded == made

        core = make_core(loaded.devices)
        coarse = coarsen(read_graph(model, devices, core=core), "none")
        groups = [group % 2 for group in range(coarse.num_groups)]
        assert list(Placement.from_groups(coarse, devices, groups).to_groups(coarse)) == groups
        assert loaded.with_devices(devices[::-1]).op_devices != loaded.op_devices

        placed = loaded.apply(load_model("diamond"))
        told = {op.get_friendly_name(): op.get_rt_info()["affinity"] for op in placed.get_ops()}
        assert {name for name in names if told[name].astype(str) == devices[1].name} == ones
        compiled = core.compile_model(placed, loaded.hetero_name)
        alone = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        inputs = [np.full(one.shape, 0.5, np.float32) for one in compiled.inputs]
        outputs, expected = compiled(inputs)[0], alone(inputs)[0]
        error = np.linalg.norm(outputs - expected) / np.linalg.norm(expected)
        result = [loaded.hetero_name, float(error)]
    """
    path = tmp_path / "placement.json"
    hetero_name, error = bare.run(code, str(path), TWO_CPUS)
    assert hetero_name == "HETERO:CPU,CPU_F32"
    assert np.isfinite(error)
    assert error < 0.1  # bf16 on one of the two
    placement = device_placement.envs.Placement.load(path)
    assert placement.claim == device_placement.envs.Claim("CPU", 1.5)
    placement.apply(load_model("diamond"))


@pytest.mark.parametrize("how", ["hetero", "dataflow"])
def test_an_optimized_model_runs_with_openvino_alone(bare: Bare, how: str, tmp_path: Path) -> None:
    folder = deployed(tmp_path, measured(), won(how))
    code = """
        import contextlib, io, runpy

        said, path = io.StringIO(), sys.argv[1]
        sys.argv = ["run.py", "--json", "--runs", "2"]
        with contextlib.redirect_stdout(said):
            runpy.run_path(path, run_name="__main__")
        assert not any(name.startswith("device_placement") for name in sys.modules)
        sys.modules.pop("dataflow", None)  # a file of the folder
        result = json.loads(said.getvalue())
    """
    found = bare.run(code, str(folder / "run.py"))
    assert found["median_ms"] > 0
    assert found["output_error"] < 0.1


def test_environments_need_gymnasium(bare: Bare) -> None:
    code = """
        import device_placement.envs as envs
        result = {}
        for name in ("DevicePlacementEnv", "DevicePlacementVectorEnv"):
            try:
                getattr(envs, name)
            except ModuleNotFoundError as error:
                result[name] = error.name
    """
    found = bare.run(code)
    assert set(found) == {"DevicePlacementEnv", "DevicePlacementVectorEnv"}
    assert not set(found.values()) & {None, *bare.modules}


def test_a_broken_gymnasium_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "gymnasium").mkdir()
    (tmp_path / "gymnasium" / "__init__.py").write_text("import a_module_of_nobody\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n    import device_placement.envs\n"
        "except ModuleNotFoundError as error:\n    print(error.name)"
    )
    done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "a_module_of_nobody", done.stderr


def without_torch(code: str, *arguments: str) -> None:
    """Run a piece of code in the full environment, where it must not import torch."""
    code = "import sys\n" + textwrap.dedent(code) + "\nassert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_simulated_environments_import_no_torch() -> None:
    without_torch("""
        import gymnasium as gym
        import device_placement.envs

        env = gym.make("SimulatedDevicePlacement-v0", model="diamond")
        env.reset(seed=0)
        _, reward, *_ = env.step(env.action_space.sample())
        env.close()
    """)


def test_measuring_environments_and_their_process_import_no_torch(tmp_path: Path) -> None:
    worker, log = tmp_path / "logged_worker.py", tmp_path / "imports.txt"
    # The interpreter itself tells of every import, tried ones and those inside functions included.
    worker.write_text(
        textwrap.dedent("""
        import runpy, sys

        log = open(sys.argv[1], "w", buffering=1)
        sys.addaudithook(
            lambda event, given: log.write(f"{given[0]}\\n") if event == "import" else None
        )
        runpy.run_module("device_placement.envs.measuring.worker", run_name="__main__")
    """)
    )
    code = """
        import gymnasium as gym
        import device_placement.envs
        from device_placement.envs.measuring import isolation

        isolation.COMMAND = (sys.executable, "-P", *sys.argv[1:3])
        env = gym.make(
            "DevicePlacement-v0", model="diamond", devices=sys.argv[3], isolation="process",
            store=None, timing="plain", warmup=0, max_samples=2, confirmations=0,
        )
        env.reset(seed=0)
        action = env.action_space.sample()
        action[:] = [place % 2 for place in range(len(action))]
        _, _, _, _, info = env.step(action)
        assert info["time_s"] > 0, info
        env.close()
    """
    without_torch(code, str(worker), str(log), TWO_CPUS)
    imported = {line.partition(".")[0] for line in log.read_text().splitlines()}
    assert {"openvino", "device_placement"} <= imported
    assert imported.isdisjoint({"torch", "torch_geometric", "stable_baselines3"})
    assert "openvino_telemetry.main" not in log.read_text().splitlines()  # which forks
