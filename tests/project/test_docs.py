"""The site of the docs builds without a warning, and holds every name that users look up."""

from __future__ import annotations

import configparser
import html
import re
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import yaml

import device_placement.agents
import device_placement.benchmarks
import device_placement.envs
from device_placement.agents.cli import COMMANDS
from device_placement.agents.placers import PLACERS
from device_placement.agents.presets import PRESETS
from device_placement.benchmarks.datasets.table import COLUMNS
from device_placement.benchmarks.suite.suites import SUITES
from device_placement.envs.graph.features import FEATURE_BLOCKS
from device_placement.envs.rewards import REWARDS
from device_placement.envs.simulation.hardware import HARDWARE
from device_placement.envs.simulation.schedule import SCHEDULES

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NAMES = {
    "agents": PRESETS,
    "placers": PLACERS,
    "simulator": {*HARDWARE, *SCHEDULES},
    "commands": COMMANDS,
    "benchmark": SUITES,
    "leaderboard": ("paper", "hard", "posterior_sampling", "hsdag_ppo", "random"),
    "datasets": COLUMNS,
    "api/envs": device_placement.envs.__all__,
    "api/agents": device_placement.agents.__all__,
}
SECTIONS = (
    *("Action space", "Observation space", "Rewards", "Starting state", "Episode end"),
    *("Information", "Arguments", "Version history"),
)
HERE = str(ROOT), "/root/", "/tmp/", "/home/"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site built from a copy of the sources, as another test may build one at the same time."""
    folder = tmp_path_factory.mktemp("docs")
    source = folder / "repository" / "docs"
    skip = shutil.ignore_patterns("_build", "generated", "__pycache__")
    shutil.copytree(DOCS, source, ignore=skip)
    for name in ("notebooks", "benchmarks", "build"):
        (folder / "repository" / name).symlink_to(ROOT / name)
    for name in ("CHANGELOG.md", "CONTRIBUTING.md", "setup.cfg"):
        shutil.copy(ROOT / name, folder / "repository" / name)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*command, str(source), str(folder / "html")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def text_of(page: Path) -> str:
    """What a page shows."""
    body = re.search(r"<article.*?</article>", page.read_text(encoding="utf-8"), re.DOTALL)
    assert body
    return html.unescape(re.sub("<[^>]+>", "", body[0]))


def test_the_site_builds_and_holds_every_name(site: Path) -> None:
    for page, names in NAMES.items():
        text = text_of(site / f"{page}.html")
        missing = [name for name in names if not re.search(rf"\b{name}\b", text)]
        assert not missing, page
    ids = [name for name in gym.registry if "DevicePlacement" in name]
    pages = [text_of(one) for one in (site / "environments" / "generated").glob("*.html")]
    assert sorted(ids) == sorted(re.findall(r"\w+-v0", page)[0] for page in pages)
    for page in pages:
        assert [one for one in (*SECTIONS, *REWARDS, *FEATURE_BLOCKS) if one not in page] == []
    # A colon in the text of a field does not make its first words a type.
    fields = text_of(site / "api" / "benchmarks.html")
    assert "Suites, comma-separated: paper" in fields
    assert not re.search(r"^Type:?$", fields, re.MULTILINE)
    # Nothing on a page is of the machine that builds it; no page loads anything from elsewhere.
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert [one for one in HERE if one in text] == [], page
        assert not re.search(r'<(?:script|link|img)[^>]*(?:src|href)="https?://', text), page


def test_the_citation_file_is_valid_and_of_this_version() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    required = {"cff-version", "message", "title", "authors"}
    assert required <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == setup["metadata"]["name"]
    assert citation["version"] == setup["metadata"]["version"]
    assert citation["license"] == setup["metadata"]["license"]
    assert all(set(author) == {"name"} for author in citation["authors"])
