"""Writes the parts of the documentation that are drawn from the code: README's file tree, the pages' lists of keys.

python docs/generate.py           write them anew
python docs/generate.py --check   say which of them are out of date, and exit with 1 when one is
"""

from __future__ import annotations

import ast
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "encodery"
README = ROOT / "README.md"
RECIPES = ROOT / "docs" / "08_recipes.md"


# -- the file tree ---------------------------------------------------------------------------------


def first_line(file: Path) -> str:
    """The first line of a Python file's docstring: its purpose."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return docstring.split("\n", 1)[0].strip()


def corridor() -> list[str]:
    """The rooms in the order of the import contract, floor first."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [layer.strip("()") for layer in reversed(layers)]


def tree() -> str:
    """The files of the package in the order in which data passes them, each with its purpose."""
    lines = ["src/encodery/"]
    for room in corridor():
        if (PACKAGE / f"{room}.py").exists():
            lines.append(_entry(f"  {room}.py", first_line(PACKAGE / f"{room}.py")))
        elif (PACKAGE / room).is_dir():
            lines.append(_entry(f"  {room}/", first_line(PACKAGE / room / "__init__.py")))
            files = sorted(file for file in (PACKAGE / room).glob("*.py") if file.name != "__init__.py")
            lines += [_entry(f"    {file.name}", first_line(file)) for file in files]
    return "```text\n" + "\n".join(lines) + "\n```"


def _entry(name: str, purpose: str) -> str:
    return f"{name:<28}{_brief(purpose)}".rstrip()


def _brief(purpose: str, longest: int = 92) -> str:
    """The purpose, or its first clauses when it is long."""
    purpose = purpose.rstrip(".")
    if len(purpose) <= longest:
        return purpose
    ends = [purpose.rfind(mark, 0, longest) for mark in (": ", "; ", ", ", " (")]
    short = purpose[: max(ends)] if max(ends) > 20 else purpose
    return short if short.count("(") == short.count(")") else short[: short.rfind(" (")]


# -- the keys of a recipe --------------------------------------------------------------------------


def recipe_keys() -> str:
    """Every key of a recipe, section by section, with its type, default and help."""
    from encodery.training.recipe import Recipe

    parts: list[str] = []
    for path, model, default in _sections(Recipe, "", None, {}):
        parts.append(_section(path, model, default))
    return "\n\n".join(parts)


_Seen = dict[type[BaseModel], str]


def _sections(
    model: type[BaseModel], path: str, default: BaseModel | None, seen: _Seen
) -> Iterator[tuple[str, type[BaseModel], Any]]:
    """Each section's path, its class, and the default of the whole section; a class is described once."""
    again = model in seen
    yield path, model, (seen[model], default) if again else default
    if again:
        return
    seen[model] = path
    # Pretraining repeats sections of the recipe itself, so it comes after them.
    for name, info in sorted(model.model_fields.items(), key=lambda field: field[0] == "pretrain"):
        inside = f"{path}.{name}" if path else name
        value = getattr(default, name, None) if default is not None else _default(info)
        for child, is_list in _models(info.annotation):
            given = value if isinstance(value, child) else None
            yield from _sections(child, inside + ("[]" if is_list else ""), given, seen)


