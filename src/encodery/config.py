"""Recipes as strict typed trees: YAML + `key=value` -> one validated Config, with the source of every value.

A recipe is YAML (see `yaml_tree` for the dialect). On top of it:

* `${NAME}` in a text is replaced from the environment that is handed in; `$${NAME}` stays `${NAME}`.
* An override is `dotted.key=value`, the value is YAML: `training.lr=3e-4`, `data.train=[a.txt, b.txt]`,
  `encoder={preset: small, depth: 3}`, `data.train.0.weight=2`. Sections are merged key by key, all
  else is replaced. `key=` is null, as an empty value is in YAML; empty text is `key=''`.
* Paths of a recipe are meant from its folder, those of an override from the working directory.
* Sections of a union that name different kinds are not merged: the later one replaces the earlier one.
* A section is laid over its field's default, unless it names a preset or another kind.
* A class with `presets` may be written as a preset's name, or with `preset:` and changes to it.

Everything that is wrong is gathered into one ConfigError, a line each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from encodery.errors import ConfigError, nearest
from encodery.problems import Path_, Problem, Slot, dotted, field_slot, problems_of, shown
from encodery.short_forms import (
    complete,
    complete_level,
    default_origin,
    merged,
    shorthand_of,
    slot_inside,
    with_kind,
)
from encodery.typed_paths import meant_from_here
from encodery.yaml_tree import Node, Origin, as_node, read_value, read_yaml, to_yaml

__all__ = ["Config", "Count", "Duration", "Resolved", "explain", "load_config", "problems_of"]


in_recipe = {"encodery": "a recipe is laid over the defaults once, by load_config"}
"""Handed to the validators of a tree that is complete but for what other validators still write out."""


class Config(BaseModel):
    """Parent of every config class: frozen, unknown keys are errors. A field's docstring is its help.

    `presets` names ready sets of values; `shorthand` names the field that a lone text stands for (`preset`
    when there are presets). A field that is a discriminated union may leave out the kind where the preset
    or the field's default decides it, and may be written as the kind's name alone. A section is laid over its
    field's default, key by key, unless it names a preset or another kind.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    shorthand: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _completed(cls, given: Any, info: ValidationInfo) -> Any:
        if not isinstance(given, str | Mapping):
            return given
        problems: list[Problem] = []
        node = complete_level(
            cls, as_node(given, default_origin), (), problems, over_defaults=info.context is not in_recipe
        )
        if problems:
            text = "; ".join(f"{problem.given}{problem.hint}" for problem in problems)
            raise PydanticCustomError("unknown_preset", "{text}", {"text": f"{text}; {problems[0].expected}"})
        if not isinstance(node.value, dict):
            return given
        values = {key: child.plain() for key, child in node.value.items()}
        return {key: _flag_or(cls, key, value) for key, value in values.items()}


class _Flag:
    """A `true` where a number belongs: Python counts it as 1, in a recipe `depth: true` is a slip."""

    def __init__(self, value: bool) -> None:
        self.value = value

    def __repr__(self) -> str:
        return str(self.value).lower()


def _flag_or(model: type[BaseModel], key: Any, value: Any) -> Any:
    """The value, or, for a bool in a field of numbers, something that pydantic refuses there."""
    if not isinstance(value, bool) or key not in model.model_fields:
        return value
    members = field_slot(model.model_fields[key]).members
    numbers = any(member in (int, float) for member in members)
    return _Flag(value) if numbers and bool not in members else value


# -- annotated types -------------------------------------------------------------------------------

_seconds = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_powers = {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000, "G": 10**9, "B": 10**9, "T": 10**12}
_duration_part = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|min|s|m|h|d)\s*")
_count_text = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s*([kKMGBT]?)")


def _read_duration(value: Any) -> Any:
    wrong = PydanticCustomError("duration", "a duration such as 90s, 10m, 1h30m, 2d, or seconds as a number")
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        if not text or not re.fullmatch(f"(?:{_duration_part.pattern})+", text):
            raise wrong
        return float(sum(float(number) * _seconds[unit] for number, unit in _duration_part.findall(text)))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong
    return value


def _read_count(value: Any) -> Any:
    wrong = PydanticCustomError("count", "a whole number such as 500, 8k, 1.5M or 1_000_000")
    if isinstance(value, str):
        match = _count_text.fullmatch(value.strip())
        if match is None:
            raise wrong
        exact = float(match[1].replace("_", "")) * _powers[match[2]] if "." in match[1] else None
        value = exact if exact is not None else int(match[1].replace("_", "")) * _powers[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float) or value % 1 != 0:
        raise wrong  # infinity and nan have no remainder of 0 either
    return int(value)


