"""The store of evaluations: what is added comes back exact, or not at all."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_placement.envs.errors import StoreError
from device_placement.envs.execution.evaluation import NAN, Measurement
from device_placement.envs.execution.store import PATH_VARIABLE, EvaluationStore, default_path

PROBLEM = {"model": "diamond", "devices": ["CPU", "GPU.0"], "timing": {"factor": math.inf}}
OTHER = {"model": "diamond", "devices": ["CPU", "GPU.1"], "timing": {"factor": math.inf}}
OPS = bytes([0, 0, 1, 0])
REFERENCE = {"model": "diamond", "device": "CPU"}
SAMPLES = (0.1, 0.2, 1 / 3)
EXAMPLES = [
    Measurement(pairs=((0.1, 0.2), (1 / 3, 5e-324)), num_subgraphs=3, compile_s=1.5, run_s=0.25),
    Measurement(pairs=((0.1, NAN), (1.7e308, math.nan)), compile_s=-0.0),
    Measurement(pairs=((0.5, 0.25),), output_error=1e-7, output_cosine=-0.0),
    Measurement(output_error=math.inf, output_cosine=0.1 + 0.2),
    Measurement(error="Check 'a' failed:\n\0 größer 😀", failed_to_compile=True, compile_s=0.1),
]


def exact(measurements: tuple[Measurement, ...] | list[Measurement]) -> list[str]:
    """Every bit of them: a repr tells -0.0 from 0.0 and True from 1, and NaN equals NaN."""
    return [repr(one) for one in measurements]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "evaluations.sqlite"


@pytest.fixture
def store(path: Path) -> EvaluationStore:
    return EvaluationStore(path)


def fill(store: EvaluationStore) -> None:
    for number in range(4):
        for example in EXAMPLES:
            store.add(PROBLEM, OPS * 30, example)
            store.add(OTHER, bytes([number]), example)
    store.fix_reference(REFERENCE, SAMPLES)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a filled store."""
    store = EvaluationStore(tmp_path_factory.mktemp("filled") / "evaluations.sqlite")
    fill(store)
    return store.path.read_bytes()


def check_content(store: EvaluationStore) -> None:
    """What `fill` added is there."""
    assert exact(store.get(PROBLEM, OPS * 30)) == exact(EXAMPLES * 4)
    for number in range(4):
        assert exact(store.get(OTHER, bytes([number]))) == exact(EXAMPLES)
    assert store.get_reference(REFERENCE) == SAMPLES


# What is added comes back


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_measurement_comes_back_bit_for_bit(store: EvaluationStore, example: Measurement) -> None:
    store.add(PROBLEM, OPS, example)
    assert exact(EvaluationStore(store.path).get(PROBLEM, OPS)) == exact([example])


times = st.floats(0, allow_infinity=False, exclude_min=True)
seconds = st.floats(0, allow_infinity=False)
refusals = st.builds(
    Measurement, error=st.text(min_size=1), failed_to_compile=st.just(True), compile_s=seconds
)
results = st.builds(
    Measurement,
    pairs=st.lists(st.tuples(times, times | st.just(NAN)), min_size=1).map(tuple),
    num_subgraphs=st.integers(0, 2**63 - 1),
    compile_s=seconds,
    run_s=seconds,
    output_error=st.just(NAN) | st.floats(0),
    output_cosine=st.just(NAN) | st.floats(-1, 1),
)


@pytest.fixture(scope="module")
def long_store(tmp_path_factory: pytest.TempPathFactory) -> EvaluationStore:
    return EvaluationStore(tmp_path_factory.mktemp("long") / "evaluations.sqlite")


@settings(max_examples=60, deadline=None)
@given(
    measurements=st.lists(results | refusals, max_size=3),
    samples_s=st.lists(times, min_size=1),
    op_devices=st.binary(),
    problem=st.dictionaries(
        st.text(), st.none() | st.floats() | st.text() | st.lists(st.booleans())
    ),
)
def test_anything_comes_back_bit_for_bit(
    long_store: EvaluationStore,
    measurements: list[Measurement],
    samples_s: list[float],
    op_devices: bytes,
    problem: dict[str, object],
) -> None:
    before = long_store.get(problem, op_devices)  # hypothesis may give a problem twice
    for measurement in measurements:
        long_store.add(problem, op_devices, measurement)
    found = long_store.get(problem, op_devices)
    assert exact(found) == exact([*before, *measurements])
    fixed = long_store.get_reference(problem)
    stand = long_store.fix_reference(problem, samples_s)
    assert repr(stand) == repr(tuple(samples_s) if fixed is None else fixed)
    assert repr(long_store.get_reference(problem)) == repr(stand)


