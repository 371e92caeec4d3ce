"""Short forms in a recipe written out: a lone text, a preset's name, a kind that the default decides.

`encoder: small` becomes the preset's values with the user's laid over them. Works on trees that know where
each value comes from, so that a value the preset brought says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from encodery.errors import nearest
from encodery.problems import Path_, Problem, Slot, dotted, field_slot, shown
from encodery.yaml_tree import Node, Origin, as_node

default_origin = Origin("default")


def presets_of(model: type[BaseModel] | None) -> Mapping[str, Mapping[str, Any]]:
    """The ready sets of values that a class declares as `presets`."""
    return getattr(model, "presets", {})


def shorthand_of(model: type[BaseModel] | None) -> str:
    """The field that a lone text stands for in a section of this class, or an empty text."""
    return getattr(model, "shorthand", "") or ("preset" if presets_of(model) else "")


def slot_inside(slot: Slot | None, node: Node, key: str | int) -> Slot | None:
    """The slot of `key` in a section that stands in `slot`, as far as the class of the section is known."""
    if slot is None or not isinstance(node.value, dict):
        return None
    tag = node.value.get(slot.discriminator) if slot.discriminator else None
    model = slot.pick(tag.plain() if tag else None)
    info = model.model_fields.get(str(key)) if model else None
    return field_slot(info) if info else slot.values


def merged(under: Node, over: Node, slot: Slot | None = None) -> Node:
    """`over` laid over `under`: sections key by key, everything else (and another kind) replaced."""
    if not (isinstance(under.value, dict) and isinstance(over.value, dict)):
        return over
    if slot and _of_other_kinds(slot, under, over):
        return over  # the keys of one kind mean nothing to another
    joined = dict(under.value)
    for key, child in over.value.items():
        joined[key] = merged(joined[key], child, slot_inside(slot, under, key)) if key in joined else child
    return Node(joined, under.origin if under.origin.line else over.origin)


def _of_other_kinds(slot: Slot, under: Node, over: Node) -> bool:
    """Whether `over` names another kind than `under` has: by its name or, without one, by a key of another kind."""
    tag = slot.discriminator
    if tag is None or tag not in over.value:
        return False
    kind = over.value[tag].plain()
    if tag in under.value:
        return under.value[tag].plain() != kind
    own = slot.pick(kind)
    others = {key for model in slot.tags.values() for key in model.model_fields}
    return own is not None and any(key in others and key not in own.model_fields for key in under.value)


def complete_level(
    model: type[BaseModel], node: Node, path: Path_, problems: list[Problem], *, over_defaults: bool = True
) -> Node:
    """Write out the short form, the preset and the kinds of unions that belong to one section."""
    short = shorthand_of(model)
    if isinstance(node.value, str) and short:
        node = Node({short: node}, node.origin)
    if not isinstance(node.value, dict):
        return node
    if presets_of(model) and "preset" in node.value:
        node = _with_preset(model, node, path, problems)
    children = dict(node.value)
    for name, info in model.model_fields.items():
        slot = field_slot(info)
        if name not in children:
            continue
        default = info.get_default(call_default_factory=not info.default_factory_takes_validated_data)
        if slot.discriminator:
            children[name] = with_kind(slot, children[name], default)
        if over_defaults and isinstance(default, BaseModel):
            children[name] = _over_default(slot, children[name], default)
        if isinstance(children[name].value, list) and slot.items:
            items = [with_kind(slot.items, item, None) for item in children[name].value]
            children[name] = Node(items, children[name].origin)
    return Node(children, node.origin)


def _over_default(slot: Slot, node: Node, default: BaseModel) -> Node:
    """A section laid over the values its field has by default, as long as it is of the same class.

    Otherwise one key given in a recipe would quietly undo what the field's default says about the others. A
    section that names a preset stands for itself.
    """
    if not isinstance(node.value, dict) or "preset" in node.value:
        return node
    tag = node.value.get(slot.discriminator) if slot.discriminator else None
    if slot.pick(tag.plain() if tag else None) is not type(default):
        return node
    return merged(as_node(default.model_dump(exclude_unset=True), default_origin), node, slot)


def _with_preset(model: type[BaseModel], node: Node, path: Path_, problems: list[Problem]) -> Node:
    children = dict(node.value)
    name, origin = children["preset"].plain(), children["preset"].origin
    presets = presets_of(model)
    declared = "preset" in model.model_fields
    if name is not None and (not isinstance(name, str) or name not in presets):
        hint = nearest(str(name), presets)
        expected = f"one of {', '.join(presets)}"
        key = dotted((*path, "preset"))
        given = f"unknown preset {shown(name)}"
        problems.append(Problem(str(origin), key, given, expected, hint, path, "unknown_preset", origin.line))
        del children["preset"]
        return Node(children, node.origin)
    if name is None or not declared:
        del children["preset"]
    if name is None:
        return Node(children, node.origin)
    return merged(as_node(dict(presets[name]), Origin(f"preset {name}")), Node(children, node.origin))


def with_kind(slot: Slot, node: Node, default: Any) -> Node:
    """Say which member of a discriminated union is meant where the preset or the default decides it."""
    tags, key = slot.tags, slot.discriminator or ""
    if not tags:
        return node
    usual = [tag for tag, model in tags.items() if type(default) is model and getattr(default, key, None) == tag]
    if isinstance(node.value, str):
        if node.value in tags:
            return Node({key: node}, node.origin)
        of_default = any(presets_of(tags[tag]) for tag in usual)
        if not any(node.value in presets_of(model) for model in tags.values()) and (
            nearest(node.value, tags) or not of_default
        ):
            return Node({key: node}, node.origin)  # a misspelt kind: the message will name the kinds
        node = Node({"preset": node}, node.origin)
    if not isinstance(node.value, dict) or key in node.value:
        return node
    preset = node.value["preset"].plain() if "preset" in node.value else None
    owners = [tag for tag, model in tags.items() if preset in presets_of(model)]
    chosen = [tag for tag in usual if tag in owners or not owners] or (owners if len(owners) == 1 else [])
    if not chosen:
        return node
    origin = Origin(f"preset {preset}") if chosen == owners and chosen != usual else default_origin
    return Node({key: Node(chosen[0], origin), **node.value}, node.origin)


def complete(slot: Slot, node: Node, path: Path_, problems: list[Problem]) -> Node:
    """`complete_level` for a whole tree, so that every value a preset brings is known by its source."""
    tag = node.value.get(slot.discriminator) if slot.discriminator and isinstance(node.value, dict) else None
    model = slot.pick(tag.plain() if tag else None)
    if isinstance(node.value, list) and slot.items:
        items = slot.items
        found = [complete(items, child, (*path, index), problems) for index, child in enumerate(node.value)]
        return Node(found, node.origin)
    if model is None or (isinstance(node.value, str) and len(slot.members) > 1):
        return node
    node = complete_level(model, node, path, problems)
    if not isinstance(node.value, dict):
        return node
    children = dict(node.value)
    for name, info in model.model_fields.items():
        if name in children:
            children[name] = complete(field_slot(info), children[name], (*path, name), problems)
    return Node(children, node.origin)