Duration = Annotated[float, BeforeValidator(_read_duration), Field(ge=0)]
"""Seconds; written `10m`, `90s`, `1h30m`, `2d` or `600`."""

Count = Annotated[int, BeforeValidator(_read_count), Field(ge=0)]
"""A whole number; written `8k`, `1.5M`, `1_000_000` or `500`."""


# -- loading ---------------------------------------------------------------------------------------

C = TypeVar("C", bound=Config)
_command_line = "command line"


@dataclass(frozen=True, slots=True)
class Resolved(Generic[C]):
    """A validated config, and for every dotted key where its value comes from."""

    config: C
    sources: dict[str, str]
    base: Path
    """Folder of the recipe: the config's relative paths are meant from here."""

    def to_yaml(self) -> str:
        """The whole config, defaults and presets written out, as a recipe that loads to the same config."""
        return to_yaml(_escaped(self.config.model_dump(mode="json")))


def load_config(
    schema: type[C],
    path: Path | None,
    overrides: Sequence[str],
    *,
    environment: Mapping[str, str],
    defaults: dict[str, Any] | None = None,
) -> Resolved[C]:
    """Read a recipe, lay it over `defaults` and the overrides over it, and validate the whole.

    `environment` is what `${NAME}` is looked up in. Raises one ConfigError that lists every problem with its
    place (`recipes/x.yaml:12` or `command line: training.lr=abc`), key, value, what was expected, and the
    nearest known name.
    """
    problems: list[Problem] = []
    tree = as_node(defaults or {}, default_origin)
    if path is not None:
        recipe = _substituted(_read_recipe(path, problems), environment, (), problems)
        tree = merged(tree, recipe, Slot((schema,)))
    for argument in overrides:
        tree = _overridden(schema, tree, argument, environment, problems)
    tree = complete(Slot((schema,)), tree, (), problems)
    config: C | None = None
    try:
        config = schema.model_validate(tree.plain(), context=in_recipe)
    except ValidationError as error:
        earlier = {p.path for p in problems if p.path and p.type in ("variable", "unknown_preset")}
        for problem in problems_of(error, schema):
            # What is already complained about, or misses from an unknown preset, adds nothing.
            if problem.path in earlier or (problem.type == "missing" and problem.path[:-1] in earlier):
                continue
            problems.append(_placed(problem, tree, path))
    if problems or config is None:
        raise _as_error(problems, path)
    sources = {dotted(key): _source(tree, key, written) for key, _, _, written in _leaves(config)}
    base = path.parent if path is not None else Path(".")
    led: C = meant_from_here(config, lambda key: sources.get(dotted(key)) == _command_line, base)
    return Resolved(led, sources, base)


def explain(resolved: Resolved[Any]) -> list[tuple[str, Any, str, str]]:
    """Every value of a config, flat: (dotted key, value, source, help)."""
    rows = _leaves(resolved.config)
    return [(dotted(key), value, resolved.sources[dotted(key)], text) for key, value, text, _ in rows]


def _read_recipe(path: Path, problems: list[Problem]) -> Node:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text", expected="a recipe in YAML, saved as UTF-8") from None
    except OSError as error:
        what = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        siblings = path.parent.glob("*.y*ml") if path.parent.is_dir() else ()
        hint = nearest(path.name, [sibling.name for sibling in siblings])
        fix = "give the path of a YAML file; `encodery new` writes one for your data"
        raise ConfigError(f"the recipe {path} {what}{hint}", fix=fix) from None
    root = read_yaml(text, str(path), problems)
    if root is None:
        raise _as_error(problems, path)  # nothing can be said about the rest of a file that does not parse
    if not isinstance(root.value, dict):
        found = shown(root.plain())
        raise ConfigError(f"{path}:1: the recipe is {found}", expected="sections of 'key: value' lines")
    return root


_variable = re.compile(r"(\$?)\$\{([^}]*)\}")


def _substituted(node: Node, environment: Mapping[str, str], path: Path_, problems: list[Problem]) -> Node:
    """Replace `${NAME}` in every text; the result stays text, it is not read as YAML again."""
    if isinstance(node.value, dict):
        pairs = node.value.items()
        return Node({k: _substituted(v, environment, (*path, k), problems) for k, v in pairs}, node.origin)
    if isinstance(node.value, list):
        items = enumerate(node.value)
        return Node([_substituted(v, environment, (*path, i), problems) for i, v in items], node.origin)
    if not isinstance(node.value, str):
        return node

    def replacement(match: re.Match[str]) -> str:
        name = match[2].strip()
        if match[1]:
            return match[0][1:]
        if name not in environment:
            given = f"the environment variable {name} is not set"
            handed = f"export {name}=..." if environment else "from Python hand in environment=os.environ"
            hint = f" (set it: {handed}, or write the value itself)" if name else " (the name is empty)"
            where = str(node.origin)
            problems.append(Problem(where, dotted(path), given, "", hint, path, "variable", node.origin.line))
        return environment.get(name, match[0])

    return Node(_variable.sub(replacement, node.value), node.origin)


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_escaped(child) for child in value]
    return value.replace("${", "$${") if isinstance(value, str) else value


