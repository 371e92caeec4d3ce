"""Token ids of a row -> Samples: special tokens set, pairs joined, long documents split into windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

import numpy as np

from encodery.batch import Sample
from encodery.data.branches import KnowledgeWriter
from encodery.data.frames import Frame

LongPolicy = Literal["split", "cut"]
NOTHING: Mapping[str, np.ndarray] = MappingProxyType({})

SHORTEST_REST = 16
"""Tokens that may stand alone behind the full windows of a long text."""


@dataclass
class LengthCounts:
    """What happened to long rows, for the report: nothing is cut without being counted."""

    rows: int = 0
    split_rows: int = 0
    windows: int = 0
    cut_rows: int = 0
    cut_tokens: int = 0
    kept_tokens: int = 0
    branches: int = 0
    branch_tokens: int = 0
    branches_left_out: int = 0

    def to_dict(self) -> dict[str, int]:
        return dict(vars(self))


@dataclass(frozen=True)
class SampleMaker:
    """Turns token ids into samples of at most `max_length` positions.

    A single text becomes `[CLS] text [SEP]`, a pair `[CLS] a [SEP] b [SEP]` with segment 1 from b on, unless `frame`
    says what stands around texts instead (`SampleMaker.framed`). A text that is too long is split into full windows
    and a rest (`long: split`) or loses its end (`cut`). A pair that is too long loses the end of its longer text, token
    by token, as in BERT; it is never split. With a `writer` samples know which entities their tokens name, and triples
    of these stand behind the text where there is room; a text that is too long leaves some. `compose` names how the
    texts of a row become samples (data/composing.py).
    """

    cls_id: int | None
    sep_id: int | None
    max_length: int
    long: LongPolicy = "split"
    frame: Frame | None = None
    writer: KnowledgeWriter | None = None
    compose: str = "joined"

    @classmethod
    def framed(
        cls,
        frame: Frame,
        max_length: int,
        long: LongPolicy = "split",
        writer: KnowledgeWriter | None = None,
        compose: str = "joined",
    ) -> SampleMaker:
        """With the special tokens that `frame` names."""
        return cls(None, None, max_length, long, frame, writer, compose)

    @property
    def around(self) -> Frame:
        """What stands around texts."""
        if self.frame is not None:
            return self.frame
        assert self.cls_id is not None and self.sep_id is not None, "a frame, or the ids of its two tokens"
        return Frame((self.cls_id,), (self.sep_id,), (self.sep_id,))

    def single(
        self,
        ids: np.ndarray,
        starts_word: np.ndarray,
        uid: int,
        counts: LengthCounts,
        mention: np.ndarray | None = None,
        numbers: Mapping[str, np.ndarray] = NOTHING,
    ) -> list[Sample]:
        """The samples of one text. `mention` (T,) is what a Linker says of its tokens, `numbers` (T,) by name what the
        fields of the data say of them."""
        room = self.max_length - self.around.single_size
        counts.rows += 1
        total = ids.size
        if room < total and self.writer is not None and mention is not None:
            room -= min(room // 2, self.writer.room_for(mention))
        if total <= room:
            pieces = [(0, total)]
        elif self.long == "cut":
            pieces = [(0, room)]
            counts.cut_rows += 1
            counts.cut_tokens += total - room
        else:
            pieces = split_pieces(total, room)
            counts.split_rows += 1
        counts.windows += len(pieces)
        counts.kept_tokens += pieces[-1][1]
        samples = [
            self._framed(ids[a:b], starts_word[a:b], uid, part, {name: of[a:b] for name, of in numbers.items()})
            for part, (a, b) in enumerate(pieces)
        ]
        if self.writer is None or mention is None:
            return samples
        before = len(self.around.before)
        mentions = [(before, mention[a:b]) for a, b in pieces]
        return [self._known(one, [found], counts) for one, found in zip(samples, mentions)]

    def pair(
        self,
        first: tuple[np.ndarray, np.ndarray],
        second: tuple[np.ndarray, np.ndarray],
        uid: int,
        counts: LengthCounts,
        mentions: tuple[np.ndarray, np.ndarray] | None = None,
        numbers: tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]] = (NOTHING, NOTHING),
    ) -> list[Sample]:
        """The sample of a pair of texts. `mentions` are what a Linker says of their tokens, `numbers` what the fields
        of the data say of them."""
        frame = self.around
        room = self.max_length - frame.pair_size
        a, b = first[0].size, second[0].size
        counts.rows += 1
        counts.windows += 1
        if room < a + b:
            counts.cut_rows += 1
            counts.cut_tokens += a + b - room
            # The shorter text keeps all it can; the longer one gives way.
            short = min(a, b, max(room // 2, room - max(a, b)))
            a, b = (short, room - short) if a < b else (room - short, short)
        counts.kept_tokens += a + b
        parts = [frame.before, first[0][:a], frame.between, second[0][:b], frame.after]
        ids = np.concatenate([np.asarray(part, dtype=np.int64) for part in parts])
        starts_word = np.ones(ids.size, dtype=bool)
        begin = len(frame.before) + a + len(frame.between)
        starts_word[len(frame.before) : len(frame.before) + a] = first[1][:a]
        starts_word[begin : begin + b] = second[1][:b]
        segment = np.zeros(ids.size, dtype=np.int64)
        segment[begin:] = frame.second
        beside = {
            name: _placed(ids.size, (len(frame.before), of[:a]), (begin, numbers[1][name][:b]))
            for name, of in numbers[0].items()
        }
        sample = Sample(ids, starts_word, segment, uid, beside=beside)
        if mentions is None:
            return [sample]
        return [self._known(sample, [(len(frame.before), mentions[0][:a]), (begin, mentions[1][:b])], counts)]

    def cut(self, ids: np.ndarray, starts_word: np.ndarray, uid: int, part: int, counts: LengthCounts) -> Sample:
        """One text as one sample that keeps its number `part`; the end of a long one is lost, and counted."""
        room = self.max_length - self.around.single_size
        counts.rows += part == 0
        counts.windows += 1
        counts.cut_rows += room < ids.size
        counts.cut_tokens += max(0, ids.size - room)
        counts.kept_tokens += min(room, ids.size)
        return self._framed(ids[:room], starts_word[:room], uid, part, NOTHING)

    def _known(self, sample: Sample, mentions: list[tuple[int, np.ndarray]], counts: LengthCounts) -> Sample:
        """The sample with what is known of its mentions, each array of them from a place in it on."""
        if self.writer is None:
            return sample
        whole = np.zeros(sample.ids.size, dtype=np.uint32)
        for begin, mention in mentions:
            whole[begin : begin + mention.size] = mention
        return self.writer.write(sample, whole, self.max_length - sample.ids.size, counts)

    def _framed(
        self, ids: np.ndarray, starts_word: np.ndarray, uid: int, part: int, numbers: Mapping[str, np.ndarray]
    ) -> Sample:
        frame = self.around
        begin, end = len(frame.before), len(frame.before) + ids.size
        whole = np.empty(ids.size + frame.single_size, dtype=np.int64)
        whole[:begin], whole[begin:end], whole[end:] = frame.before, ids, frame.after
        starts = np.ones(whole.size, dtype=bool)
        starts[begin:end] = starts_word
        beside = {name: _placed(whole.size, (begin, of)) for name, of in numbers.items()}
        return Sample(whole, starts, np.zeros(whole.size, dtype=np.int64), uid, part, beside=beside)


def _placed(size: int, *pieces: tuple[int, np.ndarray]) -> np.ndarray:
    """Pieces at their places in `size` numbers, 0 elsewhere."""
    whole = np.zeros(size, dtype=np.int32)
    for begin, piece in pieces:
        whole[begin : begin + piece.size] = piece
    return whole


def split_pieces(total: int, room: int) -> list[tuple[int, int]]:
    """[start, stop) of the windows of a long text: full ones, which fill rows without padding, and the rest. A rest so
    short that it would mean little by itself shares the last two windows evenly."""
    edges = [*range(0, total, room), total]
    if len(edges) > 2 and total - edges[-2] < min(SHORTEST_REST, room // 8):
        edges[-2] = (edges[-3] + total + 1) // 2
    return list(pairwise(edges))
