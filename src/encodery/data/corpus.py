"""The data of one run, tokenised: its tokenizer, the stores of its splits, and what is worth saying of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from encodery.data.branches import KnowledgeWriter
from encodery.data.composing import samples_of_row
from encodery.data.fields import Field
from encodery.data.knowledge import Knowledge, read_texts
from encodery.data.loader import StoredWindows, StreamedWindows, Windows
from encodery.data.mentions import Linker
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.sources import DataConfig, Labels, Ledger, Row, Split, fingerprint, read_rows
from encodery.data.store import TokenStore, store_in_memory, store_on_disk
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.errors import DataError

# Rows of a stream that are looked at in advance: for token counts, co-occurrence and the report.
STREAM_ROWS_KNOWN = 20_000
# Bins of the length histogram in the report.
_BINS = 30


@dataclass(frozen=True)
class Reading:
    """How the rows of a run are read: everything that decides which rows come, in which order."""

    data: DataConfig
    base: Path
    seed: int
    labels: Labels
    cache: Path
    knowledge: Knowledge | None = None
    fields: tuple[Field, ...] = ()

    def linker(self) -> Linker | None:
        """What finds mentions, with counts of its own; None where no entities are known."""
        return None if self.knowledge is None else Linker(self.knowledge)

    def writer(self, tokenizer: Tokenizer) -> KnowledgeWriter | None:
        """What writes the knowledge into samples; None where there is none."""
        return None if self.knowledge is None else KnowledgeWriter(self.knowledge, tokenizer)

    def rows(self, split: Split, ledger: Ledger | None = None, *, skip: int = 0) -> Iterator[Row]:
        book = Ledger() if ledger is None else ledger
        return read_rows(
            self.data,
            split,
            base=self.base,
            seed=self.seed,
            labels=self.labels,
            ledger=book,
            skip=skip,
            fields=self.fields,
        )

    def texts(self, split: Split = "train") -> Iterator[str]:
        """All that is read as text: the rows of a split with the texts of their fields (but for those that have a
        tokenizer of their own), what is written behind them, what is said of entities."""
        texts = [one.gatherer(None) for one in self.fields if not getattr(one, "own", False)]
        for row in self.rows(split):
            yield row.text
            if row.pair is not None:
                yield row.pair
            for one in texts:
                yield from (text for several in one.texts([row]) or () for text in several)
        if self.knowledge is not None:
            yield from (fact for _, fact in self.knowledge.facts)
        if self.data.knowledge is not None and self.data.knowledge.descriptions is not None:
            yield from (text for _, text in read_texts(self.data.knowledge.descriptions, self.base))

    def key(self, split: Split, tokenizer: Tokenizer, label_names: list[str] | None) -> str:
        """Name of the token cache: changes whenever the tokens or labels in it could."""
        parts = [
            fingerprint(self.data, split, base=self.base),
            tokenizer.hash(),
            self.seed,
            self.labels,
            label_names,
            *([] if self.knowledge is None else [self.knowledge.entities, self.knowledge.names]),
            *((field.name, field.key()) for field in self.fields),
        ]
        return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class HeldRows:
    """A split that is held as text as well: to score it, to compare it with baselines, to show its errors."""

    store: TokenStore
    rows: list[Row]
    ledger: dict[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        return [row.text for row in self.rows]

    @property
    def pairs(self) -> list[str] | None:
        return [row.pair or "" for row in self.rows] if self.store.paired else None


def make_tokenizer(
    reading: Reading, config: TokenizerConfig, on_progress: Callable[[str, float], None] | None = None
) -> Tokenizer:
    """Open the tokenizer the recipe names, or train one on the training texts."""
    if config.path is not None:
        config = config.model_copy(update={"path": str(reading.base / config.path)})
    return train_tokenizer(reading.texts(), config, seed=reading.seed, on_progress=on_progress)


def training_store(
    reading: Reading, tokenizer: Tokenizer, on_progress: Callable[[int, int], None] | None = None
) -> TokenStore:
    """The training rows, tokenised once into the cache and memory mapped from there."""
    ledger = Ledger()
    store = store_on_disk(
        reading.cache / reading.key("train", tokenizer, None),
        lambda: reading.rows("train", ledger),
        tokenizer,
        labels=reading.labels,
        facts=lambda: {"ledger": ledger.to_dict(), "ledger_summary": ledger.summary()},
        on_progress=on_progress,
        linker=reading.linker(),
        fields=reading.fields,
    )
    require_mentions(reading, store)
    require_classes(reading.labels, store.label_names, store.rows)
    return store


def require_classes(labels: Labels, names: list[str], rows: int) -> None:
    """Raise DataError when these label names leave nothing to tell apart."""
    if labels in ("class", "classes") and len(names) < (2 if labels == "class" else 1):
        only = f"only the label {names[0]!r}" if names else "no label"
        raise DataError(
            f"the training data has {only} in its {rows:,} rows",
            expected="rows of at least two classes",
            fix="check data.label and the files; to learn without labels use objective=masked",
        )


def require_mentions(reading: Reading, store: TokenStore) -> None:
    """Raise DataError when entities are known and the training texts mention none of them."""
    if reading.knowledge is None or store.facts["mentions"]["mentions"]:
        return
    column = reading.data.knowledge.mentions if reading.data.knowledge is not None else None
    unknown = store.facts["mentions"].get("mentions of unknown entities", 0)
    raise DataError(
        f"none of the {store.rows:,} training rows mentions one of the {len(reading.knowledge.entities):,} entities"
        + (f"; {unknown:,} mentions are of others" if unknown else ""),
        expected=f"[[start, stop, entity], ...] in the column {column!r}"
        if column
        else "names that occur in the texts",
        fix="check data.knowledge.mentions and data.knowledge.names, or leave data.knowledge out",
    )


def held_rows(
    reading: Reading,
    split: Split,
    tokenizer: Tokenizer,
    label_names: list[str],
    known: Mapping[str, Any] | None = None,
) -> HeldRows:
    """Read and tokenise a split that fits in memory: validation or test. `known` are the facts of the training store
    about its fields."""
    ledger = Ledger()
    rows = list(reading.rows(split, ledger))
    names = label_names if reading.labels in ("class", "classes") else None
    store = store_in_memory(
        rows,
        tokenizer,
        labels=reading.labels,
        label_names=names,
        linker=reading.linker(),
        fields=reading.fields,
        known=known or {},
    )
    return HeldRows(store, rows, ledger.to_dict())


@dataclass(frozen=True)
class TrainingText:
    """The training rows as a run uses them: what batches are made from, and what is counted in advance.

    `known` is the whole token store, or for a stream its first rows; `epoch_tokens` is 0 for a stream.
    """

    known: TokenStore
    windows: Callable[[int], Windows]
    epoch_tokens: int


def training_text(
    reading: Reading, tokenizer: Tokenizer, maker: SampleMaker, on_progress: Callable[[int, int], None] | None = None
) -> TrainingText:
    """Cached rows, shuffled through and through; or with `data.tokens: streamed` rows tokenised on the fly."""
    if reading.data.tokens == "cached":
        store = training_store(reading, tokenizer, on_progress)
        tokens = int(sample_lengths(store, maker).sum())
        return TrainingText(store, lambda seed: StoredWindows(store, seed=seed), tokens)
    first = islice(reading.rows("train"), STREAM_ROWS_KNOWN)
    known = store_in_memory(first, tokenizer, linker=reading.linker(), fields=reading.fields)
    require_mentions(reading, known)

    def streamed(seed: int) -> Windows:
        return StreamedWindows(
            lambda epoch, skip: reading.rows("train", skip=skip),
            tokenizer,
            seed=seed,
            paired=known.paired,
            linker=reading.linker(),
            fields=reading.fields,
            known=known.facts.get("fields", {}),
        )

    return TrainingText(known, streamed, 0)


def sample_lengths(store: TokenStore, maker: SampleMaker) -> np.ndarray:
    """Tokens of each row once it is framed and cut to size, its samples added up: (rows,)."""
    if _must_be_made(maker):
        return _made(store, maker)[0]
    lengths, limit = np.diff(store.starts), maker.max_length
    if store.paired:
        return np.minimum(lengths[0::2] + lengths[1::2] + maker.around.pair_size, limit)
    single = maker.around.single_size
    room = limit - single
    windows = np.maximum(1, -(-lengths // room)) if maker.long == "split" else 1
    kept = lengths if maker.long == "split" else np.minimum(lengths, room)
    return kept + single * windows


def _must_be_made(maker: SampleMaker) -> bool:
    """Whether what a row takes is known only once its samples are there."""
    return maker.compose != "joined" or (maker.writer is not None and maker.writer.inject is not None)


def _made(store: TokenStore, maker: SampleMaker) -> tuple[np.ndarray, LengthCounts]:
    """The lengths by making every sample."""
    counts = LengthCounts()
    rows = (samples_of_row(store, maker, row, counts) for row in range(store.rows))
    return np.array([sum(sample.ids.size for sample in samples) for samples in rows], dtype=np.int64), counts


def length_facts(store: TokenStore, maker: SampleMaker) -> dict[str, Any]:
    """Rows, tokens, how many rows are longer than the limit and what happens to them; mentions and the triples written
    for them."""
    lengths, limit = np.diff(store.starts), maker.max_length
    single, pair = maker.around.single_size, maker.around.pair_size
    whole = lengths[0::2] + lengths[1::2] + pair if store.paired else lengths + single
    counts = LengthCounts()
    if _must_be_made(maker):
        made, counts = _made(store, maker)
        whole = made if maker.compose != "joined" else whole
    over = whole > limit
    facts: dict[str, Any] = {"rows": int(store.rows), "tokens": int(lengths.sum())}
    if whole.size:
        facts["median length"] = int(np.median(whole))
        facts["longest"] = int(whole.max())
    cuts = store.paired or maker.long == "cut"
    if _must_be_made(maker):
        if counts.cut_rows or cuts:
            facts |= {"rows cut": counts.cut_rows, "tokens cut": counts.cut_tokens}
        if not cuts:
            facts |= {"rows split into windows": counts.split_rows, "windows": counts.windows}
    elif cuts:
        facts |= {"rows cut": int(over.sum()), "tokens cut": int((whole[over] - limit).sum())}
    else:
        facts["rows split into windows"] = int(over.sum())
        facts["windows"] = int(np.maximum(1, -(-lengths // (limit - single))).sum())
    facts |= store.facts.get("mentions", {})
    for of_field in store.facts.get("fields", {}).values():
        facts |= of_field.get("counts", {})
    if maker.writer is not None and maker.writer.inject is not None:
        facts |= {"triples written": counts.branches, "tokens of triples": counts.branch_tokens}
        facts["triples left out for lack of room"] = counts.branches_left_out
    return facts


def length_histogram(store: TokenStore, max_length: int) -> dict[str, Any]:
    """Rows by length in tokens, with the limit: for the report."""
    lengths = np.diff(store.starts)
    whole = lengths[0::2] + lengths[1::2] if store.paired else lengths
    top = max(8, int(np.quantile(whole, 0.995))) if whole.size else 8
    counts, edges = np.histogram(np.minimum(whole, top), bins=min(_BINS, top), range=(0, top))
    return {"edges": edges.tolist(), "counts": counts.tolist(), "limit": max_length, "unit": "tokens"}