def _overridden(
    schema: type[Config], tree: Node, argument: str, environment: Mapping[str, str], problems: list[Problem]
) -> Node:
    origin = Origin(_command_line, argument)
    key, equals, text = argument.partition("=")
    parts = tuple(int(part) if part.isdigit() else part for part in key.strip().split("."))
    if not equals or "" in parts:
        given = "not an override" if not equals else "the key is not a dotted name"
        problems.append(Problem(str(origin), "", given, "key=value, such as training.lr=3e-4"))
        return tree
    value = read_value(text, origin, problems, dotted(parts))
    if value is None:
        return tree
    value = _substituted(value, environment, parts, problems)
    try:
        return _laid(tree, Slot((schema,)), parts, value, ())
    except _Blocked as blocked:
        given = f"there is no place for it: {blocked}"
        problems.append(Problem(str(origin), dotted(parts), given, "a key inside a section", path=parts))
        return tree


class _Blocked(Exception):
    """The path of an override leads through something that is not a section."""


def _laid(node: Node, slot: Slot | None, rest: Path_, value: Node, done: Path_) -> Node:
    """The tree with `value` laid over what stands at the path `rest`."""
    if not rest:
        return merged(node, value, slot)
    part, further = rest[0], (*done, rest[0])
    if isinstance(node.value, str) and slot:
        node = with_kind(slot, node, None)
        short = shorthand_of(slot.pick())
        node = Node({short: node}, node.origin) if short and isinstance(node.value, str) else node
    if node.value is None:
        node = Node({}, value.origin)
    if isinstance(node.value, list) and isinstance(part, int):
        if part >= len(node.value):
            raise _Blocked(f"{dotted(done)} has {len(node.value)} items, counted from 0")
        inner = slot.items if slot else None
        changed = _laid(node.value[part], inner, rest[1:], value, further)
        return Node([*node.value[:part], changed, *node.value[part + 1 :]], node.origin)
    if not isinstance(node.value, dict):
        raise _Blocked(f"{dotted(done)} is {shown(node.plain())} ({node.origin})")
    inner = slot_inside(slot, node, part)
    under = node.value.get(part, Node(None, value.origin))
    return Node({**node.value, part: _laid(under, inner, rest[1:], value, further)}, node.origin)


def _placed(problem: Problem, tree: Node, path: Path | None) -> Problem:
    """Say where: the value itself or, when it is missing, the section it is missing from."""
    asked = problem.path[:-1] if problem.type in ("missing", "union_tag_not_found") else problem.path
    node, _ = tree.nearest_at(asked)
    origin = node.origin
    where = str(origin)
    if not asked or (origin.source == "default" and not origin.line):
        where = str(path) if path is not None else "config"
    given, hint, key = problem.given, problem.hint, problem.key
    return Problem(where, key, given, problem.expected, hint, problem.path, problem.type, origin.line)


def _as_error(problems: list[Problem], path: Path | None) -> ConfigError:
    problems = sorted(problems, key=lambda problem: (problem.line == 0, problem.line))
    where = str(path) if path is not None else "the config"
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return ConfigError("\n".join([f"{count} in {where}", *(f"  {problem}" for problem in problems)]))


def _source(tree: Node, path: Path_, written: bool) -> str:
    """A key that the tree lacks is a default, unless a validator wrote it out of a short form."""
    node, depth = tree.nearest_at(path)
    if depth == len(path):
        return node.origin.source
    return "default" if isinstance(node.value, dict) or not written else node.origin.source


def _leaves(
    value: Any, path: Path_ = (), text: str = "", written: bool = True
) -> Iterator[tuple[Path_, Any, str, bool]]:
    """Every value of a config: its path, itself, its help, and whether it was given rather than a default."""
    if isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            help_text = " ".join((info.description or "").split())
            given = written and name in value.model_fields_set
            yield from _leaves(getattr(value, name), (*path, name), help_text, given)
    elif isinstance(value, list | tuple) and any(isinstance(item, BaseModel) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index), text, written)
    elif isinstance(value, dict) and any(isinstance(item, BaseModel) for item in value.values()):
        for key, item in value.items():
            yield from _leaves(item, (*path, key), text, written)
    else:
        yield path, value, text, written
