"""A store that can't be written or has no room: what is there stays."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_placement.envs.evaluation import Measurement
from device_placement.envs.measuring.store import EvaluationStore
from platforms import needs_limits
from stores import run_child


def mounted(mount: str, folder: Path) -> tuple[str, ...]:
    """The start of a command that first mounts something, where only it can see that."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare, the command that makes mount namespaces")
    probe = subprocess.run(["unshare", "-rm", "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"mount namespaces are not permitted here: {probe.stderr.strip()}")
    script = f'{{ {mount}; }} || exit 77; exec "$@"'
    return ("unshare", "-rm", "sh", "-c", script, str(folder))


READ_ONLY = """
store, added = EvaluationStore(path), Measurement(pairs=((0.5, 0.25),))
assert store.get({}, b"a") == (added,)
assert store.get({}, b"b") == ()
assert store.get_reference({}) == store.fix_reference({}, [7.0]) == (0.25,)
assert refused(store.add, {}, b"a", added)
assert refused(store.fix_reference, {"other": 1}, [7.0])
assert refused(EvaluationStore, path + ".new")
assert store.get({}, b"a") == (added,)
"""


@pytest.fixture
def by_mode(store_path: Path) -> Iterator[tuple[str, ...]]:
    """File and folder made read-only by their permission bits."""
    store_path.chmod(0o444)
    store_path.parent.chmod(0o555)
    if os.access(store_path.parent, os.W_OK):
        pytest.skip("permission bits don't stop this user")
    yield ()
    store_path.parent.chmod(0o755)


@pytest.fixture
def by_mount(store_path: Path) -> tuple[str, ...]:
    """The folder mounted read-only."""
    return mounted('mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"', store_path.parent)


@pytest.mark.parametrize("how", ["by_mode", "by_mount"])
def test_a_read_only_file_is_read(
    store: EvaluationStore, how: str, request: pytest.FixtureRequest
) -> None:
    store.add({}, b"a", Measurement(pairs=((0.5, 0.25),)))
    store.fix_reference({}, [0.25])
    run_child(READ_ONLY, store.path, under=request.getfixturevalue(how))


FILL_UP = """
def measurement(number):
    return Measurement(pairs=((number + 1.0, 1 / 3),) * 500)

store, added = EvaluationStore(path), 0
while not refused(store.add, {}, b"a", measurement(added)):
    added += 1
    assert added < 1000
assert added > 10
found = EvaluationStore(path).get({}, b"a")
assert found == tuple(map(measurement, range(added)))
"""
LIMIT = """
import resource
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
assert refused(EvaluationStore, path)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
"""
LIFT = """
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.add({}, b"a", measurement(added))
assert EvaluationStore(path).get({}, b"a") == tuple(map(measurement, range(added + 1)))
"""


@needs_limits
def test_a_limit_on_files_leaves_what_is_there(store_path: Path) -> None:
    run_child(LIMIT + FILL_UP + LIFT, store_path)


def test_a_full_disk_leaves_what_is_there(tmp_path: Path) -> None:
    under = mounted('mount -t tmpfs -o size=400k none "$0"', tmp_path)
    run_child(FILL_UP, tmp_path / "evaluations.sqlite", under=under)
