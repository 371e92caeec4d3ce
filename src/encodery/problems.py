"""What is wrong with a config, key by key: pydantic's errors turned into lines a person can act on.

A config class is a tree of pydantic models. pydantic reports where it failed as a tuple that mixes keys,
list indices and the names of union members; `locate` walks the class beside that tuple and gives back the
keys the user wrote, and the model at that place, so that a misspelt key is compared with the right names.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from encodery.errors import nearest

type_words = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "dict": "a section of 'key: value' lines",
    "mapping": "a section of 'key: value' lines",
    "model": "a section of 'key: value' lines",
    "path": "a path",
    "none": "null",
}
shown_names = 14  # a longer list of known names helps nobody

Path_ = tuple[str | int, ...]


def dotted(path: Sequence[str | int]) -> str:
    """`("data", "train", 0)` as the user writes it: `data.train.0`."""
    return ".".join(str(part) for part in path)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (`file:line`, empty in plain Python), which key, what, what instead."""

    where: str
    key: str
    given: str
    expected: str = ""
    hint: str = ""
    path: Path_ = ()
    type: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.key) if part)
        wanted = f"; expected {self.expected}" if self.expected else ""
        return f"{place}: {self.given}{self.hint}{wanted}"


@dataclass(frozen=True, slots=True)
class Slot:
    """What may stand at one place of a config: the alternatives of its annotation, `None` left out."""

    members: tuple[Any, ...]
    discriminator: str | None = None

    @property
    def models(self) -> list[type[BaseModel]]:
        return [member for member in self.members if isinstance(member, type) and issubclass(member, BaseModel)]

    @property
    def tags(self) -> dict[str, type[BaseModel]]:
        """The kinds of a discriminated union and the class of each; empty for any other slot."""
        found: dict[str, type[BaseModel]] = {}
        for model in self.models if self.discriminator else ():
            tag_field = model.model_fields.get(self.discriminator or "")
            if tag_field is not None and get_origin(tag_field.annotation) is Literal:
                found.update(dict.fromkeys(map(str, get_args(tag_field.annotation)), model))
        return found

    def pick(self, tag: object = None) -> type[BaseModel] | None:
        """The model that stands here: the one of this kind, or the only one there is."""
        if self.discriminator:
            return self.tags.get(str(tag))
        return self.models[0] if len(self.models) == 1 else None

    def inside(self, origins: tuple[Any, ...], argument: int) -> Slot | None:
        """The slot of the items when a list (or of the values when a mapping) may stand here."""
        for member in self.members:
            if get_origin(member) in origins and len(get_args(member)) > argument:
                return slot_of(get_args(member)[argument])
        return None

    @property
    def items(self) -> Slot | None:
        return self.inside((list, tuple, set, frozenset, Sequence), 0)

    @property
    def values(self) -> Slot | None:
        return self.inside((dict, Mapping), 1)


def slot_of(annotation: Any, discriminator: str | None = None) -> Slot:
    """Read an annotation: look through `Annotated`, flatten unions, drop `None`, keep the discriminator."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        for note in extra:
            named = getattr(note, "discriminator", None)
            discriminator = named if isinstance(named, str) else discriminator
        return slot_of(inner, discriminator)
    if origin in (Union, types.UnionType):
        members: list[Any] = []
        for part in get_args(annotation):
            slot = slot_of(part)
            members.extend(slot.members)
            discriminator = discriminator or slot.discriminator
        return Slot(tuple(members), discriminator)
    return Slot(() if annotation is type(None) else (annotation,), discriminator)


def field_slot(info: FieldInfo) -> Slot:
    """The slot of a model's field."""
    return slot_of(info.annotation, info.discriminator if isinstance(info.discriminator, str) else None)


