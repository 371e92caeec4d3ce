"""Sources -> one stream of good rows: read, split by hash, repeated by weight, and mixed."""

from __future__ import annotations

import math
import random
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

from encodery.data.fields import Field
from encodery.data.ledger import BINARY_FILE, ROWS_BEFORE_JUDGING, Ledger, Watch
from encodery.data.lines import Reading
from encodery.data.places import Place, binary_among, find
from encodery.data.readers import FIXED_COLUMNS, column_names, no_column, read
from encodery.data.rows import Labels, Row, RowMaker, fraction, stable_fraction
from encodery.data.source_config import DataConfig, SourceConfig, Split
from encodery.errors import DataError

_SIZE_OF_UNKNOWN: Final = 100_000_000
_ROW_BYTES_GUESSED: Final = 200.0


class Stream:
    """The rows of one source, with the bytes that were read for each, and how large it is."""

    def __init__(
        self,
        source: SourceConfig,
        data: DataConfig,
        split: Split,
        side: Split | None,
        base: Path,
        seed: int,
        labels: Labels,
        watch: Watch,
        fields: tuple[Field, ...] = (),
    ) -> None:
        self.found = find(source.path, source.format, base, source.encoding)
        self.weight = source.weight if split == "train" else 1.0
        self.size = self.weight * sum(place.size for place in self.found.places)
        self._source, self._data, self._side = source, data, side
        self._split: Split = split
        self._seed, self._watch = seed, watch
        self._labels: Labels = labels
        self._fields = fields
        for name, reason in self.found.passed_over:
            watch.note(reason, name)

    def rows(self) -> Generator[tuple[Row, int], None, None]:
        """Every row as often as the weight says; problems are entered in the first reading only."""
        for turn in range(math.ceil(self.weight)):
            watch = self._watch if turn == 0 else Watch(Ledger(), "skip", 1.0)
            kept = min(1.0, self.weight - turn)
            pending = 0
            for row, size in self._one_reading(turn, watch):
                pending += size
                if row is None:
                    continue
                watch.add_good()
                if not self._on_this_side(row) or (kept < 1 and fraction(row, self._seed, "weight") >= kept):
                    watch.add_set_aside()
                    continue
                yield row, pending
                pending = 0

    def _on_this_side(self, row: Row) -> bool:
        if self._side is None:
            return True
        apart = fraction(row, self._seed, "split") < self._data.validation_share
        return apart == (self._side == "validation")

    def _one_reading(self, turn: int, watch: Watch) -> Iterator[tuple[Row | None, int]]:
        places = list(self.found.places)
        if self._split == "train" and len(places) > 1:
            # Files are often sorted by label or by date; a random order mixes them.
            places.sort(key=lambda place: stable_fraction(f"{self._seed}\n{turn}\n{place.name}", "files"))
        for place in places:
            maker = _maker(place, self._source, self._data, self._labels, self._fields, self._side is not None)
            if (meaning := binary_among(places, place, self._source.encoding)) is not None:
                watch.add_bad(BINARY_FILE, place.name, meaning)
                continue
            yield from _read_place(place, maker, self._source, self._split, watch)


def _maker(
    place: Place, source: SourceConfig, data: DataConfig, labels: Labels, fields: tuple[Field, ...], apart: bool
) -> RowMaker:
    """How the rows of a file are made; groups matter only where validation is set `apart` from them."""
    text = source.text if source.text is not None else data.text
    pair = source.pair if source.pair is not None else data.pair
    label = source.label if source.label is not None else data.label
    if place.format in ("text", "folder"):
        if pair is not None:
            raise DataError(
                f"{place.name}: plain text has no column '{pair}' for `pair`",
                expected="a csv, tsv, jsonl, json or parquet file for pairs of texts",
                fix="remove `pair:`, or name a file with columns",
            )
        if columns := [column for one in fields for column in one.columns]:
            key, name = columns[0]
            raise DataError(
                f"{place.name}: plain text has no column '{name}' for `{key}`",
                expected="a csv, tsv, jsonl, json or parquet file",
                fix="name a file with columns",
            )
        text, label = "text", "label" if place.format == "folder" else None
    if labels != "none" and label is None:
        raise DataError(
            f"{place.name}: labels are needed, and the recipe does not say where they are",
            expected="`data.label:` with a column, or texts in folder/LABEL/x.txt with `format: folder`",
            fix="use a file with columns, or `format: folder`"
            if place.format == "text"
            else "say `data.label: COLUMN`",
        )
    names = (text,) if isinstance(text, str) else tuple(text)
    mentions = data.knowledge.mentions if data.knowledge is not None else None
    group = (source.group if source.group is not None else data.group) or None
    if not apart:
        group = None
    elif group is not None and place.format in ("text", "folder"):
        raise DataError(
            f"{place.name}: plain text has no column '{group}' for `group`",
            expected="a csv, tsv, jsonl, json or parquet file",
            fix="name a file with columns, or say `group: ''` for this source",
        )
    return RowMaker(names, pair, label, labels, data.label_separator, mentions, fields, group)