def test_problems_and_placements_do_not_mix(store: EvaluationStore) -> None:
    first, second, third = EXAMPLES[:3]
    store.add(PROBLEM, OPS, first)
    store.add(OTHER, OPS, second)
    store.add(PROBLEM, OPS + b"\0", third)
    store.add(dict(reversed(PROBLEM.items())), OPS, third)  # the same problem
    assert exact(store.get(PROBLEM, OPS)) == exact([first, third])
    assert exact(store.get(OTHER, OPS)) == exact([second])
    assert exact(store.get(PROBLEM, OPS + b"\0")) == exact([third])
    assert store.get(PROBLEM, b"") == store.get({}, OPS) == ()


def test_what_is_too_old_is_not_given(store: EvaluationStore) -> None:
    for example in EXAMPLES:
        store.add(PROBLEM, OPS, example)
    store.fix_reference(REFERENCE, SAMPLES)
    with contextlib.closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE measurements SET taken_at = taken_at - 7200 WHERE id % 2 = 1")
        connection.execute("UPDATE reference_times SET taken_at = taken_at - 7200")
    young = EvaluationStore(store.path, max_age_s=3600)
    assert exact(young.get(PROBLEM, OPS)) == exact(EXAMPLES[1::2])
    assert exact(store.get(PROBLEM, OPS)) == exact(EXAMPLES)
    assert young.get_reference(REFERENCE) == SAMPLES


@pytest.mark.parametrize("max_age_s", [0, -1.0, math.nan])
def test_an_age_that_makes_no_sense_is_refused(path: Path, max_age_s: float) -> None:
    with pytest.raises(StoreError, match="above 0"):
        EvaluationStore(path, max_age_s=max_age_s)


@pytest.mark.parametrize(
    "measurement",
    [
        Measurement(),
        Measurement(num_subgraphs=2, compile_s=1.0),
        Measurement(error="the worker crashed"),
        Measurement(pairs=((0.1, 0.2),), error="time-out"),
        Measurement(pairs=((0.0, 0.2),)),
        Measurement(pairs=((NAN, 0.2),)),
        Measurement(pairs=((0.1, math.inf),)),
        Measurement(pairs=((0.1, 0.2),), compile_s=NAN),
        Measurement(pairs=((0.1, 0.2),), num_subgraphs=-1),
        Measurement(output_error=-1.0),
    ],
)
def test_what_does_not_hold_for_good_is_not_stored(
    store: EvaluationStore, measurement: Measurement
) -> None:
    with pytest.raises(AssertionError):
        store.add(PROBLEM, OPS, measurement)
    assert store.get(PROBLEM, OPS) == ()


def test_the_first_to_fix_a_reference_wins(store: EvaluationStore) -> None:
    assert store.get_reference(REFERENCE) is None
    assert store.fix_reference(REFERENCE, list(SAMPLES)) == SAMPLES
    assert EvaluationStore(store.path).fix_reference(REFERENCE, [7.0]) == SAMPLES
    assert store.get_reference(REFERENCE) == SAMPLES
    assert store.fix_reference(PROBLEM, [7.0]) == (7.0,)


@pytest.mark.parametrize("samples_s", [[], [0.0], [0.1, math.nan]])
def test_a_reference_needs_samples(store: EvaluationStore, samples_s: list[float]) -> None:
    with pytest.raises(AssertionError):
        store.fix_reference(REFERENCE, samples_s)


def test_the_default_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    folder = Path(platformdirs.user_cache_dir("device-placement", appauthor=False))
    assert default_path() == folder / "evaluations.sqlite"
    monkeypatch.setenv(PATH_VARIABLE, str(tmp_path / "named"))
    assert default_path() == EvaluationStore().path == tmp_path / "named"
    assert (tmp_path / "named").is_file()


def test_the_file_can_be_read_by_people(store: EvaluationStore) -> None:
    fill(store)
    with contextlib.closing(sqlite3.connect(store.path)) as connection:
        descriptions = connection.execute("SELECT description FROM problems").fetchall()
        pairs = connection.execute("SELECT pairs FROM measurements").fetchall()
    assert [text.startswith('{"devices":["CPU","GPU.') for (text,) in descriptions] == [True] * 2
    assert ("[[0.5,0.25]]",) in pairs
    assert [entry.name for entry in store.path.parent.iterdir()] == [store.path.name]


