"""The token store: rows tokenised once, two or four bytes a token, memory mapped from disk or held in memory."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from encodery.data.mentions import Linker
from encodery.data.sources import Row
from encodery.data.tokenizers import Tokenizer
from encodery.errors import DataError, nearest

LabelKind = Literal["none", "class", "classes", "number"]
_FORMAT = 1
_ROWS_AT_ONCE = 2000
_DAY = 86_400  # seconds
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,300}")


@dataclass
class TokenStore:
    """Tokenised rows. `tokens` holds id and word-start flag of every token in one number (the top bit is the flag);
    `mentions` the entity that it names, as the Linker says it, where entities are known.

    `starts` (texts + 1,) says where each text begins; a row has one text, or two when `paired`. `labels` holds one
    entry a row: int64 class numbers, float64 numbers, or (rows, C) bool; None without labels.
    """

    tokens: np.ndarray
    starts: np.ndarray
    paired: bool = False
    labels: np.ndarray | None = None
    label_names: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    mentions: np.ndarray | None = None

    @property
    def rows(self) -> int:
        return (self.starts.size - 1) // (2 if self.paired else 1)

    def text(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids (int64) and word starts (bool) of one text."""
        packed = self.tokens[self.starts[number] : self.starts[number + 1]]
        flag = _flag(packed.dtype)
        return (packed & ~flag).astype(np.int64), (packed & flag) != 0

    def mention(self, number: int) -> np.ndarray | None:
        """The entity that each token of one text names (uint32); None where entities are not known."""
        return None if self.mentions is None else self.mentions[self.starts[number] : self.starts[number + 1]]

    def documents(self, most_tokens: int | None = None) -> Iterator[np.ndarray]:
        """The ids of each text, in order; stops after `most_tokens`."""
        seen = 0
        for number in range(self.starts.size - 1):
            ids, _ = self.text(number)
            yield ids
            seen += ids.size
            if most_tokens is not None and most_tokens <= seen:
                return

    def counts(self, vocab_size: int) -> np.ndarray:
        """How often each id occurs, (V,)."""
        flag = _flag(self.tokens.dtype)
        total = np.zeros(vocab_size, dtype=np.int64)
        for start in range(0, self.tokens.size, 1 << 24):
            total += np.bincount(self.tokens[start : start + (1 << 24)] & ~flag, minlength=vocab_size)
        return total


def _flag(dtype: np.dtype) -> np.integer:
    return dtype.type(1 << (8 * dtype.itemsize - 1))


