"""Options from a config dataclass: groups, positional words, and errors of one line."""

from __future__ import annotations

import dataclasses
import importlib
import re
from dataclasses import dataclass
from typing import ClassVar

import pytest

from device_placement.agents.cli import COMMANDS
from device_placement.agents.options import (
    HIDDEN,
    MAIN,
    POSITIONAL,
    OptionGroups,
    name_as_options,
    options_of,
    parse,
    usage,
)
from device_placement.envs.errors import DevicePlacementError


@dataclass(frozen=True)
class Base:
    """Options that are inherited."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {"clock": ("warmup",)}

    warmup: int | None = None
    """Runs before
    the first sample."""
    budget: int = 300
    """Number of placements."""


@dataclass(frozen=True, kw_only=True)
class Example(Base):
    """Options of an example."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("file", "model"), HIDDEN: ("resume",)}

    file: str
    """File to read."""
    model: str = "diamond"
    """Model to place."""
    share: float = 0.5
    """Share."""
    verify: bool = False
    """Whether to verify."""
    resume: bool = False


def read(line: str, default: Example | None = None) -> Example:
    return parse(Example, line.split(), "program", "Do it.", default)


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("a.json", {}),
        ("a.json resnet50", {"model": "resnet50"}),
        ("--budget 5 a.json --warmup=2", {"budget": 5, "warmup": 2}),
        ("--file a.json", {}),
        ("--file a.json resnet50", {"model": "resnet50"}),
        ("a.json --model resnet50", {"model": "resnet50"}),
        ("--model resnet50 a.json", {"model": "resnet50"}),
        ("--model=resnet50 --file=a.json", {"model": "resnet50"}),
        ("a.json resnet50 --model resnet50", {"model": "resnet50"}),
        ("a.json --model resnet50 --model bert_base", {"model": "bert_base"}),
        ("a.json --warmup None --share 1e-3", {"share": 1e-3}),
        ("a.json --verify", {"verify": True}),
        ("a.json --verify --no-verify", {}),
        ("a.json --budget -1", {"budget": -1}),
    ],
)
def test_words_become_a_config(line: str, values: dict[str, object]) -> None:
    assert read(line) == dataclasses.replace(Example(file="a.json"), **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.json --budgt 5", "Unknown option --budgt; did you mean --budget? All options: program"),
        ("a.json --frobnicate", "Unknown option --frobnicate; all options: program --help"),
        ("a.json --resume", "Unknown option --resume; all"),
        ("a.json --budget", "--budget needs a value: --budget INT"),
        ("a.json --budget --verify", "--budget needs a value: --budget INT"),
        ("a.json --budget many", "Got --budget many; give a whole number."),
        ("a.json --share half", "Got --share half; give a number."),
        ("a.json --budget None", "Got --budget None; give a whole number."),
        ("a.json --verify=yes", "Got --verify=yes; --verify takes no value."),
        ("", "FILE is missing; usage: program FILE [MODEL] [OPTIONS]"),
        ("a.json resnet50 --model diamond", "Got 'diamond' and 'resnet50' as MODEL; give one;"),
        ("a.json resnet50 diamond", "Got 'resnet50' and 'diamond' as MODEL; give one; usage:"),
    ],
)
def test_a_wrong_word_is_one_line(line: str, message: str) -> None:
    with pytest.raises(DevicePlacementError, match=re.escape(message)) as raised:
        read(line)
    assert "\n" not in str(raised.value)


def test_an_instance_gives_the_values_of_what_is_not_given() -> None:
    saved = Example(file="a.json", budget=7, resume=True, warmup=3)
    assert read("--budget 9", saved) == dataclasses.replace(saved, budget=9)


def test_help_begins_with_the_class_s_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read("--nonsense --help")
    assert ended.value.code == 0
    text = " ".join(re.sub("[│╭╮╰╯─]", " ", capsys.readouterr().out).split())
    shown = [
        "usage: program",
        "Do it.",
        "FILE File to read. Also --file FILE.",
        "[MODEL] Model to place.",
        "--share",
    ]
    shown += ["--budget INT", "clock options", "--warmup INT", "Runs before the first sample."]
    places = [text.index(one) for one in shown]
    assert places == sorted(places)
    assert "--resume" not in text
    assert "None" not in text


def test_options_that_repeat_take_all_words() -> None:
    @dataclass(frozen=True)
    class Many:
        OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("folders",)}

        folders: tuple[str, ...]
        """Folders."""
        out: str = ""

    assert parse(Many, ["a", "--out", "x", "b"], "program") == Many(("a", "b"), out="x")
    assert usage(options_of(Many), "program") == "program FOLDER ... [OPTIONS]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_has_a_text_and_a_group_that_exists(name: str) -> None:
    module, _, config_name = COMMANDS[name].config.partition(":")
    config = getattr(importlib.import_module(f"device_placement.{module}"), config_name)
    fields = {field.name for field in dataclasses.fields(config)}
    for one in config.__mro__:
        grouped = [name for names in vars(one).get("OPTION_GROUPS", {}).values() for name in names]
        assert set(grouped) <= fields
        assert len(grouped) == len(set(grouped))
    options = options_of(config)
    assert all(option.help.endswith((".", "...", "runs/.")) for option in options)
    assert all(option.group in (MAIN, POSITIONAL) for option in options[:2])
    if "model" in fields:
        assert "model" in {one.name for one in options if one.group == POSITIONAL}


@dataclass(frozen=True)
class Named:
    """Options that messages name as arguments of Python."""

    model: str = ""
    max_groups: int = 3
    input_shapes: str = ""
    store: str | None = None
    verify: bool = False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Got max_groups=0; give 1.", "Got --max-groups 0; give 1."),
        ("Use max_groups=..., or store=None.", "Use --max-groups ..., or --store none."),
        ("Use store='a b', or verify=True.", "Use --store a b, or --verify."),
        ("Leave verify=False out.", "Leave --no-verify out."),
        ('As in input_shapes={"x": [1, 3]}.', 'As in --input-shapes "x=1,3".'),
        (
            'As in input_shapes={"x": [1, 3], "y": [2]}.',
            'As in --input-shapes "x=1,3;y=2".',
        ),
        ("Can't read 'model=1', a/model=2 or the_model=3: x=1", None),
        ("Got --store=x; horizon=3", None),
    ],
)
def test_messages_name_options_in_place_of_arguments(text: str, expected: str | None) -> None:
    assert name_as_options(text, options_of(Named)) == (text if expected is None else expected)
