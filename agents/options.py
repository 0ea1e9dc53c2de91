"""Command-line options from a config dataclass: positional words, named groups, one-line errors.

Every field is an option, and the docstring below it is its help. A class may sort its fields with a
class variable::

    OPTION_GROUPS: ClassVar[OptionGroups] = {
        POSITIONAL: ("model",),  # MODEL, or --model MODEL
        "simulator": ("hardware", "schedule"),  # a named group in the help
        HIDDEN: ("resume",),  # not an option
    }

Fields without a group come first in the help, and a class's own fields before inherited ones.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import itertools
import re
import textwrap
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from device_placement.envs.errors import DevicePlacementError

OptionGroups = Mapping[str, tuple[str, ...]]  # group -> names of fields
MAIN, POSITIONAL, HIDDEN = "main", "positional", "hidden"

NUMBERS: Mapping[Any, tuple[str, Callable[[str], object]]] = {
    int: ("a whole number", int),
    float: ("a number", float),
}
METAVARS = {int: "INT", float: "FLOAT"}
HELP = ("-h", "--help")
OPTION = re.compile("--?[A-Za-z]")  # the beginning of an option; -1 is a value

C = TypeVar("C")


@dataclass(frozen=True)
class Option:
    """A field of a config class as an option."""

    name: str
    hint: Any  # the type, with None where that is allowed
    kind: Any  # the type without None
    group: str
    help: str
    default: Any  # dataclasses.MISSING where there is none

    @property
    def flag(self) -> str:
        """The name as it is typed: ``--max-groups``."""
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING

    @property
    def repeats(self) -> bool:
        """Whether it takes several words."""
        return get_origin(self.kind) is tuple

    @property
    def metavar(self) -> str:
        """The placeholder of its value in the help."""
        if self.group == POSITIONAL:
            return self.name.upper().removesuffix("S" * self.repeats)
        return METAVARS.get(self.kind, "TEXT")

    def check(self, text: str) -> None:
        """Check that a text can become the value.

        Raises:
            DevicePlacementError: when it can't.
        """
        expected, convert = NUMBERS.get(self.kind, ("text", str))
        if text == "None" and self.hint is not self.kind:
            return
        try:
            convert(text)
        except ValueError:
            raise DevicePlacementError(f"Got {self.flag} {text}; give {expected}.") from None


def parse(
    config: type[C],
    words: Sequence[str],
    program: str,
    description: str = "",
    default: C | None = None,
) -> C:
    """Make a config from a command line.

    Args:
        config: the dataclass.
        words: the command line without the command.
        program: the command as it was typed.
        description: the first line of the help.
        default: values of options that are not given; by default those of the class.

    Raises:
        DevicePlacementError: on an unknown option, or a missing or wrong value.
        SystemExit: after printing the help.
    """
    import tyro  # here, as classes that only declare groups need no parser

    options = options_of(config, default)
    if set(HELP) & set(words):
        words = ["--help"]
    elif not any(word.startswith("--tyro-") for word in words):  # of shell completion
        words = _ordered(options, _read(options, words, program))
    parsed = tyro.cli(_nested(options), args=words, prog=program, description=description)
    values: dict[str, Any] = {} if default is None else dict(vars(default))
    for name, value in vars(parsed).items():
        values.update(vars(value) if dataclasses.is_dataclass(value) else {name: value})
    return config(**values)


_VALUE = r"""'[^']*'|"[^"]*"|\{[^{}]*\}|None\b|True\b|False\b"""


def name_as_options(text: str, options: Sequence[Option]) -> str:
    """Return a message in which arguments of Python are options of the command line.

    ``input_shapes={"x": [1, 3]}`` becomes ``--input-shapes "x=1,3"``, and ``verify=True``
    ``--verify``. Only names of the options are replaced.
    """
    by_name = {one.name: one for one in options}
    if not by_name:
        return text
    argument = re.compile(rf"(?<![\w\-./'\"])({'|'.join(by_name)})=({_VALUE})?")
    return argument.sub(lambda found: _as_option(by_name[found[1]], found[2]), text)


def _as_option(option: Option, literal: str | None) -> str:
    if literal is None:  # a number, or what the message spells out itself
        return f"{option.flag} "
    value = ast.literal_eval(literal)
    if option.kind is bool:
        return option.flag if value else f"--no-{option.flag[2:]}"
    if isinstance(value, dict):
        shapes = [f"{name}={','.join(map(str, sizes))}" for name, sizes in value.items()]
        return f'{option.flag} "{";".join(shapes)}"'
    return f"{option.flag} {'none' if value is None else value}"


def options_of(config: type[Any], default: Any = None) -> list[Option]:
    """Return the options of a config class, or of an instance's values, in the help's order."""
    hints, texts = get_type_hints(config), _field_docstrings(config)
    fields = {field.name: field for field in dataclasses.fields(config)}
    own_first = [name for one in config.__mro__ for name in inspect.get_annotations(one)]
    tables = [vars(one).get("OPTION_GROUPS", {}) for one in config.__mro__]
    groups = {
        name: group
        for table in reversed(tables)
        for group, names in table.items()
        for name in names
    }
    order = list(dict.fromkeys([POSITIONAL, MAIN, *itertools.chain.from_iterable(tables)]))
    options = []
    for name in dict.fromkeys(one for one in own_first if one in fields):
        hint = hints[name]
        kinds = get_args(hint) if get_origin(hint) is types.UnionType else (hint,)
        options.append(
            Option(
                name,
                hint,
                kind=next(one for one in kinds if one is not types.NoneType),
                group=groups.get(name, MAIN),
                help=texts.get(name, ""),
                default=fields[name].default if default is None else getattr(default, name),
            )
        )
    options.sort(key=lambda one: order.index(one.group))
    return [one for one in options if one.group != HIDDEN]


