"""The token store: rows tokenised once, two or four bytes a token, memory mapped from disk or held in memory."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from encodery.data.fields import Field, Texts
from encodery.data.gathering import (
    FieldGathering,
    LabelGathering,
    LabelKind,
    TextBlock,
    packed_tokens,
    token_type,
    unpacked,
    word_flag,
)
from encodery.data.mentions import Linker
from encodery.data.order import mix64
from encodery.data.sources import Row
from encodery.data.tokenizers import Tokenizer
from encodery.errors import DataError

_FORMAT = 2
_ROWS_AT_ONCE = 2000
_TEXTS_AT_ONCE = 100_000
_DAY = 86_400  # seconds


@dataclass
class TokenStore:
    """Tokenised rows. `tokens` holds id and word-start flag of every token in one number (the top bit is the flag);
    `mentions` the entity that it names, as the Linker says it, where entities are known; `beside` what the fields of
    the data say of it, by name (data/fields.py), and `texts_beside` the texts that they bring.

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
    beside: dict[str, np.ndarray] = field(default_factory=dict)
    texts_beside: dict[str, Texts] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return (self.starts.size - 1) // (2 if self.paired else 1)

    def text(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids (int64) and word starts (bool) of one text."""
        return unpacked(self.tokens[self.starts[number] : self.starts[number + 1]])

    def texts_of(self, row: int, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids and word starts of the texts that a field brings to one row."""
        return [unpacked(packed) for packed in self.texts_beside[name].of(row)]

    def numbers(self, number: int) -> dict[str, np.ndarray]:
        """What the fields say of each token of one text."""
        begin, end = self.starts[number], self.starts[number + 1]
        return {name: array[begin:end] for name, array in self.beside.items()}

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

    def row_keys(self) -> np.ndarray:
        """A digest of the tokens of each row, (rows,) uint64: the same one for rows of the same text or pair."""
        flag, texts = word_flag(self.tokens.dtype), self.starts.size - 1
        keys = np.empty(texts, dtype=np.uint64)
        for first in range(0, texts, _TEXTS_AT_ONCE):
            starts = self.starts[first : first + _TEXTS_AT_ONCE + 1].astype(np.int64)
            sizes = np.diff(starts)
            ids = (self.tokens[starts[0] : starts[-1]] & ~flag).astype(np.uint64)
            places = np.arange(1, ids.size + 1) - np.repeat(starts[:-1] - starts[0], sizes)
            sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(mix64(mix64(places.astype(np.uint64)) + ids))])
            keys[first : first + sizes.size] = np.diff(sums[starts - starts[0]])
        return mix64(keys[0::2]) + keys[1::2] if self.paired else keys

    def counts(self, vocab_size: int) -> np.ndarray:
        """How often each id occurs, (V,)."""
        flag = word_flag(self.tokens.dtype)
        total = np.zeros(vocab_size, dtype=np.int64)
        for start in range(0, self.tokens.size, 1 << 24):
            total += np.bincount(self.tokens[start : start + (1 << 24)] & ~flag, minlength=vocab_size)
        return total


class Block(NamedTuple):
    """Some rows with their packed tokens, the lengths of their texts, and the entities of the tokens where known."""

    rows: list[Row]
    tokens: np.ndarray
    lengths: np.ndarray
    mentions: np.ndarray | None
    beside: dict[str, np.ndarray]
    texts: dict[str, TextBlock]


def tokenise(
    rows: Iterable[Row], tokenizer: Tokenizer, linker: Linker | None = None, gathering: FieldGathering | None = None
) -> Iterator[Block]:
    """Tokenise rows in blocks. With a `linker` their mentions are found, with a `gathering` their fields taken."""
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
        beside: dict[str, np.ndarray] = {}
        if linker is None and not gathering:
            ids, starts_word, lengths = tokenizer.encode_flat(texts)
        else:
            encoded = tokenizer.encode_batch(texts)
            ids, starts_word = (
                np.concatenate([getattr(one, name) for one in encoded]) for name in ("ids", "starts_word")
            )
            lengths = np.array([one.ids.size for one in encoded], dtype=np.int64)
            if gathering:
                each = 2 if paired else 1
                beside = gathering.arrays(block, [encoded[at : at + each] for at in range(0, len(encoded), each)])
            if linker is not None:
                # The second text of a pair marks none; names are looked for in both.
                marked = [marks for row in block for marks in ((row.mentions, ()) if paired else (row.mentions,))]
                mentions = np.concatenate([linker.link(*given) for given in zip(texts, marked, encoded)])
        packed = packed_tokens(ids, starts_word, tokenizer.vocab_size)
        yield Block(block, packed, lengths, mentions, beside, gathering.texts(block) if gathering else {})


def store_in_memory(
    rows: Iterable[Row],
    tokenizer: Tokenizer,
    *,
    labels: LabelKind = "none",
    label_names: list[str] | None = None,
    linker: Linker | None = None,
    fields: Sequence[Field] = (),
    known: Mapping[str, Any] | None = None,
) -> TokenStore:
    """Tokenise rows into memory. With `label_names` a label outside of them is a DataError; a `linker` finds what the
    texts mention; `fields` are kept beside, by what is `known` of them from the training store."""
    gathered, gathering = LabelGathering(labels, label_names), FieldGathering(fields, tokenizer, known)
    tokens, lengths, mentions = [], [], [np.zeros(0, np.uint32)]
    beside: dict[str, list[np.ndarray]] = {}
    texts: dict[str, list[TextBlock]] = {}
    paired = False
    for block in tokenise(rows, tokenizer, linker, gathering):
        for name, array in block.beside.items():
            beside.setdefault(name, []).append(array)
        for name, some in block.texts.items():
            texts.setdefault(name, []).append(some)
        paired = paired or block.rows[0].pair is not None
        gathered.add(block.rows)
        tokens.append(block.tokens)
        lengths.append(block.lengths)
        if block.mentions is not None:
            mentions.append(block.mentions)
    dtype = token_type(tokenizer.vocab_size)
    flat = np.concatenate(tokens) if tokens else np.zeros(0, dtype)
    starts = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]) if lengths else np.zeros(1, np.int64)
    array, names, facts = gathered.finish()
    facts |= gathering.facts()
    store = TokenStore(flat, starts.astype(np.int64), paired, array, names, facts)
    store.beside = {name: np.concatenate(arrays) for name, arrays in beside.items()}
    store.texts_beside = {name: _texts(blocks) for name, blocks in texts.items()}
    if linker is not None:
        facts["mentions"] = linker.counts.to_dict()
        store.mentions = np.concatenate(mentions)
    return store


