"""Triples to be learned, with what is said of their entities; batches of texts and of entities side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encodery.batch import Batch, Sample
from encodery.data.knowledge import KnowledgeConfig, Triple, read_texts, read_triples
from encodery.data.loader import Loader
from encodery.data.packing import BatchPlan, longest_row, pack, plan_batches
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.tokenizers import Tokenizer
from encodery.errors import ConfigError, DataError

_TRIES = 32
"""Triples in a row that may not fit before a batch counts as full."""


@dataclass(frozen=True)
class Graph:
    """Triples by number, (n, 3) int64: head, relation, tail. `train` is learned; the others are kept from it."""

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @cached_property
    def learned(self) -> Answers:
        """What is known while learning: the training triples alone."""
        return Answers(self.train)

    @cached_property
    def known(self) -> Answers:
        """All that is true: what is left out when the rank of an answer is counted."""
        return Answers(np.concatenate([self.train, self.validation, self.test]))


class Answers:
    """The true answers of every question: which tails a head and a relation have, which heads a relation and a tail."""

    def __init__(self, triples: np.ndarray) -> None:
        found: dict[tuple[int, int, bool], set[int]] = {}
        for head, relation, tail in triples.tolist():
            found.setdefault((head, relation, True), set()).add(tail)
            found.setdefault((tail, relation, False), set()).add(head)
        self._found = {question: np.array(sorted(answers)) for question, answers in found.items()}

    def of(self, known: int, relation: int, *, for_tails: bool) -> np.ndarray:
        """Numbers of the entities, ascending; none for a question that was never asked."""
        return self._found.get((known, relation, for_tails), np.zeros(0, dtype=np.int64))


def read_graph(config: KnowledgeConfig, base: Path) -> Graph:
    """The triples of a recipe, with entities and relations in the order of their ids.

    Raises DataError for a file that is missing or damaged, and for a relation of the kept triples that none of the
    learned ones has: its vector would never be learned.
    """
    assert config.triples is not None, "the recipe names triples"
    files = {"train": config.triples, "validation": config.validation_triples, "test": config.test_triples}
    read = {name: list(read_triples(path, base)) if path is not None else [] for name, path in files.items()}
    learned = {triple.relation for triple in read["train"]}
    for name in ("validation", "test"):
        for triple in read[name]:
            if triple.relation not in learned:
                raise DataError(
                    f"{files[name]}: the relation {triple.relation!r} is in none of the triples of {config.triples}",
                    expected=f"one of {', '.join(sorted(learned)[:20])}",
                    fix="correct the triple, or give some with this relation to learn from",
                )
    everything = [triple for triples in read.values() for triple in triples]
    entities = sorted({part for triple in everything for part in (triple.head, triple.tail)})
    relations = sorted(learned)
    entity = {name: number for number, name in enumerate(entities)}
    relation = {name: number for number, name in enumerate(relations)}

    def numbered(triples: list[Triple]) -> np.ndarray:
        rows = [(entity[one.head], relation[one.relation], entity[one.tail]) for one in triples]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    return Graph(tuple(entities), tuple(relations), *(numbered(read[name]) for name in files))


@dataclass(frozen=True)
class Described:
    """A graph whose entities are texts: a sample each, in their order. `facts` are for the report."""

    graph: Graph
    samples: list[Sample]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def longest(self) -> int:
        """Positions of the longest description."""
        return max(sample.ids.size for sample in self.samples)

    def batches(self, budget: int, max_length: int, pad_id: int) -> list[tuple[Batch, np.ndarray]]:
        """All descriptions in batches of `budget` positions, each with the numbers of its entities in order."""
        lengths = np.array([sample.ids.size for sample in self.samples])
        plans = plan_batches(lengths, budget, max_length)
        made = []
        for plan in plans:
            batch = pack(self.samples, plan, budget, pad_id)
            made.append((batch, -1 - batch.uids))
        return made


def describe(
    graph: Graph, config: KnowledgeConfig, base: Path, tokenizer: Tokenizer, *, most_tokens: int, frame_room: int
) -> Described:
    """Tokenise what is said of each entity: its description, else its names, else its id; cut to `most_tokens` tokens
    with special ones, and to no more than `frame_room`."""
    said: dict[str, list[str]] = {}
    for source in (config.descriptions, config.names if config.descriptions is None else None):
        for entity, text in read_texts(source, base) if source is not None else ():
            said.setdefault(entity, []).append(text)
    names = dict(read_texts(config.names, base)) if config.names is not None and config.descriptions is not None else {}
    texts = [", ".join(said[entity]) if entity in said else names.get(entity, entity) for entity in graph.entities]
    maker, counts = SampleMaker.framed(tokenizer.frame, min(most_tokens, frame_room), "cut"), LengthCounts()
    samples = []
    for number, encoded in enumerate(tokenizer.encode_batch(texts, with_offsets=False)):
        # The uid is negative: these are no rows of the data.
        samples += maker.single(encoded.ids.astype(np.int64), encoded.starts_word, -1 - number, counts)
    facts = {
        "entities": len(graph.entities),
        "entities without a description": sum(entity not in said for entity in graph.entities),
        "descriptions cut": counts.cut_rows,
        "relations": len(graph.relations),
        "triples learned": len(graph.train),
        "triples kept for validation": len(graph.validation),
        "triples kept for the test": len(graph.test),
    }
    return Described(graph, samples, {name: count for name, count in facts.items() if count})


@dataclass
class JointLoader(Loader):
    """Batches of which a share is entities: the descriptions of as many triples, drawn at random, as fit.

    Texts come in the order of the Loader; which triples come is a function of the seed and of their batch. Documents of
    the texts stand first. `truth` gets `entity` (E,), the numbers of the documents that are entities, `entity_id` (E,),
    theirs in the graph, and `triples` (T, 3), heads and tails by their place among these E, and relations.
    """

    described: Described | None = None
    share: float = 0.5

    @property
    def entity_budget(self) -> int:
        """Positions for entities: a multiple of the longest row, at least one of it; texts keep at least one too."""
        row = longest_row(self.maker.max_length)
        if self.budget < 2 * row:
            raise ConfigError(
                f"batches of {self.budget:,} positions have no room for texts and entities beside each other",
                expected=f"training.batch_tokens of {2 * row:,} or more: two rows for the longest text",
            )
        return min(max(row, round(self.share * self.budget / row) * row), self.budget - row)

    @property
    def text_budget(self) -> int:
        return self.budget - self.entity_budget

    def packed(self, samples: Sequence[Sample], plan: BatchPlan, key: tuple[int, ...]) -> Batch:
        described = self.described
        assert described is not None, "a joint loader needs entities"
        length = max(plan.length, longest_row(described.longest))
        times = length // plan.length
        rows = [*plan.rows, *([[]] * (self.text_budget // plan.length - len(plan.rows)))]
        texts = [[number for row in rows[at : at + times] for number in row] for at in range(0, len(rows), times)]
        chosen = [samples[number] for row in texts for number in row]
        places = iter(range(len(chosen)))
        numbered = [[next(places) for _ in row] for row in texts]
        entity_rows, triples = self._draw(length, np.random.default_rng([self.seed, *key, 1]))
        entity_ids = [number for row in entity_rows for number in row]
        first = iter(range(len(chosen), len(chosen) + len(entity_ids)))
        numbered += [[next(first) for _ in row] for row in entity_rows]
        whole = BatchPlan(length, numbered)
        batch = pack([*chosen, *(described.samples[number] for number in entity_ids)], whole, self.budget, self.pad_id)
        place = {number: at for at, number in enumerate(entity_ids)}
        local = [(place[head], relation, place[tail]) for head, relation, tail in triples]
        truth = {
            "entity": np.arange(len(chosen), len(chosen) + len(entity_ids)),
            "entity_id": np.array(entity_ids, dtype=np.int64),
            "triples": np.array(local, dtype=np.int64).reshape(-1, 3),
        }
        return replace(batch, truth={name: torch.from_numpy(value) for name, value in truth.items()})

    def _draw(self, length: int, rng: np.random.Generator) -> tuple[list[list[int]], list[tuple[int, int, int]]]:
        """Triples and rows of `length` positions that hold their entities, each once."""
        assert self.described is not None
        samples, train = self.described.samples, self.described.graph.train
        rows: list[list[int]] = [[] for _ in range(self.entity_budget // length)]
        room = np.full(len(rows), length)
        placed: set[int] = set()
        triples: list[tuple[int, int, int]] = []
        failed = 0
        drawn = rng.choice(len(train), min(len(train), self.entity_budget // 4), replace=False)
        for head, relation, tail in train[drawn].tolist():
            new = [number for number in dict.fromkeys((head, tail)) if number not in placed]
            took: list[tuple[int, int]] = []
            for number in new:
                size = samples[number].ids.size
                fitting = np.flatnonzero(room >= size)
                if not fitting.size:
                    break
                room[fitting[0]] -= size
                took.append((int(fitting[0]), number))
            if len(took) < len(new):
                for row, number in took:
                    room[row] += samples[number].ids.size
                failed += 1
                if failed == _TRIES:
                    break
                continue
            failed = 0
            for row, number in took:
                rows[row].append(number)
                placed.add(number)
            triples.append((head, relation, tail))
        return rows, triples