def locate(schema: type[BaseModel], loc: Sequence[str | int]) -> tuple[Path_, type[BaseModel] | None]:
    """Turn pydantic's `loc` into the user's path, and give the model that holds the last key of it."""
    slot: Slot | None = Slot((schema,))
    path: list[str | int] = []
    holder: type[BaseModel] | None = None
    for part in loc:
        if slot is None:
            path.append(part)
        elif slot.discriminator and str(part) in slot.tags:
            slot = Slot((slot.tags[str(part)],))  # the kind's name, which the user did not write as a key
        elif len(slot.members) > 1:
            slot = _narrowed(slot, str(part))  # the name of a union's member
        elif slot.models:
            holder = slot.models[0]
            path.append(part)
            info = holder.model_fields.get(str(part))
            slot = field_slot(info) if info is not None else None
        elif part != "[key]":
            path.append(part)
            slot = slot.items if isinstance(part, int) else slot.values
    return tuple(path), holder


def _narrowed(slot: Slot, name: str) -> Slot | None:
    for model in slot.models:
        if model.__name__ in name and "[" not in name:
            return Slot((model,))
    for word in ("list", "tuple", "dict", "set"):
        if f"{word}[" in name:
            chosen = [m for m in slot.members if getattr(get_origin(m), "__name__", "") == word]
            return Slot(tuple(chosen[:1])) if chosen else None
    return None


def known_keys(schema: type[BaseModel], prefix: str = "", seen: tuple[type, ...] = ()) -> Iterator[str]:
    """Every dotted key that a schema knows, the members of unions and the items of lists included."""
    if schema in seen:
        return
    for name, info in schema.model_fields.items():
        yield prefix + name
        slot = field_slot(info)
        for inner in (slot, slot.items, slot.values):
            for model in inner.models if inner else ():
                yield from known_keys(model, f"{prefix}{name}.", (*seen, schema))


def suggestion(path: Path_, holder: type[BaseModel] | None, schema: type[BaseModel] | None) -> str:
    """`, did you mean 'x'?`: the nearest key at this level, else the same (or a very near) key elsewhere.

    Of several places elsewhere the one that shares the longest beginning with `path` is named: `training.lr` means
    `training.optim.lr`, though pretraining has a rate too.
    """
    name = str(path[-1])
    close = nearest(name, holder.model_fields if holder else ())
    if close or schema is None:
        return close
    elsewhere: dict[str, list[str]] = {}
    for key in known_keys(schema):
        elsewhere.setdefault(key.rsplit(".", 1)[-1], []).append(key)
    if name not in elsewhere:
        close = nearest(name, elsewhere)
        name = close.split("'")[1] if close else ""
    above = [str(part) for part in path[:-1]]

    def shared(key: str) -> int:
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(above, key.split("."))))

    places = sorted((key for key in elsewhere.get(name, []) if key != dotted(path)), key=shared, reverse=True)
    return f", did you mean '{places[0]}'?" if places else ""


