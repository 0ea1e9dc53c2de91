"""A store whose file is something else or broken: it gives no wrong value."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_placement.envs.errors import StoreError
from device_placement.envs.measuring.store import EvaluationStore
from stores import EXAMPLES, OPS, OTHER, PROBLEM, REFERENCE, SAMPLES, check_content, exact, fill


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a filled store."""
    store = EvaluationStore(tmp_path_factory.mktemp("filled") / "evaluations.sqlite")
    fill(store)
    return store.path.read_bytes()


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
    for path in (text, tmp_path, text / "below", Path(os.devnull) / "x", tmp_path / "nul\0"):
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


@pytest.mark.parametrize(
    "statement",
    [
        """CREATE TRIGGER greedy AFTER INSERT ON measurements
        BEGIN DELETE FROM measurements WHERE id = new.id; END""",
        "CREATE VIEW more AS SELECT 1",
        "CREATE TABLE more (id)",
        "DROP INDEX measurements_of_a_placement",
    ],
)
def test_a_store_has_its_own_tables_and_nothing_else(
    store: EvaluationStore, statement: str
) -> None:
    fill(store)
    before = foreign(store.path, statement)
    with pytest.raises(StoreError, match="are not those of a store"):
        EvaluationStore(store.path)
    with pytest.raises(StoreError, match="are not those of a store"):
        store.add(PROBLEM, OPS, EXAMPLES[0])
    assert store.path.read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes of POSIX")
@pytest.mark.parametrize("mode", [0o666, 0o664, 0o622])
def test_a_store_that_others_may_write_is_not_trusted(store: EvaluationStore, mode: int) -> None:
    fill(store)
    store.path.chmod(mode)
    with pytest.raises(StoreError, match="chmod go-w"):
        store.get(OTHER, bytes([0]))
    store.path.chmod(0o644)
    assert store.get(OTHER, bytes([0]))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes of POSIX")
def test_a_store_that_others_may_replace_is_not_trusted(store: EvaluationStore) -> None:
    fill(store)
    folder = store.path.parent
    mode = folder.stat().st_mode
    folder.chmod(0o777)
    with pytest.raises(StoreError, match="chmod o-w"):
        store.get(OTHER, bytes([0]))
    folder.chmod(0o1777)  # as /tmp is: each may replace only what is theirs
    assert store.get(OTHER, bytes([0]))
    folder.chmod(mode)
