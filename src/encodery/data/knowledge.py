"""What is known beside the texts: entities, their names, triples of them; from files that a recipe names."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from encodery.config import Config
from encodery.data.lines import Reading, open_lines
from encodery.data.places import Place, find, suffix_format
from encodery.errors import DataError
from encodery.typed_paths import a_path

_HEADERS = (("head", "relation", "tail"), ("id", "text"), ("id", "name"))
_TRIPLE_PARTS, _TEXT_PARTS = ("head", "relation", "tail"), ("id", "text")


class InjectionConfig(Config):
    """Triples written behind the texts that mention their heads (K-BERT, Liu et al. 2020)."""

    branches: int = Field(default=2, ge=1, le=64)
    """Triples a mention gets, at most, in the order of the file."""
    tokens: int = Field(default=32, ge=2, le=4096)
    """Tokens that all triples of a text may take. They come into the room that a text leaves below
    encoder.max_length; a text that is longer leaves this much of it free for them."""


FilePath = Annotated[str | None, a_path]


class KnowledgeConfig(Config):
    """Entities, and which words of the texts name them.

    Files are `id TAB text` (names, relations, descriptions) or `head TAB relation TAB tail` (triples) a line, or JSON
    Lines with these keys; a first line with these words is a header. Paths are relative to the recipe.
    """

    mentions: str | None = None
    """Column of the mentions of each row, in characters of its text: [[start, stop, "id"], ...]. Without a column,
    mentions are looked for by the names of the entities."""
    names: FilePath = None
    """File of the names of entities; several lines with one id are several names. Without it an id is its own name."""
    relations: FilePath = None
    """File of the names of relations, where triples have ids that say little."""
    triples: FilePath = None
    """File of triples: to be written into texts (`inject`), or to be learned (objective.kind: knowledge)."""
    validation_triples: FilePath = None
    """File of triples that are kept from learning: for objective.kind: knowledge, where there are no test triples."""
    test_triples: FilePath = None
    """File of triples that the learned ones are measured on, once."""
    descriptions: FilePath = None
    """File of what is said of each entity, for objective.kind: knowledge; by default its names."""
    vectors: FilePath = None
    """File of vectors of entities, `id numbers` a line as word2vec writes them: encoder.fusion starts with them."""
    align: Literal["first", "all"] = "first"
    """Which tokens of a mention name its entity: the first one, as in ERNIE, or all."""
    inject: InjectionConfig | None = None
    """Write triples behind the texts that mention their heads; none when left out."""

    @model_validator(mode="after")
    def _complete(self) -> KnowledgeConfig:
        if self.inject is not None and self.triples is None:
            raise ValueError("inject needs triples: the file of what is to be written into the texts")
        for name in ("validation_triples", "test_triples"):
            if getattr(self, name) is not None and self.triples is None:
                raise ValueError(f"{name} needs triples: those that are learned")
        return self


class Triple(NamedTuple):
    """A fact: `relation` holds between `head` and `tail`."""

    head: str
    relation: str
    tail: str


def read_triples(path: str, base: Path) -> Iterator[Triple]:
    """The triples of a file, in order.

    Raises DataError when there is no such file, at the first line that is no triple, and for a file without any.
    """
    for fields in _read(path, base, _TRIPLE_PARTS):
        yield Triple(*fields)


def read_texts(path: str, base: Path) -> Iterator[tuple[str, str]]:
    """Id and text of each line of a file, in order. Raises DataError as `read_triples`."""
    for fields in _read(path, base, _TEXT_PARTS):
        yield fields[0], fields[1]


def _read(path: str, base: Path, parts: tuple[str, ...]) -> Iterator[list[str]]:
    places = find(path, "text", base).places
    found = 0
    for place in places:
        lines_of = _json_lines if suffix_format(Path(place.path)) == "jsonl" else _tab_lines
        for fields in lines_of(place, parts):
            found += 1
            yield fields
    if not found:
        raise DataError(f"{path}: has no line of {_and(parts)}", expected="at least one", fix="name another file")


def _tab_lines(place: Place, parts: tuple[str, ...]) -> Iterator[list[str]]:
    with open_lines(place, Reading()) as lines:
        for line in lines:
            if not line.strip():
                continue
            fields = [field.strip() for field in line.rstrip("\r\n").split("\t")]
            if lines.number == 1 and tuple(field.lower() for field in fields) in _HEADERS:
                continue
            fault, detail = lines.fault(line)
            if fault or len(fields) != len(parts) or not all(fields):
                count = (
                    f"{len(fields)} fields instead of {len(parts)}" if len(fields) != len(parts) else "an empty field"
                )
                raise DataError(
                    f"{place.name}:{lines.number}: {f'{fault} ({detail})' if fault else count}: {line.strip()[:60]!r}",
                    expected=f"{_and(parts)}, with tabs between them, in UTF-8",
                    fix="correct the line, or write JSON Lines and name the file .jsonl",
                )
            yield fields


def _json_lines(place: Place, parts: tuple[str, ...]) -> Iterator[list[str]]:
    with open_lines(place, Reading()) as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                fields = [row[part] for part in parts]
                right = all(isinstance(field, str) and field.strip() for field in fields)
            except (ValueError, RecursionError, KeyError, TypeError):
                fields, right = [], False
            if not right:
                raise DataError(
                    f"{place.name}:{lines.number}: not an object with {_and(parts)}: {line.strip()[:60]!r}",
                    expected="{" + ", ".join(f'"{part}": "..."' for part in parts) + "}",
                    fix="correct the line",
                )
            yield [field.strip() for field in fields]


def _and(parts: tuple[str, ...]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def check_files(config: KnowledgeConfig, base: Path) -> None:
    """Read every file that the recipe names, to find out now what is wrong with them. Raises DataError."""
    for path in (config.names, config.relations, config.descriptions):
        for _ in read_texts(path, base) if path is not None else ():
            pass
    for path in (config.triples, config.validation_triples, config.test_triples):
        for _ in read_triples(path, base) if path is not None else ():
            pass


@dataclass(frozen=True)
class Knowledge:
    """What is known of the things that texts mention.

    `entities` are ids; the number of an entity is its place among them, from 1 on (0 is none). `names` are looked for
    in the texts, each with the number of its entity; empty where rows mark their mentions. `facts` are triples as the
    number of their head and the words of their relation and tail.
    """

    entities: tuple[str, ...]
    names: tuple[tuple[str, int], ...] = ()
    facts: tuple[tuple[int, str], ...] = ()
    align: Literal["first", "all"] = "first"
    inject: InjectionConfig | None = None

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each id."""
        return {entity: number for number, entity in enumerate(self.entities, start=1)}

    @cached_property
    def facts_of(self) -> dict[int, list[str]]:
        """The facts of each entity that has some, in order."""
        found: dict[int, list[str]] = {}
        for number, text in self.facts:
            found.setdefault(number, []).append(text)
        return found

    def to_json(self) -> str:
        """As text, for model folders."""
        inject = None if self.inject is None else self.inject.model_dump()
        return json.dumps({**asdict(self), "inject": inject}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Knowledge:
        """The knowledge back. Raises ValueError, KeyError or TypeError for another text."""
        given: dict[str, Any] = json.loads(text)
        return cls(
            entities=tuple(given["entities"]),
            names=tuple((str(name), int(number)) for name, number in given["names"]),
            facts=tuple((int(number), str(fact)) for number, fact in given["facts"]),
            align=given["align"],
            inject=None if given["inject"] is None else InjectionConfig.model_validate(given["inject"]),
        )


def gather_knowledge(
    config: KnowledgeConfig, base: Path, marked: Iterable[str] = (), first: tuple[str, ...] = ()
) -> Knowledge:
    """Read the files of a recipe.

    Entities are those that have a name, stand in a triple or are `marked` in the rows, in the order of their ids; with
    `first` they are exactly these, in this order, because a model has learned them so.

    Raises DataError for a file that is missing or damaged, and when nothing tells of any entity.
    """
    names: dict[str, list[str]] = {}
    for entity, name in read_texts(config.names, base) if config.names is not None else ():
        names.setdefault(entity, []).append(name)
    relations = dict(read_texts(config.relations, base)) if config.relations is not None else {}
    triples = list(read_triples(config.triples, base)) if config.triples is not None else []
    entities = first or tuple(sorted({*names, *marked, *(part for one in triples for part in (one.head, one.tail))}))
    if not entities:
        raise DataError(
            "data.knowledge tells of no entity: no row marks one, and no file of names or triples is named",
            fix="give the training rows mentions (data.knowledge.mentions: COLUMN), or name a file of names or triples",
        )
    knowledge = Knowledge(entities, align=config.align, inject=config.inject)
    numbers = knowledge.numbers
    looked_for: list[tuple[str, int]] = []
    if config.mentions is None:
        own = names if config.names is not None else {triple.head: [triple.head] for triple in triples}
        looked_for = [(name, numbers[entity]) for entity in own if entity in numbers for name in own[entity]]
    facts: list[tuple[int, str]] = []
    if config.inject is not None:
        for triple in triples:
            if triple.head in numbers:
                tail = names.get(triple.tail, [triple.tail])[0]
                facts.append((numbers[triple.head], f"{relations.get(triple.relation, triple.relation)} {tail}"))
    return Knowledge(entities, tuple(looked_for), tuple(facts), config.align, config.inject)
