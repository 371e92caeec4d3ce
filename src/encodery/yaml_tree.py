"""YAML in which every value remembers where it was written: text -> Node tree -> plain values, and back.

Plain scalars follow the core schema of YAML 1.2 (yaml.org/spec/1.2.2, section 10.3.2): `1e-3` is a number,
`no`, `yes` and `on` are text, `010` is ten. A key written twice is an error. Anchors, aliases and `<<` work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from encodery.problems import Path_, Problem, dotted

most_nodes = 100_000  # a recipe is a page; more means aliases of aliases that would fill the memory

plain_only = "plain text, numbers, lists and sections"

_containers = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_scalars = [
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (PyYAML's own way; filled below)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


for _tag, _pattern, _first in _scalars:
    for _class in (_Loader, _Dumper):
        _characters = ["" if character == "\0" else character for character in _first]
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _characters)


def _write_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Odd line ends and control characters survive only as escapes, and a bare `<<` would be a merge."""
    plain = text != "<<" and all(character.isprintable() or character == "\n" for character in text)
    style = None if plain else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _write_text)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value is from: `recipes/x.yaml:12`, `command line` (detail: the argument), `preset small`."""

    source: str
    detail: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}: {self.detail}" if self.detail else self.source


@dataclass(slots=True)
class Node:
    """A value with its origin: a mapping of Nodes, a list of Nodes, or anything else as a leaf."""

    value: Any
    origin: Origin

    def plain(self) -> Any:
        """The value without its origins."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def nearest_at(self, path: Path_) -> tuple[Node, int]:
        """The node at `path` or, where the tree ends earlier, the last one on the way; and its depth."""
        node = self
        for depth, part in enumerate(path):
            child = _child(node.value, part)
            if child is None:
                return node, depth
            node = child
        return node, len(path)


def _child(value: Any, part: str | int) -> Node | None:
    if isinstance(value, list):
        return value[part] if isinstance(part, int) and part < len(value) else None
    return value.get(part) if isinstance(value, dict) else None


def as_node(value: Any, origin: Origin) -> Node:
    """Plain mappings and lists as Nodes of one origin; every other object stays as it is, as a leaf."""
    if isinstance(value, Node):
        return value
    if isinstance(value, Mapping):
        return Node({key: as_node(child, origin) for key, child in value.items()}, origin)
    if isinstance(value, list):
        return Node([as_node(child, origin) for child in value], origin)
    return Node(value, origin)


def read_yaml(text: str, name: str, problems: list[Problem]) -> Node | None:
    """Parse one YAML document of the file `name`; problems are appended; None on a syntax error."""
    reader = _Reader(name, problems)
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        problems.append(_syntax_problem(error, name))
        return None
    except RecursionError:
        problems.append(Problem(name, "syntax", "lists or sections nested hundreds deep"))
        return None
    if root is None:
        return Node({}, Origin(f"{name}:1", line=1))
    return reader.node(root, (), root.start_mark.line + 1)


def read_value(text: str, origin: Origin, problems: list[Problem], key: str) -> Node | None:
    """Parse the value of one command line argument as YAML; an empty text is null."""
    found: list[Problem] = []
    node = read_yaml(text, "value", found) if text.strip() else Node(None, origin)
    if found:
        given = "; ".join(f"{problem.given}{problem.hint}" for problem in found)
        problems.append(Problem(str(origin), key, given, "a value in YAML, such as 3, text, [a, b] or {a: 1}"))
        return None
    return as_node(node.plain(), origin) if node else None