def _section(path: str, model: type[BaseModel], default: Any) -> str:
    title = f"## `{path}`" if path else "## The recipe itself"
    about = " ".join((model.__doc__ or "").split())
    if isinstance(default, tuple):
        place, given = default
        lines = [title, "", f"The same keys as in `{place}`."]
        differing = _differences(model, given) if given is not None else []
        if differing:
            lines += ["", "Other defaults here: " + ", ".join(differing) + "."]
        return "\n".join(lines)
    kinds = sorted(_choices(model.model_fields["kind"].annotation)) if "kind" in model.model_fields else []
    lines = [title + (f" with kind {', '.join(kinds)}" if kinds else ""), "", about, ""]
    lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        value = getattr(default, name) if default is not None else _default(info)
        meaning = " ".join((info.description or "").split()).replace("None: ", "none: ").replace("`None`", "`none`")
        nested = [child for child, _ in _models(info.annotation)]
        if nested and not meaning:
            meaning = "a section of its own, below"
        cells = (f"`{name}`", _type_text(info), _shown(value, bool(nested)), meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _differences(model: type[BaseModel], given: BaseModel, prefix: str = "") -> list[str]:
    """Values of a section's default that are not what its class has by default, as `key: value`."""
    found: list[str] = []
    for name, info in model.model_fields.items():
        value, usual = getattr(given, name), _default(info)
        if isinstance(value, BaseModel):
            found += _differences(type(value), value, f"{prefix}{name}.")
        elif value != usual:
            found.append(f"`{prefix}{name}: {value}`")
    return found


def _default(info: FieldInfo) -> Any:
    return info.get_default(call_default_factory=not info.default_factory_takes_validated_data)


def _shown(value: Any, is_section: bool) -> str:
    if value is PydanticUndefined:
        return "must be given"
    if value is None:
        return "none"
    if is_section:
        return "[]" if isinstance(value, list) else "see below"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "`[" + ", ".join(str(item) for item in value) + "]`"
    return f"`{value}`"


def _type_text(info: FieldInfo) -> str:
    text = _annotation_text(info.annotation)
    bounds = []
    for rule in info.metadata:
        for mark, sign in (("gt", ">"), ("ge", "≥"), ("lt", "<"), ("le", "≤")):
            limit = getattr(rule, mark, None)
            if limit is not None:
                bounds.append(f"{sign} {limit:,}")
    return f"{text} ({', '.join(bounds)})" if bounds else text


def _annotation_text(annotation: Any) -> str:
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "none"}
    if annotation in words:
        return words[annotation]
    origin = get_origin(annotation)
    if origin is Annotated:
        return _annotation_text(get_args(annotation)[0])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(annotation))
    if origin in (Union, types.UnionType):
        parts = [_annotation_text(part) for part in get_args(annotation) if part is not type(None)]
        return " or ".join(dict.fromkeys(parts))
    if origin is list:
        return f"list of {_annotation_text(get_args(annotation)[0])}"
    if origin is dict:
        return "section of names and numbers"
    if origin is tuple:
        return f"{len(get_args(annotation))} numbers"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return getattr(annotation, "__name__", str(annotation)).lower()


def _models(annotation: Any) -> list[tuple[type[BaseModel], bool]]:
    """The config classes inside an annotation, each with whether it stands in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [(annotation, False)]
    in_list = get_origin(annotation) is list
    found = [pair for part in get_args(annotation) for pair in _models(part)] if get_origin(annotation) else []
    return [(model, in_list or listed) for model, listed in found]


def _choices(annotation: Any) -> list[str]:
    return [str(choice) for choice in get_args(annotation)] if get_origin(annotation) is Literal else []


# -- writing ---------------------------------------------------------------------------------------


def filled(text: str, name: str, content: str) -> str:
    """`text` with what stands between `<!-- name -->` and `<!-- /name -->` replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"the marks {begin} and {end} are missing")
    return f"{before}{begin}\n{content}\n{end}{after}"


def pages() -> dict[Path, str]:
    """What each page with a drawn part should hold."""
    return {
        README: filled(README.read_text(encoding="utf-8"), "tree", tree()),
        RECIPES: filled(RECIPES.read_text(encoding="utf-8"), "keys", recipe_keys()),
    }


def stale() -> list[str]:
    """The pages whose drawn part is not what the code says."""
    return [str(page.relative_to(ROOT)) for page, text in pages().items() if page.read_text(encoding="utf-8") != text]


if __name__ == "__main__":
    if "--check" in sys.argv:
        old = stale()
        print("\n".join(f"out of date: {page}" for page in old) or "all current")
        sys.exit(1 if old else 0)
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