def _token_type(vocab_size: int) -> np.dtype:
    """Two bytes a token while the ids leave the top bit of 16 free, else four."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 15 else np.uint32)


class Block(NamedTuple):
    """Some rows with their packed tokens, the lengths of their texts, and the entities of the tokens where known."""

    rows: list[Row]
    tokens: np.ndarray
    lengths: np.ndarray
    mentions: np.ndarray | None


def tokenise(rows: Iterable[Row], tokenizer: Tokenizer, linker: Linker | None = None) -> Iterator[Block]:
    """Tokenise rows in blocks. With a `linker` their mentions are found."""
    dtype = _token_type(tokenizer.vocab_size)
    stream = iter(rows)
    paired: bool | None = None
    while block := list(islice(stream, _ROWS_AT_ONCE)):
        texts: list[str] = []
        for row in block:
            if paired is not None and paired != (row.pair is not None):
                raise DataError(
                    f"{row.where}: this row {'has no' if paired else 'has a'} second text, unlike those before it",
                    expected="pairs in every source, or in none",
                    fix="set data.pair (or the pair of that source) to the same for all sources",
                )
            paired = row.pair is not None
            texts.append(row.text)
            if row.pair is not None:
                texts.append(row.pair)
        mentions = None
        if linker is None:
            ids, starts_word, lengths = tokenizer.encode_flat(texts)
        else:
            encoded = tokenizer.encode_batch(texts)
            ids, starts_word = (
                np.concatenate([getattr(one, name) for one in encoded]) for name in ("ids", "starts_word")
            )
            lengths = np.array([one.ids.size for one in encoded], dtype=np.int64)
            # The second text of a pair marks none; names are looked for in both.
            marked = [marks for row in block for marks in ((row.mentions, ()) if paired else (row.mentions,))]
            mentions = np.concatenate([linker.link(*given) for given in zip(texts, marked, encoded)])
        packed = ids.astype(dtype)
        packed[starts_word] |= _flag(dtype)
        yield Block(block, packed, lengths, mentions)


def store_in_memory(
    rows: Iterable[Row],
    tokenizer: Tokenizer,
    *,
    labels: LabelKind = "none",
    label_names: list[str] | None = None,
    linker: Linker | None = None,
) -> TokenStore:
    """Tokenise rows into memory. With `label_names` a label outside of them is a DataError; a `linker` finds what the
    texts mention."""
    gathered = _LabelGatherer(labels, label_names)
    tokens, lengths, mentions = [], [], [np.zeros(0, np.uint32)]
    paired = False
    for block in tokenise(rows, tokenizer, linker):
        paired = paired or block.rows[0].pair is not None
        gathered.add(block.rows)
        tokens.append(block.tokens)
        lengths.append(block.lengths)
        if block.mentions is not None:
            mentions.append(block.mentions)
    dtype = _token_type(tokenizer.vocab_size)
    flat = np.concatenate(tokens) if tokens else np.zeros(0, dtype)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]) if lengths else np.zeros(1, np.int64)
    array, names, facts = gathered.finish()
    if linker is None:
        return TokenStore(flat, starts.astype(np.int64), paired, array, names, facts)
    facts["mentions"] = linker.counts.to_dict()
    return TokenStore(flat, starts.astype(np.int64), paired, array, names, facts, np.concatenate(mentions))


def store_on_disk(
    folder: Path,
    rows: Callable[[], Iterable[Row]],
    tokenizer: Tokenizer,
    *,
    labels: LabelKind = "none",
    label_names: list[str] | None = None,
    facts: Callable[[], dict[str, Any]] = dict,
    on_progress: Callable[[int, int], None] | None = None,
    linker: Linker | None = None,
) -> TokenStore:
    """Open the store in `folder`, or tokenise `rows()` into it first.

    It is written beside and renamed when whole: an interrupted or a second simultaneous writer never leaves a half
    store behind. Memory stays flat whatever the size of the corpus. `facts()` is asked at the end and kept.
    """
    if (found := _open(folder)) is not None:
        return found
    for left in folder.parent.glob(f".{folder.name}-*"):
        # A writer that was killed leaves its work; one that lives touches its files more often than once a day.
        if max((file.stat().st_mtime for file in left.glob("*")), default=0.0) < time.time() - _DAY:
            shutil.rmtree(left, ignore_errors=True)
    work = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    work.mkdir(parents=True)
    try:
        _write(work, rows(), tokenizer, _LabelGatherer(labels, label_names), facts, on_progress, linker)
        try:
            os.rename(work, folder)
        except OSError:
            # Another run finished the same store first; its key is its content, so theirs is ours.
            if _open(folder) is None:
                raise
    except OSError as error:
        raise DataError(
            f"cannot write the token cache {folder}: {error.strerror or error}",
            fix="free some space or choose another place with data.cache=FOLDER",
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    opened = _open(folder)
    assert opened is not None, f"the store {folder} was written but cannot be opened"
    return opened


def _write(
    work: Path,
    rows: Iterable[Row],
    tokenizer: Tokenizer,
    gathered: _LabelGatherer,
    facts: Callable[[], dict[str, Any]],
    on_progress: Callable[[int, int], None] | None,
    linker: Linker | None,
) -> None:
    dtype = _token_type(tokenizer.vocab_size)
    total = texts = row_count = 0
    paired = False
    with ExitStack() as files:
        tokens, starts = (files.enter_context((work / name).open("wb")) for name in ("tokens.bin", "starts.bin"))
        mentions = None if linker is None else files.enter_context((work / "mentions.bin").open("wb"))
        starts.write(np.zeros(1, np.int64).tobytes())
        for block in tokenise(rows, tokenizer, linker):
            paired = paired or block.rows[0].pair is not None
            gathered.add(block.rows)
            tokens.write(block.tokens.tobytes())
            starts.write((total + np.cumsum(block.lengths)).astype(np.int64).tobytes())
            if mentions is not None and block.mentions is not None:
                mentions.write(block.mentions.tobytes())
            total, texts = total + block.tokens.size, texts + block.lengths.size
            row_count += len(block.rows)
            if on_progress is not None:
                on_progress(row_count, total)
    array, names, label_facts = gathered.finish()
    if array is not None:
        np.save(work / "labels.npy", array, allow_pickle=False)
    meta = {
        "format": _FORMAT,
        "dtype": dtype.name,
        "tokens": total,
        "texts": texts,
        "paired": paired,
        "labels": None if array is None else [array.dtype.str, *array.shape],
        "label_names": names,
        "facts": {**facts(), **label_facts},
    }
    if linker is not None:
        meta["facts"]["mentions"] = linker.counts.to_dict()
    (work / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")


def _open(folder: Path) -> TokenStore | None:
    """The store in `folder`, or None when there is none, or when its files do not have the sizes it names."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        dtype = np.dtype(meta["dtype"])
        whole = (
            meta["format"] == _FORMAT
            and (folder / "tokens.bin").stat().st_size == meta["tokens"] * dtype.itemsize
            and (folder / "starts.bin").stat().st_size == (meta["texts"] + 1) * 8
        )
        known = "mentions" in meta["facts"]
        whole = whole and (not known or (folder / "mentions.bin").stat().st_size == 4 * meta["tokens"])
        array = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False) if meta["labels"] else None
        whole = whole and (array is None or [array.dtype.str, *array.shape] == meta["labels"])
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        whole, meta, dtype, array, known = False, {}, np.dtype(np.uint16), None, False
    if not whole:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    empty = np.zeros(0, dtype)
    tokens = np.memmap(folder / "tokens.bin", dtype=dtype, mode="r") if meta["tokens"] else empty
    starts = np.memmap(folder / "starts.bin", dtype=np.int64, mode="r")
    mentions = np.zeros(0, np.uint32) if known else None
    if known and meta["tokens"]:
        mentions = np.memmap(folder / "mentions.bin", dtype=np.uint32, mode="r")
    return TokenStore(tokens, starts, meta["paired"], array, meta["label_names"], meta["facts"], mentions)


class _LabelGatherer:
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
