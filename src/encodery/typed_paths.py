"""Paths that were typed: on a command line they are meant from where it stands, in a recipe from its folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from encodery.problems import Path_


class _PathMark:
    def __repr__(self) -> str:
        return "a_path"


a_path = _PathMark()
"""Marks a field of a Config as a path: `Annotated[str, a_path]`."""


def meant_from_here(value: Any, typed: Callable[[Path_], bool], base: Path, key: Path_ = ()) -> Any:
    """A config whose relative paths all lead from the folder `base`: those of which `typed` says, of their key, that
    they were typed, led from the working directory."""
    if isinstance(value, BaseModel):
        changed: dict[str, Any] = {}
        for name, info in type(value).model_fields.items():
            old, inner = getattr(value, name), (*key, name)
            if a_path in info.metadata and isinstance(old, str):
                new = _from_base(old, base) if typed(inner) else old
            else:
                new = meant_from_here(old, typed, base, inner)
            if new is not old:
                changed[name] = new
        return value.model_copy(update=changed) if changed else value
    if isinstance(value, list | tuple):
        items = [meant_from_here(item, typed, base, (*key, index)) for index, item in enumerate(value)]
        return type(value)(items) if any(new is not old for new, old in zip(items, value)) else value
    return value


def _from_base(text: str, base: Path) -> str:
    here, base = Path.cwd(), base.resolve()
    path = Path(text).expanduser()
    if here == base or path.is_absolute() or text.startswith("hub:"):
        return text
    # The last name may be a pattern, which is nobody's to resolve.
    full = (here / path.parent).resolve() / path.name
    return str(full.relative_to(base) if full.is_relative_to(base) else full)