def shown(value: Any) -> str:
    """A value as a recipe writes it, in at most 60 characters."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = "a section" if isinstance(value, Mapping | BaseModel) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def problems_of(error: ValidationError, schema: type[BaseModel] | None = None) -> list[Problem]:
    """One `Problem` for each place pydantic complains about (`where` stays empty: `load_config` fills it).

    With `schema` the keys are those the user wrote, without the names of union members, and unknown keys are
    compared with the names at their level and, failing that, with those of the whole schema.
    """
    grouped: dict[Path_, _Found] = {}
    for detail in error.errors(include_url=False):
        loc = tuple(detail["loc"])
        path, holder = locate(schema, loc) if schema else (loc, None)
        grouped.setdefault(path, _Found(holder)).details.append(dict(detail))
    deepest = [path for path in grouped if not _is_shadowed(path, grouped)]
    return [_problem(path, grouped[path], schema) for path in deepest]


@dataclass(slots=True)
class _Found:
    holder: type[BaseModel] | None
    details: list[dict[str, Any]] = field(default_factory=list)


def _is_shadowed(path: Path_, grouped: Mapping[Path_, _Found]) -> bool:
    """A union reports each alternative: the complaint of the one that went deeper is useful."""
    ours = grouped[path].details
    about_shape = all(str(detail["type"]).endswith("_type") for detail in ours)
    return about_shape and any(len(other) > len(path) and other[: len(path)] == path for other in grouped)


def _problem(path: Path_, found: _Found, schema: type[BaseModel] | None) -> Problem:
    first = found.details[0]
    kind, name = str(first["type"]), str(path[-1]) if path else ""
    key = dotted(path)
    if kind == "extra_forbidden":
        names = list(found.holder.model_fields) if found.holder else []
        more = ", ..." if len(names) > shown_names else ""
        expected = f"one of {', '.join(names[:shown_names])}{more}" if names else ""
        if of_other := _kinds_with(path, found.holder, schema):
            return Problem("", key, of_other, expected, "", path, kind)
        hint = suggestion(path, found.holder, schema)
        return Problem("", key, "unknown key", expected, hint, path, kind)
    if kind == "missing":
        info = found.holder.model_fields.get(name) if found.holder else None
        help_line = (info.description or "").strip().split("\n")[0] if info else ""
        return Problem("", key, "missing", help_line or "a value", "", path, kind)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        context = first.get("ctx", {})
        tag_name = str(context.get("discriminator", "'kind'")).strip("'")
        tags = _quoted(str(context.get("expected_tags", "")))
        if not tags and schema:
            tags = list(_slot_at(schema, path).tags)
        tag = context.get("tag")
        given = f"unknown {tag_name} '{tag}'" if tag is not None else "missing"
        hint = nearest(str(tag), tags) if tag is not None else ""
        return Problem("", f"{key}.{tag_name}", given, f"one of {', '.join(tags)}", hint, (*path, tag_name), kind)
    expected, hint = _wanted(found.details)
    given = shown(first["input"])
    if kind in ("value_error", "assertion_error", "unknown_preset"):
        return Problem("", key, _plain(str(first["msg"])), expected="", path=path, type=kind)
    return Problem("", key, f"{given} does not fit", expected, hint, path, kind)


def _kinds_with(path: Path_, holder: type[BaseModel] | None, schema: type[BaseModel] | None) -> str:
    """For a key that other kinds of the section have, what to say; else nothing."""
    slot = _slot_at(schema, path[:-1]) if schema else Slot(())
    own = [tag for tag, model in slot.tags.items() if model is holder]
    others = [tag for tag, model in slot.tags.items() if path[-1] in model.model_fields]
    if not own or not others:
        return ""
    which, verb = " and ".join(others), "has" if len(others) == 1 else "have"
    return f"{slot.discriminator} {own[0]} has no such key; {slot.discriminator} {which} {verb} it"


def _slot_at(schema: type[BaseModel], path: Path_) -> Slot:
    slot: Slot | None = Slot((schema,))
    for part in path:
        model = slot.pick() if slot else None
        if isinstance(part, int):
            slot = slot.items if slot else None
        else:
            slot = field_slot(model.model_fields[part]) if model and part in model.model_fields else None
    return slot or Slot(())


def _wanted(details: list[dict[str, Any]]) -> tuple[str, str]:
    """What the alternatives of one place want, joined by 'or', and the nearest of their literal choices."""
    phrases: list[str] = []
    hint = ""
    for detail in details:
        kind, message = str(detail["type"]), _plain(str(detail["msg"]))
        stem = kind.split("_")[0]
        if kind in ("literal_error", "enum"):
            choices = _quoted(str(detail.get("ctx", {}).get("expected", "")))
            hint = hint or nearest(str(detail["input"]), choices)
            phrase = f"one of {', '.join(choices)}" if choices else message
        elif kind.endswith(("_type", "_parsing", "_from_float")) and stem in type_words:
            phrase = type_words[stem]
        else:
            phrase = message
        if phrase not in phrases:
            phrases.append(phrase)
    return " or ".join(phrases), hint


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _plain(message: str) -> str:
    for start in ("Value error, ", "Assertion failed, ", "Input should be a valid ", "Input should be "):
        message = message.removeprefix(start)
    return message