# Files that are something else, or broken


def foreign(path: Path, *statements: str) -> bytes:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        (["CREATE TABLE problems (id)"], "another application"),
        (["PRAGMA application_id = 7"], "another application"),
        (["PRAGMA user_version = 7"], "another application"),
        (["PRAGMA journal_mode = WAL", "CREATE TABLE a (b)"], "another application"),
    ],
)
def test_another_application_keeps_its_file(
    tmp_path: Path, statements: list[str], reason: str
) -> None:
    path = tmp_path / "other.sqlite"
    before = foreign(path, *statements)
    with pytest.raises(StoreError, match=rf"other\.sqlite.*{reason}.*store=None"):
        EvaluationStore(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_newer_schema_is_refused(store: EvaluationStore) -> None:
    fill(store)
    before = foreign(store.path, "PRAGMA user_version = 2")
    with pytest.raises(StoreError, match="version 2"):
        EvaluationStore(store.path)
    with pytest.raises(StoreError, match="version 2"):
        store.get(PROBLEM, OPS)
    with pytest.raises(StoreError, match="version 2"):
        store.add(PROBLEM, OPS, EXAMPLES[0])
    assert store.path.read_bytes() == before


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("These are my notes. " * 100)
    for path in (text, tmp_path, text / "below", Path("/dev/null/x"), tmp_path / "nul\0"):
        with pytest.raises(StoreError, match="store=None"):
            EvaluationStore(path)
    assert text.read_text() == "These are my notes. " * 100


def test_a_truncated_file_gives_no_wrong_value(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "truncated"
    check_content(opened(path, content))
    lengths = {*range(2, 600, 29), *range(600, len(content), 509), *range(4096, len(content), 4096)}
    for length in sorted(lengths | {len(content) - 1}):
        with contextlib.suppress(StoreError):
            check_content(opened(path, content[:length]))
    for length in (0, 1):  # to SQLite both are a file just made
        assert opened(path, content[:length]).get(PROBLEM, OPS * 30) == ()


def opened(path: Path, content: bytes) -> EvaluationStore:
    path.write_bytes(content)
    return EvaluationStore(path)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "flipped"


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_flipped_bytes_give_no_wrong_value(
    scratch: Path, content: bytes, data: st.DataObject
) -> None:
    before = opened(scratch, content)
    flipped = bytearray(content)
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=3)):
        flipped[place] ^= data.draw(st.integers(1, 255))
    scratch.write_bytes(flipped)
    # Opened earlier: a damaged index may hide rows, and what is found is right.
    with contextlib.suppress(StoreError):
        expected = iter(exact(EXAMPLES * 4))
        assert all(one in expected for one in exact(before.get(PROBLEM, OPS * 30)))
    with contextlib.suppress(StoreError):
        assert before.get_reference(REFERENCE) in (None, SAMPLES)
    # Opened now: all or nothing.
    with contextlib.suppress(StoreError):
        check_content(EvaluationStore(scratch))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE measurements SET pairs = '[[0.2,0.2]]' WHERE id = 1",
        "UPDATE measurements SET compile_s = 'soon' WHERE id = 1",
        "UPDATE measurements SET error = x'00' WHERE id = 1",
        "UPDATE measurements SET taken_at = 'today' WHERE id = 1",
        "UPDATE measurements SET taken_at = 1e999 WHERE id = 1",
        "UPDATE measurements SET problem = 3 - problem, op_devices = x'00000100'",
        "ALTER TABLE measurements DROP COLUMN run_s",
        "DROP TABLE measurements",
    ],
)
def test_a_changed_row_is_an_error(store: EvaluationStore, change: str) -> None:
    store.add(PROBLEM, OPS, EXAMPLES[0])
    store.add(OTHER, OPS + OPS, EXAMPLES[1])
    foreign(store.path, change)
    with pytest.raises(StoreError, match="store=None"):
        store.get(PROBLEM, OPS)


@pytest.mark.parametrize("samples", ["[0.2]", "[]", "0.1", "null", "?", '["0.1"]'])
def test_a_changed_reference_is_an_error(store: EvaluationStore, samples: str) -> None:
    store.fix_reference(REFERENCE, [0.1])
    foreign(store.path, f"UPDATE reference_times SET samples = '{samples}'")
    with pytest.raises(StoreError, match="store=None"):
        store.get_reference(REFERENCE)
    with pytest.raises(StoreError, match="store=None"):
        store.fix_reference(REFERENCE, [0.1])


