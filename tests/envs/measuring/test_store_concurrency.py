"""A store that several use at once, one of whom may be killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from device_placement.envs.evaluation import Measurement
from device_placement.envs.measuring.store import EvaluationStore
from platforms import needs_signals
from stores import IMPORTS, OPS, PROBLEM, REFERENCE

WRITE = """
name = int(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
store = EvaluationStore(path)
print(*store.fix_reference({}, [name + 1.0]), flush=True)
for number in range(50):
    store.add({"writer": name % 2}, b"a", Measurement(pairs=((name + 1.0, number + 1.0),)))
"""


def test_processes_may_write_at_once(store_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", IMPORTS + WRITE, str(store_path)]
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
    store = EvaluationStore(store_path)
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


@needs_signals
def test_a_writer_killed_in_the_middle_leaves_no_trace(store_path: Path) -> None:
    command = [sys.executable, "-c", IMPORTS + KILLED, str(store_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) > 100_000, done.stderr  # the file held unfinished changes
    store = EvaluationStore(store_path)
    assert store.get({}, b"a") == (Measurement(pairs=((1.0, 1.0),)),)
    store.add({}, b"a", Measurement(pairs=((3.0, 1.0),)))
    assert store_path.stat().st_size < 100_000