def _field_docstrings(config: type[Any]) -> dict[str, str]:
    """Return the docstring below each field, in one line."""
    texts = {}
    for one in reversed(config.__mro__):
        if not dataclasses.is_dataclass(one):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in itertools.pairwise(definition.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(text))):
                    texts[name] = " ".join(text.split())
    return texts


def _read(options: Sequence[Option], words: Sequence[str], program: str) -> dict[str, list[str]]:
    """Return the texts given for each option, by name or by position.

    Raises:
        DevicePlacementError: as `parse`.
    """
    given, plain = _split(options, words, program)
    for option in options:
        if option.group == POSITIONAL and option.name not in given and plain:
            number = len(plain) if option.repeats else 1
            given[option.name], plain = plain[:number], plain[number:]
        if option.required and option.name not in given:
            name = option.metavar if option.group == POSITIONAL else option.flag
            raise DevicePlacementError(f"{name} is missing; usage: {usage(options, program)}")
    positional = [one for one in options if one.group == POSITIONAL]
    for word in plain:
        if any(given.get(one.name) == [word] for one in positional):
            continue
        wrong = f"Unexpected argument {word!r}"
        if positional:
            last = positional[-1]
            wrong = f"Got {' '.join(given[last.name])!r} and {word!r} as {last.metavar}; give one"
        raise DevicePlacementError(f"{wrong}; usage: {usage(options, program)}")
    return given


def _split(
    options: Sequence[Option], words: Sequence[str], program: str
) -> tuple[dict[str, list[str]], list[str]]:
    """Return the text of each option that is given by name, and the other words."""
    flags = {one.flag: one for one in options if not one.repeats}
    flags |= {"--no-" + one.flag[2:]: one for one in options if one.kind is bool}
    given: dict[str, list[str]] = {}
    plain: list[str] = []
    rest = iter(words)
    for word in rest:
        if not OPTION.match(word):
            plain.append(word)
            continue
        flag, equals, text = word.partition("=")
        flag = flag.replace("_", "-")
        if flag not in flags:
            raise DevicePlacementError(_unknown_option(flag, flags, program))
        option = flags[flag]
        if option.kind is bool:
            if equals:
                raise DevicePlacementError(f"Got {word}; {flag} takes no value.")
            given[option.name] = [flag]
            continue
        if not equals:
            text = next(rest, HELP[0])
            if OPTION.match(text):
                raise DevicePlacementError(
                    f"{flag} needs a value: {flag} {option.metavar}; all options: {program} --help"
                )
        option.check(text)
        given[option.name] = [text]
    return given, plain


def _unknown_option(flag: str, flags: Mapping[str, Option], program: str) -> str:
    names = {one.lstrip("-"): one for one in flags}
    near = difflib.get_close_matches(flag.lstrip("-"), names, n=1)
    hint = f"did you mean {names[near[0]]}? All" if near else "all"
    return f"Unknown option {flag}; {hint} options: {program} --help"


def _ordered(options: Sequence[Option], given: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a command line with the positional words last, in the order of their fields."""
    named: list[str] = []
    last: list[str] = []
    for option in options:
        texts = given.get(option.name, [])
        if option.group == POSITIONAL:
            last += texts
        else:
            named += texts if option.kind is bool else [f"{option.flag}={one}" for one in texts]
    return [*named, *last]


def usage(options: Sequence[Option], program: str) -> str:
    """Return a line such as ``device-placement profile MODEL --out TEXT [OPTIONS]``."""
    words = [program]
    for one in options:
        if one.group == POSITIONAL:
            metavar = f"{one.metavar} ..." if one.repeats else one.metavar
            words.append(metavar if one.required else f"[{metavar}]")
        elif one.required:
            words.append(f"{one.flag} {one.metavar}")
    return " ".join([*words, "[OPTIONS]"])


def _nested(options: Sequence[Option]) -> type[Any]:
    """Return a dataclass with a field for each option, those of a named group in one of its own."""
    groups: dict[str, list[Option]] = {}
    for option in options:
        groups.setdefault(MAIN if option.group == POSITIONAL else option.group, []).append(option)
    fields = [_field(one) for one in groups.pop(MAIN, [])]
    for name, members in groups.items():
        kind = dataclasses.make_dataclass(name, [_field(one) for one in members], kw_only=True)
        kind.__doc__ = ""
        fields.append((name.replace(" ", "_"), kind, dataclasses.field()))
    return dataclasses.make_dataclass("Options", fields, kw_only=True)


def _field(option: Option) -> tuple[str, Any, Any]:
    """Return name, annotated type and default of the field that stands for an option."""
    import tyro

    text = option.help
    if option.group == POSITIONAL and not option.repeats:
        text += f" Also {option.flag} {option.metavar}."
    unset = option.default in (None, "") or option.kind is bool  # the text names the default
    hint = "(required)" if option.required and option.repeats else "" if unset else None
    optional = option.group == POSITIONAL and not option.required
    metavar = f"[{option.metavar}]" if optional else option.metavar
    marks = [tyro.conf.Positional] if option.group == POSITIONAL else []
    about = tyro.conf.arg(
        help=text,
        metavar=None if option.kind is bool else metavar,
        prefix_name=False,
        help_behavior_hint=hint,
    )
    return (
        option.name,
        Annotated[(option.hint, *marks, about)],
        dataclasses.field(default=option.default),
    )
