"""Writes what the documentation draws from the code: README's file tree, the pages' lists of keys, quoted lines.

python docs/generate.py           write them anew
python docs/generate.py --check   say which of them are out of date, and exit with 1 when one is
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import textwrap
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
ENCODERS = ROOT / "docs" / "03_frontends_and_encoders.md"
RECIPES = ROOT / "docs" / "08_recipes.md"
QUOTING = ROOT / "docs" / "encoder"
OPTION_TABLE = QUOTING / "13_table_of_options.md"


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
            lines += _folder(PACKAGE / room, "  ")
    return "```text\n" + "\n".join(lines) + "\n```"


def _folder(folder: Path, indent: str) -> Iterator[str]:
    """A folder's purpose, then its files, then the folders in it."""
    yield _entry(f"{indent}{folder.name}/", first_line(folder / "__init__.py"))
    for file in sorted(folder.glob("*.py")):
        if file.name != "__init__.py":
            yield _entry(f"{indent}  {file.name}", first_line(file))
    for within in sorted(folder.glob("*/__init__.py")):
        yield from _folder(within.parent, f"{indent}  ")


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
    return "\n".join([*lines, *_table(model, default, list(model.model_fields))])


def _table(model: type[BaseModel], default: Any, names: list[str]) -> list[str]:
    """The named keys of a config class, a row each; `default` is that of the whole section, where it has one."""
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for name in names:
        info = model.model_fields[name]
        value = getattr(default, name) if default is not None else _default(info)
        meaning = " ".join((info.description or "").split()).replace("None: ", "none: ").replace("`None`", "`none`")
        nested = [child for child, _ in _models(info.annotation)]
        if nested and not meaning:
            meaning = "a section of its own, below"
        cells = (f"`{name}`", _type_text(info), _shown(value, bool(nested)), meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


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
        inside = get_args(annotation)
        return f"list of {_annotation_text(inside[0])}" if inside[-1] is ... else f"{len(inside)} numbers"
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


# -- the options of the encoders ---------------------------------------------------------------------


def encoder_options() -> str:
    """Every option of the text frontend and of each kind of encoder, in the groups of the source."""
    from encodery.encoders.kinds import EncoderConfig
    from encodery.frontends.text import TextConfig

    kinds = [(f"`encoder.kind: {_kind(model)}`", model) for model, _ in _models(EncoderConfig)]
    parts: list[str] = []
    for title, model in [("`frontend`", TextConfig), *kinds]:
        parts += [f"### {title}", " ".join((model.__doc__ or "").split())]
        nested: list[tuple[str, type[BaseModel]]] = []
        for group, names in _groups(model).items():
            parts.append((f"**{group}**\n\n" if group else "") + "\n".join(_table(model, None, names)))
            nested += [(name, child) for name in names for child, _ in _models(model.model_fields[name].annotation)]
        for name, child in nested:
            parts += [f"`{name}`: " + " ".join((child.__doc__ or "").split())]
            parts.append("\n".join(_table(child, None, list(child.model_fields))))
    return "\n\n".join(parts)


def _kind(model: type[BaseModel]) -> str:
    return str(model.model_fields["kind"].default)


def _groups(model: type[BaseModel]) -> dict[str, list[str]]:
    """The keys of a config class but `kind`, by the comments `# -- name` that stand between them in the source."""
    found: dict[str, list[str]] = {}
    group = ""
    for line in inspect.getsource(model).splitlines():
        begins = re.match(r"    # -- (.+)", line)
        key = re.match(r"    (\w+):", line)
        if begins:
            group = begins[1]
        elif key and key[1] in model.model_fields and key[1] != "kind":
            found.setdefault(group, []).append(key[1])
    return found


# -- quoted lines ----------------------------------------------------------------------------------

QUOTE = re.compile(
    r"<!-- code: (?P<file>\S+) (?P<name>[\w.]+)"
    r'(?: from "(?P<first>[^"\n]+)" to "(?P<last>[^"\n]+)")? -->\n(?P<old>.*?)<!-- /code -->',
    re.S,
)


def quoted(text: str, page: Path) -> str:
    """`text` with every quotation of the source as the source has it now.

    `<!-- code: bricks/positions.py rotate -->` quotes a function without its docstring, and with `from "x = " to
    "return"` the lines of it from the first that begins with the one to the next that begins with the other.
    """

    def renewed(found: re.Match[str]) -> str:
        head = found[0].split("\n", 1)[0]
        file = PACKAGE / found["file"]
        link = os.path.relpath(file, page.parent).replace(os.sep, "/")
        lines = quotation(file, found["name"], found["first"], found["last"])
        source = f"`{found['name']}` in [`{found['file']}`]({link}):"
        # Quoted lines are those of the source, whatever a formatter thinks of them without what stands around them.
        return f"{head}\n{source}\n\n<!-- fmt: off -->\n```python\n{lines}\n```\n<!-- fmt: on -->\n<!-- /code -->"

    return QUOTE.sub(renewed, text)


def quotation(file: Path, name: str, first: str | None = None, last: str | None = None) -> str:
    """Lines of a function, method or class of a file. Raises SystemExit where they are not to be found."""
    if not file.exists():
        raise SystemExit(f"quoted file is missing: {file.relative_to(ROOT)}")
    source = file.read_text(encoding="utf-8")
    node: Any = ast.parse(source)
    for part in name.split("."):
        inside = [child for child in node.body if getattr(child, "name", None) == part]
        if not inside:
            raise SystemExit(f"{file.relative_to(ROOT)} has no {name} to quote")
        node = inside[0]
    lines = source.splitlines()[node.lineno - 1 : node.end_lineno]
    if first is None or last is None:
        if ast.get_docstring(node) is not None:
            about = node.body[0]
            begin, end = about.lineno - node.lineno, (about.end_lineno or about.lineno) - node.lineno + 1
            del lines[begin : end + (end < len(lines) and not lines[end])]  # with the empty line behind it
        return textwrap.dedent("\n".join(lines)).strip("\n")
    begins = [number for number, line in enumerate(lines) if line.strip().startswith(first)]
    ends = [number for number, line in enumerate(lines) if line.strip().startswith(last)]
    for begin in begins:
        for end in ends:
            if begin <= end:
                return textwrap.dedent("\n".join(lines[begin : end + 1]))
    raise SystemExit(f"{name} in {file.relative_to(ROOT)} has no lines from {first!r} to {last!r} to quote")


# -- the table of options ----------------------------------------------------------------------------


def option_table() -> str:
    """Every row of tests/options.py, with what holds for it; what does not has a number and its reason below."""
    sys.path.insert(0, str(ROOT / "tests"))
    from conftest import tiny_config
    from encodery.errors import WeightsError
    from encodery.interop.keras_encoder.options import read_config
    from encodery.interop.onnx.graph import why_not
    from options import ROWS

    def in_keras(config: Any) -> str:
        try:
            read_config(config.model_dump(mode="json"))
        except WeightsError as refused:
            return str(refused).splitlines()[0]
        return ""

    reasons: list[str] = []

    def cell(reason: str) -> str:
        if not reason:
            return "yes"
        if reason not in reasons:
            reasons.append(reason)
        return f"no ({reasons.index(reason) + 1})"

    lines = ["| option | in a recipe | learns | packed | neighbour | gradient | ONNX | Keras |", "|---" * 8 + "|"]
    for group, rows in ROWS.items():
        lines.append(f"| **{group}** | | | | | | | |")
        for name, changes in rows.items():
            config = tiny_config(**changes)
            cells = ["yes"] * 4 + [cell(why_not(config, "encoder")), cell(in_keras(config))]
            lines.append(f"| {name} | {_written(changes)} | {' | '.join(cells)} |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes])


def _written(changes: dict[str, Any]) -> str:
    """The keys that make the option, without the sizes of the small encoder of the tests."""
    sizes = {"depth", "heads", "window", "block", "segment", "hash_rows", "hash_weights", "relative_buckets", "rows"}
    sizes |= {"relative_reach", "ngram_rows", "character_filters", "character_kernels", "ngram_lengths", "entities"}
    found = []
    for key, value in changes.items():
        if isinstance(value, dict):
            found += [f"{key}: {{{_written(value)}}}".replace("`", "")]
        elif key not in sizes:
            found.append(f"{key}: {str(value).lower() if isinstance(value, bool) else value}")
    return f"`{', '.join(found)}`" if found else ""


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
    drawn = {page: quoted(page.read_text(encoding="utf-8"), page) for page in sorted(QUOTING.glob("*.md"))}
    return {
        **drawn,
        OPTION_TABLE: filled(drawn[OPTION_TABLE], "table", option_table()),
        README: filled(README.read_text(encoding="utf-8"), "tree", tree()),
        RECIPES: filled(RECIPES.read_text(encoding="utf-8"), "keys", recipe_keys()),
        ENCODERS: filled(ENCODERS.read_text(encoding="utf-8"), "options", encoder_options()),
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
