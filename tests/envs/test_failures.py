"""Causes of failures: what is one cause, what is shown of it."""

from __future__ import annotations

import pytest

from device_placement.envs.evaluation import Evaluation
from device_placement.envs.failures import (
    MAX_CAUSE,
    MAX_CAUSES,
    cause_of,
    describe_failures,
    group_failures,
    list_causes,
)

OPENVINO = """Exception from src/inference/src/cpp/infer_request.cpp:223:
Check 'a == b' failed at src/plugins/intel_cpu/src/node.cpp:{line}:
Can't set the input tensor with name: op{op}_MatMul_{op}, because the model input
(shape=({shape})) and the tensor (shape=(1.2)) are incompatible at 0x7f{line}a

"""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            OPENVINO.format(line=12, op=7, shape="0.1.128.128"),
            OPENVINO.format(line=777, op=1234, shape="1.9"),
        ),
        ("it took 3.5e-05 s, [1, 3, 224] of subgraph3", "it took 12 s, [1,2] of subgraph12"),
        ("The weights take 100 bytes; it has 5.", "The weights take 1 bytes; it has 17."),
    ],
)
def test_numbers_and_names_make_no_other_cause(one: str, other: str) -> None:
    assert cause_of(one) == cause_of(other)
    assert "src/" not in cause_of(one)
    assert "\n" not in cause_of(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("out of memory on GPU.0", "out of memory on GPU.1"),
        ("CPU_B does not support group 1", "CPU_F32 does not support group 1"),
        ("killed by SIGSEGV", "killed by SIGKILL"),
        ("op1_Relu is wrong", "op1_Add is wrong"),
    ],
)
def test_devices_signals_and_op_types_do(one: str, other: str) -> None:
    assert cause_of(one) != cause_of(other)


def test_a_message_of_places_alone_is_kept_and_a_long_one_is_cut() -> None:
    assert cause_of("Exception from src/a.cpp:1:\n") == "Exception from src/a.cpp:N:"
    assert len(cause_of("word " * 99)) <= MAX_CAUSE + 4


def test_failures_are_counted_and_the_most_frequent_comes_first() -> None:
    errors = ["rare 1", "", "often 1", "often 2", "", "often 3"]
    evaluations = {
        (number,): Evaluation.invalid(error) if error else Evaluation(1.0)
        for number, error in enumerate(errors)
    }
    causes = group_failures(evaluations)
    assert [(one.cause, one.count) for one in causes] == [("often N", 3), ("rare N", 1)]
    assert (causes[0].example, causes[0].assignment) == ("often 1", (2,))
    lines = describe_failures(causes, len(errors)).splitlines()
    assert lines[:3] == ["4 of 6 placements failed:", "  3: often N", "  1: rare N"]
    assert lines[3] == "  The first in full: often 1"
    assert describe_failures((), 6) == ""


def test_many_causes_are_summed_up() -> None:
    words = "abcdefgh"
    causes = group_failures({(n,): Evaluation.invalid(word) for n, word in enumerate(words)})
    lines = list_causes(causes)
    assert len(lines) == MAX_CAUSES + 1
    assert lines[-1] == f"{len(words) - MAX_CAUSES}: other causes"