def to_yaml(value: Any) -> str:
    """Plain values as YAML text that `read_yaml` reads back to the same values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)


def _syntax_problem(error: yaml.YAMLError, name: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    where, line, hint = name, 0, ""
    if mark is not None:
        line = mark.line + 1
        where = f"{name}:{line}"
        hint = f" (column {mark.column + 1})"
    if "'\\t'" in what:
        hint += ", indent with spaces instead of tabs"
    elif "expected a single document" in str(error):
        hint += ", a recipe is one document: remove the line '---'"
    elif "mapping values are not allowed" in what:
        hint += ", put text that contains ': ' in quotes, and check the indentation"
    return Problem(where, "syntax", what, hint=hint, line=line)


@dataclass
class _Reader:
    """Turns PyYAML's nodes into ours, and notes what is wrong on the way."""

    name: str
    problems: list[Problem]
    open: list[int] = field(default_factory=list)
    count: int = 0

    def origin(self, line: int) -> Origin:
        return Origin(f"{self.name}:{line}", line=line)

    def complain(self, line: int, path: Path_, given: str, expected: str = "", hint: str = "") -> None:
        self.problems.append(Problem(f"{self.name}:{line}", dotted(path), given, expected, hint, path, "yaml", line))

    def node(self, raw: Any, path: Path_, line: int) -> Node:
        """`line` is where the key of this value stands: that is the line a person looks for."""
        self.count += 1
        if id(raw) in self.open or self.count > most_nodes:
            if self.count <= most_nodes:
                self.complain(line, path, "an alias that contains itself", "a value that ends")
            elif self.count == most_nodes + 1:
                self.complain(line, path, f"aliases that expand to more than {most_nodes} values")
            return Node(None, self.origin(line))
        if not isinstance(raw, yaml.ScalarNode) and raw.tag not in _containers:
            self.complain(line, path, f"the tag {raw.tag} is not allowed", plain_only)
            return Node(None, self.origin(line))
        self.open.append(id(raw))
        if isinstance(raw, yaml.MappingNode):
            value: Any = self.mapping(raw, path)
        elif isinstance(raw, yaml.SequenceNode):
            items = enumerate(raw.value)
            value = [self.node(item, (*path, index), item.start_mark.line + 1) for index, item in items]
        else:
            value = self.scalar(raw, path, line)
        self.open.pop()
        return Node(value, self.origin(line))

    def mapping(self, raw: yaml.MappingNode, path: Path_) -> dict[Any, Node]:
        found: dict[Any, Node] = {}
        merged: dict[Any, Node] = {}
        for raw_key, raw_value in raw.value:
            line = raw_key.start_mark.line + 1
            if not isinstance(raw_key, yaml.ScalarNode):
                self.complain(line, path, "a key that is a list or a section", "a name")
                continue
            key = self.scalar(raw_key, path, line)
            if key == "<<" and raw_key.style is None:
                several = raw_value.value if isinstance(raw_value, yaml.SequenceNode) else [raw_value]
                for part in several:
                    merged = {
                        **self.merge(part, path, line),
                        **merged,
                    }  # the first named wins, as in YAML 1.1
                continue
            if isinstance(key, bool | None):
                key = raw_key.value  # `null:` or `true:` as a key is the name as it was written
            if key in found:
                first = found[key].origin.line
                self.complain(line, (*path, key), f"the key is written twice, first on line {first}", "one of them")
                continue
            found[key] = self.node(raw_value, (*path, key), line)
        return {**merged, **found}

    def merge(self, part: Any, path: Path_, line: int) -> dict[Any, Node]:
        node = self.node(part, path, line)
        if isinstance(node.value, dict):
            return node.value
        self.complain(line, (*path, "<<"), "only a section can be merged", "an alias of a section, such as *defaults")
        return {}

    def scalar(self, raw: yaml.ScalarNode, path: Path_, line: int) -> Any:
        tag, text = raw.tag.removeprefix("tag:yaml.org,2002:"), raw.value
        if tag == "str":
            return text
        if tag == "null":
            return None
        try:
            if tag == "bool":
                return {"true": True, "false": False}[text.lower()]
            if tag == "int":
                base = {"0x": 16, "0o": 8}.get(text[:2].lower(), 10)
                return int(text, base)
            if tag == "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            self.complain(line, path, f"{text!r} is not {tag}")
            return text
        self.complain(line, path, f"the tag {raw.tag} is not allowed", "plain text, numbers, lists and sections")
        return text