def _texts(blocks: list[TextBlock]) -> Texts:
    tokens, lengths, counts = (np.concatenate(parts) for parts in zip(*blocks))
    return Texts(tokens, np.concatenate([[0], np.cumsum(lengths)]), np.concatenate([[0], np.cumsum(counts)]))


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
    fields: Sequence[Field] = (),
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
        gathering = FieldGathering(fields, tokenizer, None)
        _write(work, rows(), tokenizer, LabelGathering(labels, label_names), gathering, facts, on_progress, linker)
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
    gathered: LabelGathering,
    gathering: FieldGathering,
    facts: Callable[[], dict[str, Any]],
    on_progress: Callable[[int, int], None] | None,
    linker: Linker | None,
) -> None:
    dtype = token_type(tokenizer.vocab_size)
    total = texts = row_count = 0
    paired = False
    with ExitStack() as files:
        tokens, starts = (files.enter_context((work / name).open("wb")) for name in ("tokens.bin", "starts.bin"))
        mentions = None if linker is None else files.enter_context((work / "mentions.bin").open("wb"))
        starts.write(np.zeros(1, np.int64).tobytes())
        written = _Written(work, files)
        for block in tokenise(rows, tokenizer, linker, gathering):
            paired = paired or block.rows[0].pair is not None
            gathered.add(block.rows)
            written.add(block)
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
        "facts": {**facts(), **label_facts, **gathering.facts()},
        "beside": written.beside,
        "texts_beside": written.texts,
    }
    if linker is not None:
        meta["facts"]["mentions"] = linker.counts.to_dict()
    (work / "meta.json").write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")


class _Written:
    """The files of the fields: name.i32 for numbers beside tokens; name.tokens, name.starts, name.rows for texts."""

    def __init__(self, work: Path, files: ExitStack) -> None:
        self.work, self.files = work, files
        self.open: dict[str, IO[bytes]] = {}
        self.beside: list[str] = []
        self.texts: dict[str, list[Any]] = {}
        """By name: the type of a token, how many tokens, texts and rows."""

    def add(self, block: Block) -> None:
        for name, array in block.beside.items():
            if name not in self.beside:
                self.beside.append(name)
            self._write(f"{name}.i32", array)
        for name, (tokens, lengths, counts) in block.texts.items():
            if name not in self.texts:
                self.texts[name] = [tokens.dtype.name, 0, 0, 0]
                for part in ("starts", "rows"):
                    self._write(f"{name}.{part}", np.zeros(1, np.int64))
            known = self.texts[name]
            self._write(f"{name}.tokens", tokens)
            self._write(f"{name}.starts", known[1] + np.cumsum(lengths, dtype=np.int64))
            self._write(f"{name}.rows", known[2] + np.cumsum(counts))
            self.texts[name] = [known[0], known[1] + tokens.size, known[2] + lengths.size, known[3] + counts.size]

    def _write(self, name: str, array: np.ndarray) -> None:
        if name not in self.open:
            self.open[name] = self.files.enter_context((self.work / name).open("wb"))
        self.open[name].write(array.tobytes())


def _beside(folder: Path, meta: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Texts]]:
    """What `_Written` has written. Raises ValueError when a file does not have the size that it should."""
    beside = {name: _read_array(folder / f"{name}.i32", np.int32) for name in meta["beside"]}
    texts: dict[str, Texts] = {}
    for name, (dtype, tokens, count, rows) in meta["texts_beside"].items():
        parts = (("tokens", dtype, tokens), ("starts", np.int64, count + 1), ("rows", np.int64, rows + 1))
        arrays = [_read_array(folder / f"{name}.{part}", kind) for part, kind, _ in parts]
        if [array.size for array in arrays] != [size for *_, size in parts]:
            raise ValueError(f"{name} of {folder} is not whole")
        texts[name] = Texts(*arrays)
    if any(array.size != meta["tokens"] for array in beside.values()):
        raise ValueError(f"a field of {folder} is not whole")
    return beside, texts


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
        beside, texts_beside = _beside(folder, meta)
    except (OSError, ValueError, KeyError, TypeError, EOFError):
        whole, meta, dtype, array, known = False, {}, np.dtype(np.uint16), None, False
        beside, texts_beside = {}, {}
    if not whole:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    tokens, starts = _read_array(folder / "tokens.bin", dtype), _read_array(folder / "starts.bin", np.int64)
    mentions = _read_array(folder / "mentions.bin", np.uint32) if known else None
    names, facts = meta["label_names"], meta["facts"]
    return TokenStore(tokens, starts, meta["paired"], array, names, facts, mentions, beside, texts_beside)


def _read_array(path: Path, dtype: Any) -> np.ndarray:
    """A file of plain numbers, memory mapped; an empty file is an empty array."""
    if not path.stat().st_size:
        return np.zeros(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")
