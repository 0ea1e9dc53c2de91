"""The workflow that tests other systems: what it runs exists, and it leaves out no version."""

from __future__ import annotations

import configparser
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text("utf-8"))
JOB = WORKFLOW["jobs"]["test"]


def test_every_supported_python_is_tried_on_every_system() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    classifiers = config["metadata"]["classifiers"]
    assert JOB["strategy"]["matrix"]["python"] == re.findall(r"Python :: (3\.\d+)", classifiers)
    systems = [name.partition("-")[0] for name in JOB["strategy"]["matrix"]["system"]]
    assert systems == ["ubuntu", "windows", "macos"]


def test_its_steps_are_targets_of_the_makefile() -> None:
    jobs = WORKFLOW["jobs"].values()
    commands = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    targets = {word for command in commands for word in command.split()[1:] if "=" not in word}
    assert {"test", "lint", "types", "recipes"} <= targets
    makefile = (ROOT / "Makefile").read_text("utf-8")
    known = set(re.findall(r"^([\w./]+):", makefile, re.MULTILINE))
    assert all(command.startswith("make ") for command in commands)
    assert targets <= known


def test_on_windows_the_makefile_finds_the_programs_of_the_environment() -> None:
    for system, python in (("Windows_NT", ".venv/Scripts/python.exe"), ("", ".venv/bin/python")):
        done = subprocess.run(
            ["make", "--dry-run", "--always-make", f"OS={system}", "lint"],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        assert "-m venv .venv" in done.stdout
        folder = Path(python).parent.as_posix()
        assert f"{folder}/ruff check ." in done.stdout
        assert ("Scripts" in done.stdout) == bool(system)


def test_one_job_installs_the_libraries_of_the_recipes() -> None:
    (job,) = (one for name, one in WORKFLOW["jobs"].items() if name == "recipes")
    assert job["steps"][-1]["run"] == "make recipes PYTHON=python"
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    for library in ("torchrl", "ray[rllib]", "optuna", "wandb"):
        assert library in config["options.extras_require"]["recipes"]
    dry = ["make", "--dry-run", "recipes"]
    done = subprocess.run(dry, capture_output=True, text=True, check=True, cwd=ROOT)
    command = r"\.venv_recipes/(bin|Scripts)/python -m pytest -q tests/project/test_recipes.py"
    assert re.search(command, done.stdout)
