"""Tests keep out of the user's store and out of the way of measurements on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_folder = tempfile.TemporaryDirectory(prefix="device-placement-tests-")
# Set before anything is imported, so that commands started by tests inherit it.
os.environ["DEVICE_PLACEMENT_STORE"] = str(Path(_folder.name) / "evaluations.sqlite")
os.environ["DEVICE_PLACEMENT_LOCK"] = str(Path(_folder.name) / "lock")


@pytest.fixture(scope="session", autouse=True)
def remove_the_store() -> Iterator[None]:
    yield
    _folder.cleanup()