def reading(source: SourceConfig, wanted: tuple[str, ...] | None, split: Split) -> Reading:
    return Reading(source.documents, source.encoding, source.delimiter, source.quotes, wanted, split)


def _read_place(
    place: Place, maker: RowMaker, source: SourceConfig, split: Split, watch: Watch
) -> Iterator[tuple[Row | None, int]]:
    """Rows of one file, None for a bad one; a column that no row has is an error, not a thousand bad rows."""
    wanted = dict.fromkeys(name for _, name in maker.wanted)
    if maker.mentions is not None:  # a file without this column marks no mentions
        wanted[maker.mentions] = None
    how = reading(source, tuple(wanted), split)
    if place.format in FIXED_COLUMNS:
        if place.format not in ("text", "folder"):
            _check_columns(maker, column_names(place, how), place.name)
        for raw in read(place, how):
            yield maker.make(raw, watch), raw.size
        return
    seen: dict[str, None] = {}
    looked_at, enough = 0, 1 if watch.bad_rows == "refuse" else ROWS_BEFORE_JUDGING
    for raw in read(place, how):
        if looked_at < enough and not raw.bad:
            seen.update(dict.fromkeys(raw.value))
            looked_at += 1
            if looked_at == enough:
                _check_columns(maker, list(seen), raw.where if enough == 1 else place.name)
        yield maker.make(raw, watch), raw.size
    if 0 < looked_at < enough:
        _check_columns(maker, list(seen), place.name)


def _check_columns(maker: RowMaker, names: list[str], where: str) -> None:
    for key, name in maker.wanted:
        if name not in names:
            raise no_column(name, key, names, where)


def one_after_another(streams: list[Stream]) -> Iterator[Row]:
    for stream in streams:
        for row, _ in stream.rows():
            yield row


def mixed(streams: list[Stream], seed: int) -> Iterator[Row]:
    """Rows of all sources, each next one drawn with the chance of its estimated remaining rows.

    The mean row of a source is learnt on the way, so all sources come to their end at about the same time.
    """
    if len(streams) == 1:
        yield from one_after_another(streams)
        return
    chance = random.Random(seed)
    known = [stream.size for stream in streams if stream.size]
    unknown = sum(known) / len(known) if known else _SIZE_OF_UNKNOWN
    sizes = [stream.size or unknown for stream in streams]
    taken, counts = [0] * len(streams), [0] * len(streams)
    iterators = [stream.rows() for stream in streams]
    expected = [size / _ROW_BYTES_GUESSED for size in sizes]
    alive = list(range(len(streams)))
    try:
        while alive:
            (index,) = chance.choices(alive, [expected[i] for i in alive])
            found = next(iterators[index], None)
            if found is None:
                alive.remove(index)
                continue
            row, size = found
            taken[index] += size
            counts[index] += 1
            mean = max(1.0, taken[index] / counts[index])
            # Sizes are estimates: a source that outlasts its own goes on at a trickle until the end.
            expected[index] = max(1.0, (sizes[index] - taken[index]) / mean, 0.05 * counts[index])
            yield row
    finally:
        for iterator in iterators:
            iterator.close()