def test_a_deleted_file_is_begun_anew(store: EvaluationStore) -> None:
    fill(store)
    shutil.rmtree(store.path.parent)
    assert store.get(PROBLEM, OPS) == ()
    store.path.unlink()
    store.add(PROBLEM, OPS, EXAMPLES[0])
    assert exact(store.get(PROBLEM, OPS)) == exact(EXAMPLES[:1])


# Places that can't be written


IMPORTS = """
import contextlib, os, signal, sys
from device_placement.envs.errors import StoreError
from device_placement.envs.execution.evaluation import Measurement
from device_placement.envs.execution.store import EvaluationStore

def refused(action, *args):
    try:
        action(*args)
    except StoreError:
        return True
    return False

path = sys.argv[1]
"""


def run_child(code: str, *args: object, under: tuple[str, ...] = ()) -> str:
    command = [*under, sys.executable, "-W", "error", "-c", IMPORTS + code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip(f"can't mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


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
def by_mode(path: Path) -> Iterator[tuple[str, ...]]:
    """File and folder made read-only by their permission bits."""
    path.chmod(0o444)
    path.parent.chmod(0o555)
    if os.access(path.parent, os.W_OK):
        pytest.skip("permission bits don't stop this user")
    yield ()
    path.parent.chmod(0o755)


@pytest.fixture
def by_mount(path: Path) -> tuple[str, ...]:
    """The folder mounted read-only."""
    return mounted('mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"', path.parent)


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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of this kind")
def test_a_limit_on_files_leaves_what_is_there(path: Path) -> None:
    run_child(LIMIT + FILL_UP + LIFT, path)


def test_a_full_disk_leaves_what_is_there(tmp_path: Path) -> None:
    under = mounted('mount -t tmpfs -o size=400k none "$0"', tmp_path)
    run_child(FILL_UP, tmp_path / "evaluations.sqlite", under=under)


# Several at once


WRITE = """
name = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
store = EvaluationStore(path)
print(*store.fix_reference({}, [name + 1.0]), flush=True)
for number in range(50):
    store.add({"writer": name % 2}, b"a", Measurement(pairs=((name + 1.0, number + 1.0),)))
"""


def test_processes_may_write_at_once(path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", IMPORTS + WRITE, str(path)]
    with contextlib.ExitStack() as stack:
        writers = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(name)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            for name in range(4)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:  # all make the file at the same moment
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        said = [writer.communicate(timeout=60)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    store = EvaluationStore(path)
    found = [store.get({"writer": half}, b"a") for half in range(2)]
    pairs = [measurement.pairs[0] for half in found for measurement in half]
    assert sorted(pairs) == [
        (name + 1.0, number + 1.0) for name in range(4) for number in range(50)
    ]
    for name in range(4):  # each in its order
        assert [number for writer, number in pairs if writer == name + 1] == list(range(1, 51))
    (standing,) = {float(line) for line in said}
    assert store.get_reference({}) == (standing,)


def test_threads_may_share_a_store(store: EvaluationStore) -> None:
    def add(number: int) -> None:
        store.add(PROBLEM, OPS, Measurement(pairs=((number + 1.0, 1.0),)))
        assert store.fix_reference(REFERENCE, [number + 1.0]) == store.get_reference(REFERENCE)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(20)))
    found = store.get(PROBLEM, OPS)
    assert sorted(one.pairs[0][0] for one in found) == list(range(1, 21))


KILLED = """
store = EvaluationStore(path)
store.add({}, b"a", Measurement(pairs=((1.0, 1.0),)))
with store._open(write=True) as connection:
    connection.execute("PRAGMA cache_size = 1")  # unfinished changes reach the file
    connection.execute("UPDATE measurements SET pairs = '[[2.0,2.0]]'")
    for number in range(100):
        connection.execute("INSERT INTO problems (key, description) VALUES (?, ?)",
                           (str(number), "x" * 4000))
    print(os.path.getsize(path), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_writer_killed_in_the_middle_leaves_no_trace(path: Path) -> None:
    command = [sys.executable, "-c", IMPORTS + KILLED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) > 100_000, done.stderr  # the file held unfinished changes
    store = EvaluationStore(path)
    assert store.get({}, b"a") == (Measurement(pairs=((1.0, 1.0),)),)
    store.add({}, b"a", Measurement(pairs=((3.0, 1.0),)))
    assert path.stat().st_size < 100_000
