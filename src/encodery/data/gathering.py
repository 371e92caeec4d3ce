"""What is gathered while rows stream into a token store: tokens packed, labels numbered, fields laid beside."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from encodery.data.fields import Field
from encodery.data.sources import Row
from encodery.data.tokenizers import Encoded, Tokenizer
from encodery.errors import DataError, nearest

LabelKind = Literal["none", "class", "classes", "number"]
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,300}")


def unpacked(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Packed tokens as ids (int64) and word starts (bool)."""
    flag = word_flag(packed.dtype)
    return (packed & ~flag).astype(np.int64), (packed & flag) != 0


def packed_tokens(ids: np.ndarray, starts_word: np.ndarray, vocab_size: int) -> np.ndarray:
    dtype = token_type(vocab_size)
    packed = ids.astype(dtype)
    packed[starts_word] |= word_flag(dtype)
    return packed


def word_flag(dtype: np.dtype) -> np.integer:
    return dtype.type(1 << (8 * dtype.itemsize - 1))


def token_type(vocab_size: int) -> np.dtype:
    """Two bytes a token while the ids leave the top bit of 16 free, else four."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 15 else np.uint32)


class TextBlock(NamedTuple):
    """The texts that a field brings to some rows: packed tokens, lengths of the texts, number of texts of each row."""

    tokens: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray


class FieldGathering:
    """The fields of one store being made. `known` are the facts of the training store by field; None for that store."""

    def __init__(self, fields: Sequence[Field], tokenizer: Tokenizer, known: Mapping[str, Any] | None) -> None:
        self.tokenizer = tokenizer
        self.parts = [(one, one.gatherer(None if known is None else known.get(one.name, {}))) for one in fields]

    def __bool__(self) -> bool:
        return bool(self.parts)

    def arrays(self, rows: Sequence[Row], encoded: Sequence[Sequence[Encoded]]) -> dict[str, np.ndarray]:
        """What the fields say of each token of these rows."""
        found: dict[str, np.ndarray] = {}
        for _, gatherer in self.parts:
            found |= {name: array.astype(np.int32) for name, array in gatherer.arrays(rows, encoded).items()}
        return found

    def texts(self, rows: Sequence[Row]) -> dict[str, TextBlock]:
        """The texts that the fields bring to these rows."""
        found = {}
        for one, gatherer in self.parts:
            if (texts := gatherer.texts(rows)) is not None:
                tokenizer = one.tokenizer or self.tokenizer
                ids, starts_word, lengths = tokenizer.encode_flat([text for several in texts for text in several])
                packed = packed_tokens(ids, starts_word, tokenizer.vocab_size)
                found[one.name] = TextBlock(packed, lengths, np.array([len(several) for several in texts], np.int64))
        return found

    def facts(self) -> dict[str, Any]:
        """What each field found, by its name."""
        return {"fields": {one.name: gatherer.facts() for one, gatherer in self.parts}} if self.parts else {}


class LabelGathering:
    """Collects labels while rows stream by; numbers them at the end in the order of their sorted names."""

    def __init__(self, kind: LabelKind, names: list[str] | None) -> None:
        self.kind = kind
        self.fixed = names
        self.seen: dict[str, int] = {name: number for number, name in enumerate(names or [])}
        self.single: list[int] = []
        self.several: list[list[int]] = []
        self.numbers: list[float] = []

    def add(self, rows: list[Row]) -> None:
        if self.kind == "class":
            self.single.extend(self._number(str(row.label), row.where) for row in rows)
        elif self.kind == "classes":
            for row in rows:
                assert isinstance(row.label, list), "multi-label rows carry lists"
                self.several.append([self._number(name, row.where) for name in row.label])
        elif self.kind == "number":
            self.numbers.extend(float(row.label) for row in rows)  # type: ignore[arg-type]

    def _number(self, name: str, where: str) -> int:
        number = self.seen.get(name)
        if number is None:
            if self.fixed is not None:
                known = ", ".join(self.fixed[:20]) + (", ..." if len(self.fixed) > 20 else "")
                raise DataError(
                    f"{where}: label {name!r} was not among the training labels{nearest(name, self.fixed)}",
                    expected=f"one of {known}",
                    fix="correct the row, or add rows with this label to the training data",
                )
            number = self.seen[name] = len(self.seen)
        return number

    def finish(self) -> tuple[np.ndarray | None, list[str], dict[str, Any]]:
        """The labels as an array, the names in order, and counts for people."""
        if self.kind == "none":
            return None, [], {}
        if self.kind == "number":
            return np.array(self.numbers, dtype=np.float64), [], {}
        names = self.fixed if self.fixed is not None else sorted(self.seen, key=_label_key)
        place = np.zeros(max(1, len(self.seen)), dtype=np.int64)
        for number, name in enumerate(names):
            place[self.seen[name]] = number
        if self.kind == "class":
            array = place[np.array(self.single, dtype=np.int64)]
            counts = Counter(names[number] for number in array.tolist())
        else:
            array = np.zeros((len(self.several), len(names)), dtype=bool)
            for row, numbers in enumerate(self.several):
                array[row, place[numbers]] = True
            counts = Counter({name: int(count) for name, count in zip(names, array.sum(axis=0))})
        return array, list(names), {"label_counts": {name: counts.get(name, 0) for name in names}}


def _label_key(name: str) -> tuple[int, float, str]:
    """Whole numbers in their own order, before all words."""
    return (0, int(name), name) if _WHOLE_NUMBER.fullmatch(name) else (1, 0.0, name)
