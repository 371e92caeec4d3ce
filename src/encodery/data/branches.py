"""Samples that know: the entity that each token names, and triples written behind the text (K-BERT, Liu et al. 2020).

A sentence tree is flattened with its branches behind the text (K-BERT puts each behind its mention; where they lie in
memory changes nothing, and behind the text they leave its tokens side by side). Where they belong is said by soft
positions and by the numbers that make the visible matrix (sections 3.3 and 3.4).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import numpy as np

from encodery.batch import Sample, Tree
from encodery.data.knowledge import Knowledge
from encodery.data.mentions import FIRST
from encodery.data.tokenizers import Tokenizer


class BranchCounts(Protocol):
    """What is counted of the triples."""

    branches: int
    branch_tokens: int
    branches_left_out: int


class KnowledgeWriter:
    """Writes into samples what is known of the entities that their tokens name."""

    def __init__(self, knowledge: Knowledge, tokenizer: Tokenizer) -> None:
        self.knowledge = knowledge
        self.inject = knowledge.inject
        self._tokenizer = tokenizer
        self._branches: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}

    def room_for(self, mention: np.ndarray) -> int:
        """Tokens that a text with these mentions leaves free for triples where it is too long: 0 when it has none."""
        if self.inject is None or not any(self.branches_of(number) for number in _entities(mention)):
            return 0
        return self.inject.tokens

    def branches_of(self, number: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids and word starts of each triple that a mention of this entity gets."""
        if self.inject is None:
            return []
        if number not in self._branches:
            facts = self.knowledge.facts_of.get(number, [])[: self.inject.branches]
            encoded = self._tokenizer.encode_batch(facts, with_offsets=False)
            found = [(one.ids.astype(np.int64), one.starts_word) for one in encoded]
            self._branches[number] = [branch for branch in found if branch[0].size]
        return self._branches[number]

    def write(self, sample: Sample, mention: np.ndarray, room: int, counts: BranchCounts) -> Sample:
        """The sample with its entities, and with triples of up to `room` tokens behind it. `mention` (n,) is what the
        Linker says of its tokens. A triple that does not fit is left out whole, and counted."""
        number = (mention & ~FIRST).astype(np.int64)
        entity = number if self.knowledge.align == "all" else np.where((mention & FIRST) != 0, number, 0)
        sample = replace(sample, entity=entity)
        return sample if self.inject is None else self._grown(sample, mention, number, room, counts)

    def _grown(
        self, sample: Sample, mention: np.ndarray, number: np.ndarray, room: int, counts: BranchCounts
    ) -> Sample:
        assert self.inject is not None
        room = min(room, self.inject.tokens)
        ids, starts_word, segment = [sample.ids], [sample.starts_word], [sample.segment]
        position, branch = [np.arange(sample.ids.size)], [np.zeros(sample.ids.size, dtype=np.int64)]
        belongs, of_branches = np.zeros(sample.ids.size, dtype=np.int64), []
        branches = mentions = 0
        for begin in np.flatnonzero(mention & FIRST).tolist():
            end = begin + 1
            while end < mention.size and mention[end] == number[begin]:  # without FIRST: the same mention goes on
                end += 1
            for more, starts in self.branches_of(int(number[begin])):
                if room < more.size:
                    counts.branches_left_out += 1
                    continue
                room -= more.size
                branches += 1
                if not belongs[begin]:
                    mentions += 1
                    belongs[begin:end] = mentions
                ids.append(more)
                starts_word.append(starts)
                segment.append(np.full(more.size, sample.segment[begin]))
                position.append(np.arange(end, end + more.size))
                branch.append(np.full(more.size, branches))
                of_branches.append(np.full(more.size, mentions))
        if not branches:
            return sample
        flat = np.concatenate(ids)
        counts.branches += branches
        counts.branch_tokens += flat.size - sample.ids.size
        assert sample.entity is not None
        return replace(
            sample,
            ids=flat,
            starts_word=np.concatenate(starts_word),
            segment=np.concatenate(segment),
            entity=np.concatenate([sample.entity, np.zeros(flat.size - sample.ids.size, dtype=np.int64)]),
            tree=Tree(np.concatenate(position), np.concatenate(branch), np.concatenate([belongs, *of_branches])),
        )


def _entities(mention: np.ndarray) -> list[int]:
    return np.unique(mention[mention != 0] & ~FIRST).tolist()
